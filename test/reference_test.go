package test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The tables in testdata/reference hold what the original was seen to do, row by row, and what this hacheck does
// instead where it differs on purpose. testdata/reference/README says how they are written.

// refCase is one row.
type refCase struct {
	file   string
	line   int
	row    string
	config string // lines of the configuration file
	steps  []refStep
	// original and ours are what is seen of the last step; ours is nil when it is the same.
	original, ours []refTerm
	why, doc, left string
}

// refStep is something that is done: its line has words, and quoted strings.
type refStep struct {
	what, text string
	words      []refWord
}

type refWord struct {
	text   string
	quoted bool
}

// refTerm is one thing that is expected, such as `body "^$"`.
type refTerm struct {
	word string
	args []string
}

func (t refTerm) String() string { return strings.TrimSpace(fmt.Sprintf("%s %q", t.word, t.args)) }

// refTerms are the words that expect something, and how many strings follow them. Numbers are HTTP codes.
var refTerms = map[string]int{
	"body": 1, "header": 1, "noheader": 1, "closed": 0, // of an HTTP answer; closed: not a byte
	"quick": 0, "late": 0, // before or after half of healthcheck_timeout
	"exit": 1, "out": 1, "err": 1, // of a command, or of a daemon that has ended
	"serves": 0, "log": 1, // of a daemon that runs
	"file": 2, "nofile": 1, // in the spool directory afterwards
	"upstream": 1, "noupstream": 0, "asked": 1, // what the service got: the last request, none, how many
	"never": 0, // what never happens here: the original hangs, or loses something
}

// refWords splits a line into words and strings as Go quotes them.
func refWords(s string) ([]refWord, error) {
	var words []refWord
	for s = strings.TrimLeft(s, " "); s != ""; s = strings.TrimLeft(s, " ") {
		if s[0] == '"' || s[0] == '`' {
			q, err := strconv.QuotedPrefix(s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s, err)
			}
			u, err := strconv.Unquote(q)
			if err != nil {
				return nil, err
			}
			words, s = append(words, refWord{u, true}), s[len(q):]
			continue
		}
		var w string
		w, s, _ = strings.Cut(s, " ")
		words = append(words, refWord{w, false})
	}
	return words, nil
}

func parseTerms(s string) ([]refTerm, error) {
	words, err := refWords(s)
	if err != nil {
		return nil, err
	}
	terms := []refTerm{}
	for len(words) > 0 {
		t := refTerm{word: words[0].text}
		n, known := refTerms[t.word]
		if _, err := strconv.Atoi(t.word); err != nil && (!known || words[0].quoted) || len(words) <= n {
			return nil, fmt.Errorf("%q is nothing that can be expected, or lacks what it needs", t.word)
		}
		for _, w := range words[1 : 1+n] {
			t.args = append(t.args, w.text)
		}
		words, terms = words[1+n:], append(terms, t)
	}
	if len(terms) == 0 {
		return nil, errors.New("nothing is expected")
	}
	return terms, nil
}

// parseReference reads one table.
func parseReference(file, text string) ([]*refCase, error) {
	var cases []*refCase
	var c *refCase
	config := ""
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		bad := func(err error) ([]*refCase, error) { return nil, fmt.Errorf("%s:%d: %w", file, n, err) }
		if !ok || c == nil && key != "row" && key != "configs" {
			return bad(fmt.Errorf("%q is no key of a row", key))
		}
		var err error
		switch key {
		case "configs": // for all rows that follow
			config = strings.ReplaceAll(value, ` \n `, "\n")
		case "row":
			c = &refCase{file: file, line: n, row: value, config: config}
			cases = append(cases, c)
		case "config":
			c.config += "\n" + value
		case "original":
			c.original, err = parseTerms(value)
		case "ours":
			if value != "same" {
				c.ours, err = parseTerms(value)
			}
		case "why":
			c.why = value
		case "doc":
			c.doc = value
		case "not replayed":
			c.left = value
		case "run", "shell", "start":
			c.steps = append(c.steps, refStep{what: key, text: value})
		case "send", "file", "signal":
			s := refStep{what: key, text: value}
			s.words, err = refWords(value)
			c.steps = append(c.steps, s)
		default:
			err = fmt.Errorf("%q is no key of a row", key)
		}
		if err != nil {
			return bad(err)
		}
	}
	for _, c := range cases {
		if err := c.complete(); err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", file, c.line, c.row, err)
		}
	}
	return cases, nil
}

