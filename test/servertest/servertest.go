// Package servertest starts real servers for tests, each on a free port of 127.0.0.1 and with a directory of its own.
// A server is stopped when its test ends. A server that is not installed fails the test with the name of its Debian
// package.
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

// Host is the address of all servers.
const Host = "127.0.0.1"

const (
	// startTimeout is how long a server may take to start. After stopTimeout a server that does not end is killed.
	startTimeout = 60 * time.Second
	stopTimeout  = 10 * time.Second
	// startTries is how often Start tries: another process may take a free port before the server listens on it.
	startTries = 3
)

// Server is a running server.
type Server struct {
	Port uint16
	Dir  string // its directory, removed after the test

	cmd  *exec.Cmd
	log  output
	done chan struct{} // closed when the process has ended
}

// Addr returns "127.0.0.1:<port>".
func (s *Server) Addr() string { return net.JoinHostPort(Host, fmt.Sprint(s.Port)) }

// Log returns what the server has written to stdout and stderr so far.
func (s *Server) Log() string { return s.log.String() }

// Spec says how a server is started.
type Spec struct {
	// Binary is the name of the program, found in PATH and in the sbin directories.
	Binary string
	// Package is the Debian package of the program.
	Package string
	// Args returns the program's arguments. It may write files to dir. The program must stay in the foreground.
	Args func(port uint16, dir string) ([]string, error)
	// User is the user that runs the program when the tests run as root, "" for root. The user need not own dir.
	User string
	// Env is the environment of the program in addition to PATH, HOME (its directory), TMPDIR, LC_ALL and TZ. The program
	// inherits nothing, because clients and servers read many variables (MYSQL_HOST, PGOPTIONS, ERL_FLAGS).
	Env []string
	// Ready returns nil when the server is ready. By default a server is ready when its port accepts connections.
	Ready func(s *Server) error
}

// Start starts a server and returns when it is ready. When the test ends, its process group gets SIGTERM and 10 s later
// SIGKILL.
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

// FreePort returns a TCP port of 127.0.0.1 on which nothing listens. It is below the kernel's range of ports for
// outgoing connections, so that no client gets it before the server listens. FreePort returns no port twice.
func FreePort() (uint16, error) {
	err := errors.New("this process has used all of them")
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

// usedPorts holds the ports that FreePort has tried.
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
	s.cmd = command(path, args, s.Dir)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.Env = append(s.cmd.Env, spec.Env...)
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

// command returns a program that runs in dir, which is its home too.
func command(path string, args []string, dir string) *exec.Cmd {
	cmd := exec.Command(path, args...) //nolint:gosec // found by name
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, environment(dir), stopTimeout
	return cmd
}

// environment returns the environment of a program. It does not depend on that of the tests, apart from PATH and TMPDIR.
func environment(home string) []string {
	return []string{"PATH=" + os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin", "HOME=" + home, "TMPDIR=" + os.TempDir(), "LC_ALL=C.UTF-8", "TZ=UTC"}
}

// credential returns the credential of a user, nil if name is "" or the tests do not run as root.
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

// acceptsConnections returns nil when the server's port accepts connections.
func acceptsConnections(s *Server) error {
	conn, err := net.DialTimeout("tcp", s.Addr(), time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Stop stops the server before the test ends.
func (s *Server) Stop() { s.stop() }

// Kill ends the server at once, as a crash does.
func (s *Server) Kill() {
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.done
}

func (s *Server) stop() {
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGTERM)
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-s.done:
	case <-timeout.C:
	}
	// Kill children that have outlived the server.
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.done
}

// tempDir creates a directory that any user may write to, for servers that drop root. Its path is short, because it
// contains sockets.
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

// output is a writer that keeps what a server writes. It is safe for concurrent use.
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
