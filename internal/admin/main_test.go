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

// TestMain makes the test binary act as a command if it is called by its name. So scripts run real processes.
func TestMain(m *testing.M) {
	mains := map[string]func(){
		"renamed":    func() { os.Exit(Main("hadown", os.Args, scriptEnv())) },
		"as":         runAs,
		"ontmpfs":    runOnTmpfs,
		"hafleet":    func() { os.Exit(Fleet(os.Args[1:], scriptEnv())) },
		"habalancer": func() { os.Exit(Balancer(os.Args[1:], scriptEnv())) },
	}
	for name := range commands {
		// The fallback name is wrong on purpose: args[0] must win.
		mains[name] = func() { os.Exit(Main("halist", os.Args, scriptEnv())) }
	}
	if _, command := mains[filepath.Base(os.Args[0])]; !command {
		servertest.Detach()
	}
	testscript.Main(m, mains)
}

// scriptEnv returns the real Env, with environment variables for what a script cannot change.
func scriptEnv() Env {
	env := System("1.2.3")
	env.Passwd = os.Getenv("TEST_PASSWD")
	env.daemon = daemonAddr{} // the machine may have a daemon on 3333
	env.controlSocket = ""
	env.Defaults = ""
	env.Nonhumans = os.Getenv("TEST_NONHUMANS")
	if uid, err := strconv.Atoi(os.Getenv("TEST_UID")); err == nil {
		env.UID = uid
	}
	env.LoginUID = 1001
	if uid, err := strconv.Atoi(os.Getenv("TEST_LOGINUID")); err == nil {
		env.LoginUID = uid
	}
	if now, err := strconv.ParseInt(os.Getenv("TEST_NOW"), 10, 64); err == nil {
		env.Now = func() time.Time { return time.Unix(now, 0) }
	}
	return env
}

// runAs is the script command `as COMMAND ARG...`: it runs a command as the user nobody, if the test runs as root.
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
			// The user nobody must be able to enter the directory of the script.
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
			return setupFleet(e)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     cmdExits,
			"daemon":    cmdDaemon,
			"balancers": cmdBalancers,
			"server":    cmdServer,
			"ls":        cmdLs,
			"mask":      cmdMask,
			"fleet":     cmdFleet,
			"requests":  cmdRequests,
		},
	})
}

// refusingPort returns a port of 127.0.0.1 that refuses connections until the test ends. The client's end of a connection
// occupies it.
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

// cmdDaemon is `daemon FILE [CODE | BALANCERS]`: it starts a web server at $DAEMON (host:port) and $PORT that serves FILE
// as /recent and BALANCERS as /balancers. Without BALANCERS it answers 404 there, as older daemons do. It refuses requests
// through a proxy.
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

// cmdServer is `server FILE`: it starts a server that answers every connection with those bytes.
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

// answer reads a whole request, so that the close does not reset the connection, and answers with content.
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

// cmdLs is `ls DIR NAME...`: it fails unless the directory has exactly those names.
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

// cmdMask is `mask TEXT MARK`: it writes the last output to the file masked, with MARK for each TEXT, such as a port or a
// directory of this run.
func cmdMask(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mask TEXT MARK")
	}
	text := strings.ReplaceAll(ts.ReadFile("stdout"), args[0], args[1])
	ts.Check(os.WriteFile(ts.MkAbs("masked"), []byte(text), 0o644))
}