var refTestName = regexp.MustCompile(`\bTest[A-Z]\w*`)

// testExists tells whether a package has a test of that name.
func testExists(name string) bool {
	files, _ := filepath.Glob("../*/*/*_test.go")
	here, _ := filepath.Glob("*_test.go")
	return slices.ContainsFunc(append(files, here...), func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && bytes.Contains(text, []byte("\nfunc "+name+"(t *testing.T)"))
	})
}

// complete says what a row lacks or has too much.
func (c *refCase) complete() error {
	switch {
	case c.left != "":
		for _, name := range refTestName.FindAllString(c.left, -1) {
			if !testExists(name) {
				return fmt.Errorf("there is no %s", name)
			}
		}
		if c.steps != nil || c.original != nil || c.ours != nil {
			return errors.New("it is said not to be replayed, and has what it needs to be")
		}
		return nil
	case c.steps == nil:
		return errors.New("nothing is done")
	case c.original == nil:
		return errors.New("the original's answer is missing")
	case c.ours != nil && c.why == "":
		return errors.New("it differs, and does not say why")
	case c.ours == nil && c.why != "":
		return errors.New("it says why, and does not differ")
	case c.ours != nil && c.doc == "":
		return errors.New("it differs, and names no line of docs/migrating.md (or none)")
	}
	return nil
}

// exchangeResult is what came of a step.
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

// refRun is where rows are replayed: a directory, toy services, perhaps a daemon.
type refRun struct {
	t       *testing.T
	dir     string
	spool   string
	port    int
	timeout time.Duration
	d       *process
	toys    map[string]*refService
	last    exchangeResult
	beside  sync.WaitGroup // of requests that are waited for at the end of a row
}

func newRefRun(t *testing.T, config string) *refRun {
	w := &refRun{t: t, dir: t.TempDir(), timeout: 10 * time.Second, toys: map[string]*refService{}}
	w.spool = filepath.Join(w.dir, "spool")
	if m := regexp.MustCompile(`healthcheck_timeout: ([0-9.]+)`).FindStringSubmatch(config); m != nil {
		f, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		w.timeout = time.Duration(f * float64(time.Second))
	}
	// Somebody who is nobody has to get to the commands and to the spool.
	for _, dir := range []string{filepath.Dir(bin(t, "haup")), filepath.Dir(w.dir), w.dir} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

var (
	refRepeat = regexp.MustCompile(`\{(.)\*([0-9]+)\}`)
	refPlace  = regexp.MustCompile(`\{([a-z][a-z0-9-]*)\}`)
)

// expand puts in the ports of toy services ({web}, {smtp-ok}), the daemon's ({port}) and repetitions ({a*300}).
func (w *refRun) expand(s string) string {
	s = refRepeat.ReplaceAllStringFunc(s, func(m string) string {
		g := refRepeat.FindStringSubmatch(m)
		n, _ := strconv.Atoi(g[2])
		return strings.Repeat(g[1], n)
	})
	return refPlace.ReplaceAllStringFunc(s, func(m string) string {
		switch name := m[1 : len(m)-1]; name {
		case "port":
			return strconv.Itoa(w.port)
		case "n":
			return m
		case "version":
			return `1\.2\.3`
		default:
			return strconv.Itoa(w.service(name).port)
		}
	})
}

// run replays a row and returns an error that says what is not as the table has it.
func (c *refCase) run(w *refRun) error {
	if entries, err := os.ReadDir(w.spool); err == nil {
		for _, e := range entries {
			if err := os.RemoveAll(filepath.Join(w.spool, e.Name())); err != nil {
				return err
			}
		}
	}
	for _, toy := range w.toys {
		toy.reset()
	}
	defer w.beside.Wait()
	for _, s := range c.steps {
		if err := w.step(c, s); err != nil {
			return fmt.Errorf("%s: %s: %w", s.what, s.text, err)
		}
	}
	if c.ours == nil {
		return w.expect(c.original)
	}
	if w.expect(c.original) == nil {
		return fmt.Errorf("it is the same as the original's, and the table says it differs: %v", w.last)
	}
	return w.expect(c.ours)
}

func (w *refRun) step(c *refCase, s refStep) error {
	switch s.what {
	case "file":
		if len(s.words) != 2 {
			return errors.New("want a name and its content")
		}
		if err := os.MkdirAll(w.spool, 0o750); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(w.spool, s.words[0].text), []byte(s.words[1].text), 0o644)
	case "shell":
		cmd := exec.Command("sh", "-ec", w.expand(s.text))
		cmd.Env, cmd.Dir = w.env(), w.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	case "run":
		return w.command(w.expand(s.text))
	case "start":
		return w.start(c, w.expand(s.text))
	case "signal":
		return w.signal(s.words[0].text)
	}
	return w.send(s.words)
}

