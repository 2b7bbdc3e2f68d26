package admin

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"hacheck/test/servertest"
)

var update = flag.Bool("update", false, "write the golden parts of testdata/script anew")

// TestMain makes the test binary act as the commands when it is called by their names, so that the
// scripts run real processes with real exit codes.
func TestMain(m *testing.M) {
	mains := map[string]func(){
		"renamed": func() { os.Exit(Main("hadown", os.Args, scriptEnv())) },
		"as":      runAs,
		"ontmpfs": runOnTmpfs,
	}
	for name := range commands {
		// The name of last resort is a wrong one: what the command was called as must win.
		mains[name] = func() { os.Exit(Main("halist", os.Args, scriptEnv())) }
	}
	if _, command := mains[filepath.Base(os.Args[0])]; !command {
		servertest.Detach()
	}
	testscript.Main(m, mains)
}

// scriptEnv is the real world, but for what a script cannot change in it.
func scriptEnv() Env {
	env := System("1.2.3")
	env.Passwd = os.Getenv("TEST_PASSWD")
	env.daemon = daemonAddr{} // something may listen on 3333 of the machine
	env.Nonhumans = os.Getenv("TEST_NONHUMANS")
	if uid, err := strconv.Atoi(os.Getenv("TEST_UID")); err == nil {
		env.UID = uid
	}
	if now, err := strconv.ParseInt(os.Getenv("TEST_NOW"), 10, 64); err == nil {
		env.Now = func() time.Time { return time.Unix(now, 0) }
	}
	return env
}

// runAs is the script command `as COMMAND ARG...`: it runs a command as nobody. Someone who is not root
// is nobody already.
func runAs() {
	if os.Geteuid() == 0 {
		for _, err := range []error{syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(65534)} {
			if err != nil {
				fmt.Fprintln(os.Stderr, "as:", err)
				os.Exit(99)
			}
		}
	}
	os.Exit(Main("", os.Args[1:], scriptEnv()))
}

func TestScripts(t *testing.T) {
	t.Parallel()
	refused := refusingPort(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			// nobody has to get through to the directory of the script.
			for dir := e.WorkDir; strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
				if err := os.Chmod(dir, 0o755); err != nil {
					return err
				}
			}
			// Under the race detector every process would wait a second before it ends.
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			e.Setenv("TZ", "UTC")
			e.Setenv("REFUSED", refused)
			e.Setenv("NEWLINE", "a\nb")
			e.Setenv("LONG", strings.Repeat("a", 200))
			e.Setenv("LONGER", strings.Repeat("a", 4097))
			e.Setenv("TEST_PASSWD", filepath.Join(e.WorkDir, "passwd"))
			e.Setenv("TEST_NONHUMANS", filepath.Join(e.WorkDir, "nonhumans"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     cmdExits,
			"daemon":    cmdDaemon,
			"balancers": cmdBalancers,
			"server":    cmdServer,
			"ls":        cmdLs,
			"mask":      cmdMask,
		},
	})
}

// refusingPort returns a port of 127.0.0.1 that refuses connections until the test has ended: it is taken, by the
// client's end of a connection.
func refusingPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) // the scripts run after the function that starts them
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_, port, err := net.SplitHostPort(conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// cmdExits is `exits CODE COMMAND ARG...`: the command must end with exactly that code.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var failed *exec.ExitError
		if !errors.As(err, &failed) {
			ts.Fatalf("run %s: %v", args[1], err)
		}
		got = failed.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s exits %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// cmdDaemon is `daemon FILE [CODE | BALANCERS]`: a web server whose /recent is that file, at $DAEMON
// (host:port), $PORT. It insists on being asked as the commands ask: directly, and for that page. It is of
// the time before /balancers unless there is a file for that.
func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: daemon FILE [CODE | BALANCERS]")
	}
	content, balancers := ts.ReadFile(args[0]), ""
	code := http.StatusOK
	if len(args) == 2 {
		var err error
		if code, err = strconv.Atoi(args[1]); err != nil {
			code, balancers = http.StatusOK, ts.ReadFile(args[1])
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/balancers" {
			if balancers == "" {
				w.WriteHeader(http.StatusNotFound)
			}
			io.WriteString(w, balancers)
			return
		}
		if r.Method != http.MethodGet || r.RequestURI != "/recent" || !strings.HasSuffix(l.Addr().String(), r.Host[strings.LastIndex(r.Host, ":"):]) {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		w.WriteHeader(code)
		io.WriteString(w, content)
	})}
	go server.Serve(l)
	ts.Defer(func() { server.Close() })
	setDaemon(ts, l)
}

// cmdServer is `server FILE`: what connects there gets those bytes and the end, whatever it asks.
func cmdServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: server FILE")
	}
	content := ts.ReadFile(args[0])
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go answer(conn, content)
		}
	}()
	ts.Defer(func() { l.Close() })
	setDaemon(ts, l)
}

// answer reads a request to its end, so that closing resets nothing, and answers with bytes.
func answer(conn net.Conn, content string) {
	defer conn.Close()
	request := make([]byte, 0, 4096)
	for !strings.HasSuffix(string(request), "\r\n\r\n") {
		n, err := conn.Read(request[len(request):cap(request)])
		if err != nil {
			return
		}
		request = request[:len(request)+n]
	}
	io.WriteString(conn, content)
}

func setDaemon(ts *testscript.TestScript, l net.Listener) {
	host, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Setenv("DAEMON", net.JoinHostPort(host, port))
	ts.Setenv("PORT", port)
}

// cmdLs is `ls DIR NAME...`: the directory holds exactly those names.
func cmdLs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: ls DIR NAME...")
	}
	list, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	var got []string
	for _, d := range list {
		got = append(got, d.Name())
	}
	if g, w := strings.Join(got, " "), strings.Join(args[1:], " "); g != w {
		ts.Fatalf("%s holds %q, want %q", args[0], g, w)
	}
}

// cmdMask is `mask TEXT MARK`: the last output goes to the file masked, with MARK for each TEXT, to be
// compared though it names a port or a directory of this run.
func cmdMask(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mask TEXT MARK")
	}
	text := strings.ReplaceAll(ts.ReadFile("stdout"), args[0], args[1])
	ts.Check(os.WriteFile(ts.MkAbs("masked"), []byte(text), 0o644))
}
