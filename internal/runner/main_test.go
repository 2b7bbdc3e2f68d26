package runner

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

var update = flag.Bool("update", false, "rewrite the golden files and the golden parts of the scripts")

// TestMain makes the test binary act as hacheck, so that the scripts run real processes.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != "hacheck" {
		servertest.Detach()
	}
	testscript.Main(m, map[string]func(){"hacheck": func() {
		env := System("1.2.3")
		env.Hostname = func() string { return "web1.example.com" }
		env.Lookup = lookup
		switch os.Args[1] {
		case "run":
			os.Exit(Run(os.Args[2:], env))
		case "firewall":
			os.Exit(Firewall(os.Args[2:], env))
		}
		os.Exit(99)
	}})
}

// lookup replaces the name server.
func lookup(_ context.Context, host string) ([]netip.Addr, error) {
	switch host {
	case "db.example.com":
		return []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("::ffff:10.0.0.1")}, nil
	case "app":
		return []netip.Addr{netip.MustParseAddr("10.0.0.9")}, nil
	case "alias.example.com":
		return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
	case "six.example.com":
		return []netip.Addr{netip.MustParseAddr("2001:db8::6")}, nil
	case "none.example.com":
		return nil, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func TestScripts(t *testing.T) {
	t.Parallel()
	ports := map[string]string{"OPEN": openPort(t), "ALSO": openPort(t), "CLOSED": closedPort(t), "HANG": hangingPort(t)}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			files, err := filepath.Glob(filepath.Join(e.WorkDir, "*.yaml"))
			if err != nil {
				return err
			}
			for _, f := range files {
				if err := fillPorts(f, ports); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits,
			"mask":  func(ts *testscript.TestScript, neg bool, args []string) { cmdMask(ts, neg, args, ports) },
			"huge":  cmdHuge,
		},
	})
}

// fillPorts replaces <OPEN> and the other names of ports in a file by their numbers.
func fillPorts(file string, ports map[string]string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := string(data)
	for name, port := range ports {
		text = strings.ReplaceAll(text, "<"+name+">", port)
	}
	return os.WriteFile(file, []byte(text), 0o600)
}

// cmdExits implements `exits CODE COMMAND ARG...`: the command must exit with CODE.
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

var times = regexp.MustCompile(`("seconds": )[0-9.e-]+|\d+\.\d{3,9}`)

// maskTimes replaces every time in the output of a command by T.
func maskTimes(s string) string { return times.ReplaceAllString(s, "${1}T") }

// cmdMask implements `mask stdout|stderr FILE`: it writes the output of the last command to FILE, with names for the
// ports and T for times.
func cmdMask(ts *testscript.TestScript, neg bool, args []string, ports map[string]string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mask stdout|stderr FILE")
	}
	text := maskTimes(ts.ReadFile(args[0]))
	for name, port := range ports {
		text = regexp.MustCompile(`\b`+port+`\b`).ReplaceAllString(text, name)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

// cmdHuge implements `huge FILE`: it creates a sparse file of 1 GiB.
func cmdHuge(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: huge FILE")
	}
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(errors.Join(f.Truncate(1<<30), f.Close()))
}

// openPort returns a port that accepts connections and closes them at once, until the test ends.
func openPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	return portOf(t, l.Addr())
}

func portOf(t testing.TB, a net.Addr) string {
	t.Helper()
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// closedPort returns a port that refuses connections.
func closedPort(t testing.TB) string { return strconv.Itoa(int(checktest.ClosedPort(t))) }

// hangingPort returns a port that neither accepts nor refuses connections.
func hangingPort(t testing.TB) string { return strconv.Itoa(int(checktest.BlackHole(t))) }

// golden compares got with a file in testdata/golden.
func golden(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", file)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run the tests with -update)", err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

// writeChecks writes a file with a tcp check of each port of 127.0.0.1 and returns its path.
func writeChecks(t *testing.T, timeout string, ports ...string) string {
	t.Helper()
	var b strings.Builder
	for _, p := range ports {
		fmt.Fprintf(&b, "- {type: tcp, host: 127.0.0.1, port: %s, timeout: %s}\n", p, timeout)
	}
	path := filepath.Join(t.TempDir(), "checks.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
