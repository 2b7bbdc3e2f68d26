package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// exchangeResult is the result of a step.
type exchangeResult struct {
	rawAnswer
	http, closed bool
	took         time.Duration
	ended        bool // a command, or a daemon, with this exit code:
	exit         int
	out, err     string
	serves       bool
}

func (s exchangeResult) String() string {
	switch {
	case s.closed:
		return "closed"
	case s.http:
		return fmt.Sprintf("%d %q after %v, head %q", s.code, truncate(s.body), s.took, s.head)
	case s.ended:
		return fmt.Sprintf("exit %d, out %q, err %q", s.exit, truncate(s.out), truncate(s.err))
	}
	return fmt.Sprintf("serves: %v", s.serves)
}

func truncate(s string) string {
	if len(s) > 300 {
		return s[:300] + "..."
	}
	return s
}

// expect compares the result with the expectations of a table.
func (w *refRun) expect(terms []refTerm) error {
	for _, term := range terms {
		ok, err := w.matches(term)
		if err != nil {
			return fmt.Errorf("%v: %w", term, err)
		}
		if !ok {
			got := w.last.String()
			switch term.word {
			case "upstream", "noupstream", "asked":
				got = fmt.Sprintf("the service got %q", w.upstream())
			case "file", "nofile":
				got = w.list()
			}
			return fmt.Errorf("want %v; got %s", term, got)
		}
	}
	return nil
}

func (w *refRun) matches(term refTerm) (bool, error) {
	s, args := &w.last, make([]string, len(term.args))
	for i, a := range term.args {
		args[i] = w.expand(a)
	}
	match := func(expr, text string) (bool, error) {
		re, err := regexp.Compile(expr)
		return err == nil && re.MatchString(text), err
	}
	header := func() (bool, error) {
		re, err := regexp.Compile(args[0])
		return s.http && err == nil && slices.ContainsFunc(s.head, re.MatchString), err
	}
	switch term.word {
	case "never":
		return false, nil
	case "closed":
		return s.closed, nil
	case "serves":
		return s.serves, nil
	case "quick":
		return !s.closed && s.took < w.timeout/2, nil
	case "late":
		return !s.closed && s.took >= w.timeout/2, nil
	case "body":
		ok, err := match(args[0], s.body)
		return ok && s.http && !s.closed, err
	case "header":
		return header()
	case "noheader":
		ok, err := header()
		return !ok && s.http && !s.closed, err
	case "exit":
		n, err := strconv.Atoi(args[0])
		return s.ended && s.exit == n, err
	case "out":
		return match(args[0], s.out)
	case "err":
		return match(args[0], s.err)
	case "log":
		// The daemon writes its log after the answer.
		for end := time.Now().Add(2 * time.Second); ; {
			ok, err := match(args[0], w.d.out.String())
			if ok || err != nil || time.Now().After(end) {
				return ok, err
			}
			<-time.After(time.Millisecond)
		}
	case "file":
		text, err := os.ReadFile(filepath.Join(w.spool, args[0]))
		if err != nil {
			return false, nil //nolint:nilerr // a file that is not there is an answer
		}
		return match(args[1], string(text))
	case "nofile":
		_, err := os.Lstat(filepath.Join(w.spool, args[0]))
		return errors.Is(err, os.ErrNotExist), nil
	case "upstream":
		got := w.upstream()
		if len(got) == 0 {
			return false, nil
		}
		return match(args[0], got[len(got)-1])
	case "noupstream":
		return len(w.upstream()) == 0, nil
	case "asked":
		return strconv.Itoa(len(w.upstream())) == args[0], nil
	}
	n, err := strconv.Atoi(term.word)
	return s.http && !s.closed && s.code == n, err
}

// upstream returns the requests that the test services got in this row.
func (w *refRun) upstream() []string {
	var all []string
	for _, toy := range w.services {
		toy.mu.Lock()
		all = append(all, toy.got...)
		toy.mu.Unlock()
	}
	return all
}

func (w *refRun) list() string {
	var b strings.Builder
	entries, _ := os.ReadDir(w.spool)
	for _, e := range entries {
		text, _ := os.ReadFile(filepath.Join(w.spool, e.Name()))
		fmt.Fprintf(&b, "%s=%q ", e.Name(), text)
	}
	return "in the spool " + b.String() + "after " + w.last.String()
}