func (w *refRun) env() []string {
	var env []string
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); name != "SUDO_USER" && name != "SSH_USER" && name != "PATH" {
			env = append(env, v)
		}
	}
	// Under the race detector every process would wait a second before it ends.
	return append(env, "SPOOL="+w.spool, "DIR="+w.dir, "PATH="+filepath.Dir(bin(w.t, "haup"))+":"+os.Getenv("PATH"),
		"GORACE=atexit_sleep_ms=0", "LC_ALL=C.UTF-8")
}

// refCommands gives every command the row's spool directory, before its other arguments.
const refCommands = `for c in haup hadown hastatus hashowdowned halist; do
	eval "$c() { command $c --spool-root \"\$SPOOL\" \"\$@\"; }"
done
`

// command runs a line of shell, as nobody if that is its first word.
func (w *refRun) command(line string) error {
	rest, nobody := strings.CutPrefix(line, "nobody ")
	cmd := exec.Command("sh", "-c", refCommands+rest)
	cmd.Env, cmd.Dir = w.env(), w.dir
	if nobody && os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	w.last = exchangeResult{ended: true, exit: exitCode(err), out: stdout.String(), err: stderr.String()}
	if w.last.exit < 0 {
		return err
	}
	return nil
}

// start starts a daemon and waits until it answers or has ended.
func (w *refRun) start(c *refCase, args string) error {
	if w.port == 0 {
		w.port = freePort(w.t)
	}
	if c.config != "" {
		conf := filepath.Join(w.dir, "hacheck.yaml")
		if err := os.WriteFile(conf, []byte(w.expand(strings.TrimPrefix(c.config, "\n"))+"\n"), 0o600); err != nil {
			return err
		}
		args = "-c " + conf + " " + args
	}
	var d *process
	w.t.Cleanup(func() { // after the one that stops it
		if d == nil {
			return
		}
		if out := d.out.String(); strings.Contains(out, "panic") || strings.Contains(out, "DATA RACE") {
			w.t.Errorf("hacheck panicked or has a data race:\n%s", out)
		}
	})
	d = start(w.t, "sh", "-c", "cd "+w.dir+"; export GORACE=atexit_sleep_ms=0; exec "+bin(w.t, "hacheck")+
		" -B 127.0.0.1 -p "+strconv.Itoa(w.port)+" --spool-root "+w.spool+" "+args)
	w.d = d
	var ended bool
	eventually(w.t, func() error {
		select {
		case <-d.done:
			ended = true
			return nil
		default:
		}
		// Asking the port would not tell it from another daemon there.
		if !strings.Contains(d.out.String(), `msg="hacheck answers"`) {
			return errors.New("the daemon does not answer")
		}
		return nil
	})
	w.last = exchangeResult{serves: !ended, ended: ended, err: d.out.String(), out: d.out.String()}
	if ended {
		w.last.exit = exitCode(d.err)
	}
	return nil
}

