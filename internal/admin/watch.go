package admin

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hacheck/internal/terminal"
)

const (
	defaultWatch = 2 * time.Second        // between two frames of hastatus --watch
	minWatch     = 200 * time.Millisecond // the daemon answers each frame
	markTime     = 5 * time.Second        // how long a changed line is marked
)

// watchValue is the optional value of --watch.
type watchValue options

// String returns "", because the help has the default in words.
func (w *watchValue) String() string { return "" }

// Type returns the type for which pflag does not require a value.
func (w *watchValue) Type() string { return "bool" }

// Set reads the time between two frames.
func (w *watchValue) Set(s string) error {
	if w.isWatchBare = s == noDuration; w.isWatchBare {
		w.watch = defaultWatch
		return nil
	}
	d, err := parseDuration(s)
	switch {
	case errors.Is(err, errTooLong):
		return errors.New("that is more than a hundred years")
	case err == nil && d < minWatch:
		return errors.New("want 0.2s or more")
	}
	w.watch = d
	return err
}

// frame is one output of hastatus.
type frame struct {
	at   time.Time
	text string // what it prints, then what it says on standard error
}

// watcher runs hastatus again and again, until a signal or the key q.
type watcher struct {
	*command
	show    func(*command) int
	screen  *terminal.Screen // nil: print one frame after the other
	changes changeMarks
	last    frame
	warning string // with --json, what was last said on standard error
}

// watch shows what show prints, again and again. It returns when a signal arrives or the operator types q. An error of
// show, for example of a daemon that is away, is part of the frame.
func (c *command) watch(show func(*command) int) int {
	w := &watcher{command: c, show: show}
	stop, resize, suspend := make(chan os.Signal, 1), make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	var keys <-chan byte
	if !c.opt.json {
		w.screen = terminal.NewScreen(c.Stdin, c.Stdout)
	}
	if w.screen != nil {
		signal.Notify(resize, syscall.SIGWINCH)
		signal.Notify(suspend, syscall.SIGTSTP)
		w.screen.Enter()
		defer func() { w.screen.Leave() }()
		keys = w.screen.Keys()
	}
	// A frame may take seconds if the daemon does not answer. Keys and signals do not wait for it.
	frames := make(chan frame, 1)
	run := func() { frames <- w.frame() }
	go run()
	next := time.NewTimer(time.Hour)
	for {
		select {
		case f := <-frames:
			if err := w.print(f); err != nil {
				return ExitFailed // Main says why
			}
			next.Reset(c.opt.watch)
		case <-next.C:
			go run()
		case key := <-keys:
			if key == 'q' || key == 'Q' {
				return ExitOK
			}
		case <-stop:
			return ExitOK
		case <-resize:
			w.draw()
		case <-suspend:
			w.suspend()
		}
	}
}

// frame runs hastatus once.
func (w *watcher) frame() frame {
	var out, errs bytes.Buffer
	c := *w.command
	c.out, c.Stderr = bufio.NewWriter(&out), &errs
	at := c.Now()
	w.show(&c)
	_ = c.out.Flush() // a buffer has no write errors
	f := frame{at, out.String()}
	message := strings.TrimSpace(errs.String())
	switch {
	case message == "":
		w.warning = ""
	case !c.opt.json:
		f.text += "\n" + message + "\n"
	case f.text != "":
		if message != w.warning {
			w.warning = message
			_, _ = fmt.Fprintln(w.Stderr, message) // as errorf
		}
	default: // the daemon, or etcd, cannot be asked
		c.printJSON(struct {
			Error string `json:"error"`
		}{strings.TrimPrefix(message, c.name+": ")})
		_ = c.out.Flush() // as above
		f.text = out.String()
	}
	return f
}

// print shows a frame.
func (w *watcher) print(f frame) error {
	w.last = f
	if w.screen != nil {
		w.changes.update(f)
		w.draw()
		return nil
	}
	if !w.opt.json {
		w.printf("%s\n", f.at.Local().Format(time.DateTime))
		f.text += "\n"
	}
	w.printf("%s", f.text)
	return w.out.Flush()
}

// draw draws the last frame on the screen.
func (w *watcher) draw() {
	if w.last.text == "" {
		return // the first frame is not there yet
	}
	head := w.name + " every " + w.opt.watch.String() + ", " + w.last.at.Local().Format(time.TimeOnly) + "; q ends it"
	lines := append([]terminal.Line{{Text: head}, {}}, w.changes.marked(w.last.at)...)
	_ = w.screen.Draw(lines) // the terminal has gone: SIGHUP follows
}

// suspend is ^Z: it gives the terminal back, stops the process, and draws again when the operator continues it. It ignores
// ^Z if the parent is in another session, as with "ssh -t": then no shell would continue the process.
func (w *watcher) suspend() {
	if session, err := unix.Getsid(os.Getppid()); err == nil {
		if own, err := unix.Getsid(0); err == nil && own != session {
			return
		}
	}
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)
	w.screen.Leave()
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGSTOP) // it cannot fail
	// The process may run on for a moment before it stops. It must not take the terminal back in that time.
	<-continued
	w.screen.Enter()
	w.draw()
}

// changeMarks finds the lines of a frame that have changed since the frame before.
type changeMarks struct {
	lines []string
	since map[string]time.Time // when a line, without its times, has changed; zero: it was in the first frame
	sizes map[string]int       // lines of each section, by its first line without times
}

// update takes a new frame. A line is new if the frame before has no line with the same text, apart from times and
// spaces. The first line of a section is also changed if the section has become shorter.
func (m *changeMarks) update(f frame) {
	isFirst := m.since == nil
	since, sizes := map[string]time.Time{}, map[string]int{}
	m.lines = strings.Split(strings.TrimRight(f.text, "\n"), "\n")
	head := ""
	for _, line := range m.lines {
		key := withoutTimes(line)
		if key == "" {
			head = ""
			continue
		}
		if head == "" {
			head = key
		}
		sizes[head]++
		at, isKnown := m.since[key]
		if !isKnown && !isFirst {
			at = f.at
		}
		since[key] = at
	}
	for head, size := range sizes {
		if size < m.sizes[head] {
			since[head] = f.at
		}
	}
	m.since, m.sizes = since, sizes
}

// marked returns the lines of the frame, with a star before those that have changed in the last markTime.
func (m *changeMarks) marked(now time.Time) []terminal.Line {
	lines := make([]terminal.Line, len(m.lines))
	for i, line := range m.lines {
		at := m.since[withoutTimes(line)]
		isMarked := !at.IsZero() && now.Sub(at) < markTime
		prefix := "  "
		if isMarked {
			prefix = "* "
		}
		if line == "" {
			prefix = ""
		}
		lines[i] = terminal.Line{Text: prefix + line, IsMarked: isMarked}
	}
	return lines
}

// withoutTimes returns line without durations such as 2m05s and with single spaces: they change all the time.
func withoutTimes(line string) string {
	words := strings.Fields(line)
	kept := words[:0]
	for _, word := range words {
		if !isDuration(strings.Trim(word, "(),;:")) {
			kept = append(kept, word)
		}
	}
	return strings.Join(kept, " ")
}

// isDuration reports whether word is a duration as textfmt.Seconds writes it.
func isDuration(word string) bool {
	return word != "" && word[0] >= '0' && word[0] <= '9' && strings.Trim(word, "0123456789dhms") == "" && strings.Trim(word, "0123456789") != ""
}
