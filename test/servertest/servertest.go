// Package servertest starts real servers for tests: each on a free port of 127.0.0.1, with a directory of
// its own, stopped when the test ends, killed if the tests are. A server that is not installed fails the
// test with the name of the Debian package that has it.
package servertest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Host is where all servers listen.
const Host = "127.0.0.1"

const (
	// startTimeout is how long a server may take to start, stopTime how long to stop before it is killed.
	startTimeout = 60 * time.Second
	stopTimeout  = 10 * time.Second
	// startTries is how often a server is started when it ends before it is ready: the port that was free
	// when it was chosen may have been taken in between.
	startTries = 3
)

// Server is a server that runs.
type Server struct {
	Port uint16
	Dir  string // its own, gone after the test

	cmd  *exec.Cmd
	log  output
	done chan struct{} // closed once the process has ended
}

// Addr is "127.0.0.1:<port>".
func (s *Server) Addr() string { return net.JoinHostPort(Host, fmt.Sprint(s.Port)) }

// Log is what the server has written to stdout and stderr so far.
func (s *Server) Log() string { return s.log.String() }

// Spec says how a server is started.
type Spec struct {
	// Binary is the program's name, looked for in PATH and where Debian puts daemons.
	Binary string
	// Package is the Debian package that has it.
	Package string
	// Args are the program's arguments for a port and a directory; they may write files there first.
	// The program must stay in the foreground.
	Args func(port uint16, dir string) ([]string, error)
	// User is whom the program runs as when the tests run as root; default: root. The user need not own
	// the server's directory.
	User string
	// Env is what the program finds in its environment besides PATH, HOME (its directory), TMPDIR, LC_ALL and TZ. Nothing
	// is inherited, since clients and servers obey many variables (MYSQL_HOST, PGOPTIONS, ERL_FLAGS).
	Env []string
	// Ready returns nil once the server does its work; default: its port accepts connections.
	Ready func(s *Server) error
}

// Start starts a server and returns when it is ready. Its process group is ended with the test: SIGTERM,
// and SIGKILL 10 s later.
func Start(t testing.TB, spec Spec) *Server {
	t.Helper()
	path := Find(t, spec.Binary, spec.Package)
	syscall.Umask(0o022) // Args writes files for servers that run as another user
	if spec.Ready == nil {
		spec.Ready = acceptsConnections
	}
	var err error
	for range startTries {
		var s *Server
		if s, err = start(t, path, spec); err == nil {
			return s
		}
	}
	t.Fatalf("start %s: %v", spec.Binary, err)
	return nil
}

// Find returns the path of a program and fails the test with the name of its package if it is not installed.
func Find(t testing.TB, binary, debianPackage string) string {
	t.Helper()
	if path, err := exec.LookPath(binary); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, binary)); err == nil {
			return path
		}
	}
	t.Fatalf("%s is not installed: apt-get install %s", binary, debianPackage)
	return ""
}

// FreePort returns a TCP port of 127.0.0.1 on which nothing listens. It is below the range from which the kernel takes
// ports for outgoing connections, so that no client gets it before the server listens; and it is returned once, for
// whoever has it may not listen yet.
func FreePort() (uint16, error) {
	err := errors.New("this process has had all of them")
	for range 1000 {
		port := uint16(10000 + rand.IntN(20000))
		if _, taken := usedPorts.LoadOrStore(port, true); taken {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort(Host, fmt.Sprint(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

// usedPorts are the ports that FreePort has tried.
var usedPorts sync.Map

func start(t testing.TB, path string, spec Spec) (*Server, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	s := &Server{Port: port, Dir: tempDir(t), done: make(chan struct{})}
	args, err := spec.Args(port, s.Dir)
	if err != nil {
		return nil, err
	}
	s.cmd = exec.Command(path, args...) //nolint:gosec // found by name
	s.cmd.Dir = s.Dir
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.WaitDelay = stopTimeout
	s.cmd.Env = append(environment(s.Dir), spec.Env...)
	s.cmd.SysProcAttr = processGroup()
	if s.cmd.SysProcAttr.Credential, err = credential(spec.User); err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(s.stop)

	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		if err = spec.Ready(s); err == nil {
			return s, nil
		}
		select {
		case <-s.done:
			return nil, fmt.Errorf("ended at once (%v):\n%s", s.cmd.ProcessState, s.Log())
		case <-deadline.C:
			s.stop()
			return nil, fmt.Errorf("not ready after %v: %w\n%s", startTimeout, err, s.Log())
		case <-again.C:
		}
	}
}

// environment is what a program finds in its environment, whatever the tests have in theirs.
func environment(home string) []string {
	return []string{"PATH=" + os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin", "HOME=" + home, "TMPDIR=" + os.TempDir(), "LC_ALL=C.UTF-8", "TZ=UTC"}
}

// credential is how a program is run as a user: nil leaves it as it is, which is all one can do without being root.
func credential(name string) (*syscall.Credential, error) {
	if name == "" || os.Geteuid() != 0 {
		return nil, nil
	}
	account, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// acceptsConnections is nil when the server's port accepts connections.
func acceptsConnections(s *Server) error {
	conn, err := net.DialTimeout("tcp", s.Addr(), time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Stop ends the server now; the test would do so at its end.
func (s *Server) Stop() { s.stop() }

func (s *Server) stop() {
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGTERM)
	late := time.NewTimer(stopTimeout)
	defer late.Stop()
	select {
	case <-s.done:
	case <-late.C:
	}
	// Whatever is left of the group: a child that outlived its parent.
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.done
}

// tempDir is a directory with a short name, for there are sockets in it, that daemons which give up root
// may write to.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hacheck-")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

// output keeps what a server writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