// signal sends one; of those that end a daemon it waits for the end.
func (w *refRun) signal(name string) error {
	sig, ok := map[string]syscall.Signal{
		"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1,
	}[name]
	if !ok || w.d == nil {
		return errors.New("no such signal, or no daemon")
	}
	if err := w.d.cmd.Process.Signal(sig); err != nil {
		return err
	}
	if sig == syscall.SIGHUP || sig == syscall.SIGUSR1 {
		a, err := get(fmt.Sprintf("http://127.0.0.1:%d/status", w.port))
		w.last = exchangeResult{serves: err == nil && a.code == 200, err: w.d.out.String()}
		return err
	}
	began := time.Now()
	select {
	case <-w.d.done:
	case <-time.After(waitLimit):
		return errors.New("the daemon does not end")
	}
	w.last = exchangeResult{ended: true, exit: exitCode(w.d.err), err: w.d.out.String(), took: time.Since(began)}
	return nil
}

// send asks the daemon: `send: "GET /x HTTP/1.0" "Name: value" body "text"`; `bytes "raw"` sends just that, `times 5`
// sends it five times at once ({n} is which), `hangup` closes the sending side at once, `beside` goes on as soon as the
// service has been asked.
func (w *refRun) send(words []refWord) error {
	var head []string
	var rawBytes, body *string
	times, hangup, beside := 1, false, false
	for i := 0; i < len(words); i++ {
		switch word := words[i]; {
		case word.quoted:
			head = append(head, w.expand(word.text))
		case word.text == "hangup":
			hangup = true
		case word.text == "beside":
			beside = true
		case i+1 < len(words) && word.text == "times":
			i++
			times, _ = strconv.Atoi(words[i].text)
		case i+1 < len(words) && (word.text == "bytes" || word.text == "body"):
			i++
			text := w.expand(words[i].text)
			if word.text == "body" {
				body = &text
			} else {
				rawBytes = &text
			}
		default:
			return fmt.Errorf("%q is nothing to send", word.text)
		}
	}
	if body != nil {
		head = append(head, "Content-Length: "+strconv.Itoa(len(*body)))
	}
	request := strings.Join(head, "\r\n") + "\r\n\r\n"
	if body != nil {
		request += *body
	}
	if rawBytes != nil {
		request = *rawBytes
	}
	if times < 1 {
		return errors.New("times: want a number")
	}
	answers, errs := make([]exchangeResult, times), make([]error, times)
	ask := func(i int) {
		answers[i], errs[i] = exchange(fmt.Sprintf("127.0.0.1:%d", w.port), strings.ReplaceAll(request, "{n}", strconv.Itoa(i)), hangup)
	}
	if beside {
		before := len(w.upstream())
		w.beside.Go(func() { parallel(times, ask) })
		eventually(w.t, func() error {
			if n := len(w.upstream()) - before; n < times {
				return fmt.Errorf("%d of %d requests are with the service", n, times)
			}
			return nil
		})
		return nil
	}
	parallel(times, ask)
	w.last = answers[0]
	return errors.Join(errs...)
}

// exchange sends one request and reads the answer; no answer at all is one, too.
func exchange(addr, request string, hangup bool) (exchangeResult, error) {
	began := time.Now()
	method, _, _ := strings.Cut(request, " ")
	var a rawAnswer
	var err error
	if hangup {
		a, err = rawHangup(addr, request)
	} else {
		a, err = exchangeRaw(addr, method, request)
	}
	s := exchangeResult{rawAnswer: a, http: true, took: time.Since(began)}
	if (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) && a.head == nil {
		s.closed = true
		return s, nil
	}
	return s, err
}

