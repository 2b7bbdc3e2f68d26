package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hacheck/test/checktest"
)

// refRun replays rows. It has a directory, test services and, for some tables, a daemon.
type refRun struct {
	t          *testing.T
	dir        string
	spool      string
	port       int
	timeout    time.Duration
	d          *process
	services   map[string]*refService
	last       exchangeResult
	background sync.WaitGroup // requests that the end of the row waits for
}

func newRefRun(t *testing.T, config string) *refRun {
	w := &refRun{t: t, dir: t.TempDir(), timeout: 10 * time.Second, services: map[string]*refService{}}
	w.spool = filepath.Join(w.dir, "spool")
	if m := regexp.MustCompile(`healthcheck_timeout: ([0-9.]+)`).FindStringSubmatch(config); m != nil {
		f, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		w.timeout = time.Duration(f * float64(time.Second))
	}
	// User nobody must reach the commands and the spool.
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

// expand replaces the ports of test services ({web}, {smtp-ok}), the port of the daemon ({port}) and repetitions
// ({a*300}).
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

// run replays a row. The error says what differs from the table.
func (c *refCase) run(w *refRun) error {
	if entries, err := os.ReadDir(w.spool); err == nil {
		for _, e := range entries {
			if err := os.RemoveAll(filepath.Join(w.spool, e.Name())); err != nil {
				return err
			}
		}
	}
	for _, toy := range w.services {
		toy.reset()
	}
	defer w.background.Wait()
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
	// The race detector would delay the end of every process by a second.
	return append(env, "SPOOL="+w.spool, "DIR="+w.dir, "PATH="+filepath.Dir(bin(w.t, "haup"))+":"+os.Getenv("PATH"),
		"GORACE=atexit_sleep_ms=0", "LC_ALL=C.UTF-8")
}

// refCommands adds the row's spool directory to every command, before its other arguments.
const refCommands = `for c in haup hadown hastatus hashowdowned halist; do

	eval "$c() { command $c --spool-root \"\$SPOOL\" \"\$@\"; }"
done
`

// command runs a shell line, as user nobody if that is its first word.
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
		if out := d.out.String(); checktest.ShowsBug(out) {
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
		// A request to the port might reach another daemon.
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

// signal sends a signal to the daemon. If the signal ends a daemon, it waits for the end.
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

// send sends a request: `send: "GET /x HTTP/1.0" "Name: value" body "text"`. `bytes "raw"` sends just these bytes.
// `times 5` sends the request five times at once; {n} is the number of each. `hangup` closes the sending side at
// once. `beside` continues as soon as the service has the request.
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
		w.background.Go(func() { parallel(times, ask) })
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

// exchange sends one request and reads the answer, which may be empty.
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

// rawHangup sends a request, closes the sending side and reads the answer.
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