// rawHangup sends a request and the end of all sending, then reads the answer.
func rawHangup(addr, request string) (rawAnswer, error) {
	conn, err := dial(addr)
	if err != nil {
		return rawAnswer{}, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		return rawAnswer{}, err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return rawAnswer{}, err
	}
	text, err := io.ReadAll(conn)
	if err != nil || len(text) == 0 {
		return rawAnswer{}, errors.Join(err, io.EOF)
	}
	head, body, _ := strings.Cut(string(text), "\r\n\r\n")
	a := rawAnswer{head: strings.Split(head, "\r\n"), body: body}
	_, err = fmt.Sscanf(a.head[0], "HTTP/1.1 %d", &a.code)
	return a, err
}

// expect compares what was seen with what a table says.
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
		// The daemon writes its log behind the answer, so as never to wait for it.
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

// upstream returns the requests that the toy services got in this row.
func (w *refRun) upstream() []string {
	var all []string
	for _, toy := range w.toys {
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

// TestReference replays the tables.
func TestReference(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/reference/*.txt")
	if err != nil || len(files) != 11 {
		t.Fatalf("%d tables, want one for each of the 11 sections: %v", len(files), err)
	}
	var all []*refCase
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cases, err := parseReference(filepath.Base(file), string(text))
		if err != nil {
			t.Error(err)
		}
		all = append(all, cases...)
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			replay(t, cases)
		})
	}
	same, differ, left := 0, 0, 0
	for _, c := range all {
		switch {
		case c.left != "":
			left++
		case c.ours != nil:
			differ++
		default:
			same++
		}
	}
	t.Logf("%d rows: %d the same, %d differ on purpose, %d not replayed", len(all), same, differ, left)
	t.Run("migrating", func(t *testing.T) { checkDocumented(t, all) })
}

// replay replays the rows of a table: those that ask a daemon with one that has their configuration, those that
// start one themselves with a directory of their own, side by side.
func replay(t *testing.T, cases []*refCase) {
	shared := map[string]*refRun{}
	for _, c := range cases {
		if c.left != "" {
			continue
		}
		asks := func(what string) bool {
			return slices.ContainsFunc(c.steps, func(s refStep) bool { return s.what == what })
		}
		failed := func(t *testing.T, err error) {
			t.Helper()
			if err != nil {
				t.Errorf("%s:%d: %s:\n\t%v", c.file, c.line, c.row, err)
			}
		}
		if !asks("send") && !asks("start") || asks("start") {
			t.Run(fmt.Sprintf("line %d", c.line), func(t *testing.T) {
				t.Parallel()
				failed(t, c.run(newRefRun(t, c.config)))
			})
			continue
		}
		w := shared[c.config]
		if w == nil {
			w = newRefRun(t, c.config)
			if err := w.start(c, ""); err != nil || !w.last.serves {
				t.Fatalf("%s:%d: the daemon: %v, %v", c.file, c.line, err, w.last)
			}
			shared[c.config] = w
		}
		failed(t, c.run(w))
	}
}

// checkDocumented holds the table of differences in docs/migrating.md to what was replayed: every line of it is shown by
// a row that differs, and every row that differs is in it, or says `doc: none` because no operator will notice.
func checkDocumented(t *testing.T, cases []*refCase) {
	page, err := os.ReadFile("../docs/migrating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(page), "\n| | the original | here |\n|---|---|---|\n")
	if !ok {
		t.Fatal("docs/migrating.md has no table of differences")
	}
	shown := map[string]bool{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, " | ")
		if len(cells) < 3 {
			break
		}
		shown[strings.TrimPrefix(cells[0], "| ")] = false
	}
	for _, c := range cases {
		if c.doc == "" || c.doc == "none" {
			continue
		}
		if _, ok := shown[c.doc]; !ok {
			t.Errorf("%s:%d: docs/migrating.md has no line %q", c.file, c.line, c.doc)
			continue
		}
		shown[c.doc] = true
	}
	for name, by := range shown {
		if !by {
			t.Errorf("docs/migrating.md: no row of the tables shows the difference %q", name)
		}
	}
}

// TestReferenceRejectsInvalidFiles: a table that says the wrong thing about itself is not believed.
func TestReferenceRejectsInvalidFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, says string }{
		{"row: r\nsend: \"GET / HTTP/1.0\"\noriginal: 200\nours: 404", "does not say why"},
		{"row: r\nsend: \"GET / HTTP/1.0\"\noriginal: 200\nours: same\nwhy: because", "does not differ"},
		{"row: r\nsend: \"GET / HTTP/1.0\"\noriginal: 200\nours: 404\nwhy: because", "names no line"},
		{"row: r\noriginal: 200\nours: same", "nothing is done"},
		{"row: r\nrun: true\nours: same", "answer is missing"},
		{"row: r\nrun: true\noriginal: nonsense", "nothing that can be expected"},
		{"row: r\nrun: true\noriginal: exit", "lacks what it needs"},
		{"row: r\nrum: true", "no key"},
		{"row: r\nrun: true\nnot replayed: never", "said not to be replayed"},
	} {
		if _, err := parseReference("x", c.text); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: got %v, want %q", c.text, err, c.says)
		}
	}
	for _, c := range []struct{ text, says string }{
		{"row: r\nrun: exit 3\noriginal: exit 0\nours: same", "want exit"},
		{"row: r\nrun: exit 3\noriginal: exit 3\nours: exit 4\nwhy: w\ndoc: none", "the same as the original's"},
		{"row: r\nrun: exit 3\noriginal: exit 0\nours: exit 4\nwhy: w\ndoc: none", "want exit"},
		{"row: r\nrun: exit 3\noriginal: exit 0\nours: exit 3\nwhy: w\ndoc: none", ""},
		{"row: r\nrun: exit 3\noriginal: exit 3\nours: same", ""},
	} {
		cases, err := parseReference("x", c.text)
		if err != nil {
			t.Fatal(err)
		}
		switch err := cases[0].run(newRefRun(t, "")); {
		case c.says == "" && err != nil, c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%q: got %v, want %q", c.text, err, c.says)
		}
	}
}

// refService is a toy service that is spoken to over plain TCP, and remembers what it was told.
type refService struct {
	port int
	mu   sync.Mutex
	got  []string
}

func (r *refService) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = nil
}

func (r *refService) record(request string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, request)
}

// service returns the toy service of that name, started when it is first named.
func (w *refRun) service(name string) *refService {
	if toy := w.toys[name]; toy != nil {
		return toy
	}
	toy := &refService{port: freePort(w.t)}
	w.toys[name] = toy
	host := "127.0.0.1"
	var speak func(net.Conn)
	switch name {
	case "closed": // nobody listens
		return toy
	case "hole": // a connect never completes
		toy.port = portWithFullBacklog(w.t)
		return toy
	case "web":
		speak = func(c net.Conn) { speakHTTP(c, "one", toy.record) }
	case "two":
		host, speak = "127.0.0.2", func(c net.Conn) { speakHTTP(c, "two", toy.record) }
	default:
		lines, ok := refDialogues[name]
		if !ok {
			w.t.Fatalf("there is no toy service %q", name)
		}
		speak = func(c net.Conn) { speakLines(c, lines) }
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(toy.port)))
	if err != nil {
		w.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(waitLimit))
				speak(conn)
			})
		}
	})
	w.t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return toy
}

// portWithFullBacklog returns a port whose queue is full: the kernel drops every further SYN.
func portWithFullBacklog(t *testing.T) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := name.(*syscall.SockaddrInet4).Port
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for range 100 {
		conn, err := net.DialTimeout("tcp", addr, 300*time.Millisecond)
		if err != nil {
			return port
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("the queue of a listener does not fill")
	return 0
}

// refDialogues are what toy services say, one string at a connection's start and after each line or packet they
// get, then they close. "..." waits until the peer has gone, "." says nothing.
var refDialogues = map[string][]string{
	"silent":     {"..."},
	"closes":     {},
	"smtp-ok":    {"220 toy ready\r\n", "221 bye\r\n"},
	"smtp-554":   {"554 go away\r\n", "221 bye\r\n"},
	"smtp-multi": {"220-toy\r\n220 hello again\r\n", "221 bye\r\n"},
	"smtp-500":   {"220 toy\r\n", "500 what\r\n"},
	"smtp-early": {"220 toy\r\n", ""},
	"smtp-blank": {"220 toy\r\n", "\r\n", "..."},
	"smtp-byte":  {"220 toy\r\n", "\xff\xfe\r\n", "..."},
	"smtp-mute":  {"220 toy\r\n", "..."},
	"tls":        {".", "\x15\x03\x01\x00\x02\x02\x46"}, // an alert: not HTTP
	// A handshake of MySQL 5.7 with mysql_native_password; then OK, or access denied; then QUIT comes.
	"mysql-ok":     {packet(0, mysqlGreeting), packet(2, "\x00\x00\x00\x02\x00\x00\x00"), "..."},
	"mysql-denied": {packet(0, mysqlGreeting), packet(2, "\xff\x15\x04#28000Access denied"), "..."},
	"mysql-err":    {packet(0, "\xff\x10\x04Too many connections"), "..."},
}

const mysqlGreeting = "\x0a5.7.0\x00\x01\x00\x00\x00abcdefgh\x00\xff\xf7\x21\x02\x00\xff\x81\x15" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00ijklmnopqrst\x00mysql_native_password\x00"

// packet is one of MySQL's.
func packet(sequence byte, payload string) string {
	return string([]byte{byte(len(payload)), 0, 0, sequence}) + payload
}

func speakLines(c net.Conn, lines []string) {
	buf := make([]byte, 4096)
	for i, l := range lines {
		if l == "..." {
			_, _ = io.Copy(io.Discard, c)
			return
		}
		if i > 0 {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
		if l != "." {
			if _, err := io.WriteString(c, l); err != nil {
				return
			}
		}
	}
}

// speakHTTP answers one request by its path. note gets its head.
func speakHTTP(c net.Conn, name string, note func(string)) {
	r := bufio.NewReader(c)
	var head strings.Builder
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if head.WriteString(l); strings.TrimSpace(l) == "" {
			break
		}
	}
	note(head.String())
	target := strings.Fields(head.String() + " - -")[1]
	path, _, _ := strings.Cut(target, "?")
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(c, format, args...) }
	text := name + " " + target
	switch code, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/"); code {
	case "code":
		say("HTTP/1.1 %s Toy\r\nLocation: /redirected\r\nContent-Length: %d\r\n\r\n%s", rest, len(text), text)
	case "empty":
		say("HTTP/1.1 %s Toy\r\n\r\n", rest)
	case "with-length":
		say("HTTP/1.1 204 Toy\r\nContent-Length: 4\r\n\r\nbody")
	case "gzip":
		if regexp.MustCompile(`(?i)\naccept-encoding:.*gzip`).MatchString(head.String()) {
			say("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00")
			return
		}
		say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	case "chunked":
		say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n")
	case "until-close":
		say("HTTP/1.1 200 OK\r\n\r\nuntil the end")
	case "http10":
		say("HTTP/1.0 200 OK\r\n\r\nas in the old days")
	case "2MiB":
		say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", 2<<20, strings.Repeat("x", 2<<20))
	case "200MiB":
		say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", 200<<20, strings.Repeat("x", 2<<20))
		_, _ = io.Copy(io.Discard, r)
	case "101":
		say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
	case "short":
		say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot a hundred")
	case "garbage":
		say("what do you want\r\n\r\n")
		_, _ = io.Copy(io.Discard, r)
	case "hang":
		_, _ = io.Copy(io.Discard, r)
	case "slow": // most of the timeout of the rows that ask for it
		<-time.After(3 * time.Second)
		say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")
	case "close":
	default:
		say("HTTP/1.1 200 OK\r\nX-Toy: %s\r\nContent-Type: text/x-toy\r\nContent-Length: %d\r\n\r\n%s", name, len(text), text)
	}
}
