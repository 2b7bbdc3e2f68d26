// Package systemd talks to the service manager that started this process, if there is one. It takes over the sockets
// that systemd hands over (sd_listen_fds(3)) and sends notifications (sd_notify(3)).
//
// It does not use coreos/go-systemd, because of what script checks would inherit. There only the last call can unset the
// environment variables, and each descriptor is twice in the poller: as a file and as a listener.
package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hacheck/internal/textfmt"
)

const (
	firstSocket = 3    // the first descriptor that is handed over, SD_LISTEN_FDS_START
	maxSockets  = 1024 // a larger number is an error in the environment
	// notifyTimeout is how long a notification may wait for a service manager that does not read.
	notifyTimeout = 5 * time.Second
)

// Manager is the service manager. The zero Manager is none: it has no sockets and ignores notifications.
type Manager struct {
	notify   string // the address of its notification socket; "" is none
	watchdog time.Duration
	sockets  []*Socket
}

// FromEnv reads the environment variables of the service manager and unsets them, so that no child process inherits
// them. Call it once, before another goroutine opens a file or starts a program. It returns an error if the variables
// are not as sd_listen_fds(3) and sd_watchdog_enabled(3) describe.
func FromEnv() (*Manager, error) {
	env := func(name string) string {
		v := os.Getenv(name)
		_ = os.Unsetenv(name)
		return v
	}
	m := &Manager{notify: env("NOTIFY_SOCKET")}
	pid, fds, names := env("LISTEN_PID"), env("LISTEN_FDS"), env("LISTEN_FDNAMES")
	_ = os.Unsetenv("LISTEN_PIDFDID") // systemd 258 and later
	usec, forPID := env("WATCHDOG_USEC"), env("WATCHDOG_PID")
	var err, listenErr error
	if m.watchdog, err = watchdog(usec, forPID, os.Getpid()); err != nil {
		return nil, err
	}
	if m.sockets, listenErr = sockets(pid, fds, names, os.Getpid()); listenErr != nil {
		return nil, listenErr
	}
	return m, nil
}

// watchdog returns the interval of the watchdog for the process self; 0 is no watchdog.
func watchdog(usec, pid string, self int) (time.Duration, error) {
	if usec == "" || pid != "" && pid != strconv.Itoa(self) {
		return 0, nil
	}
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || n > int64(1<<63-1)/int64(time.Microsecond) {
		return 0, fmt.Errorf("read WATCHDOG_USEC: want a number of microseconds, got %q", usec)
	}
	return time.Duration(n) * time.Microsecond, nil
}

// sockets returns the sockets that were handed over to the process self.
func sockets(pid, fds, names string, self int) ([]*Socket, error) {
	if fds == "" || pid != strconv.Itoa(self) {
		return nil, nil // none, or for the parent of this process
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > maxSockets {
		return nil, fmt.Errorf("read LISTEN_FDS: want a number of sockets up to %d, got %q", maxSockets, fds)
	}
	name := strings.Split(names, ":")
	all := make([]*Socket, 0, n)
	for i := range n {
		fd := firstSocket + i
		unix.CloseOnExec(fd) // first, so that no child process holds the port
		s := &Socket{fd: fd, Name: "unknown"}
		if i < len(name) && name[i] != "" {
			s.Name = name[i]
		}
		// Listen finds out whether it is a listening socket of a kind that this package knows.
		ln, err := s.Listen()
		if err != nil {
			return nil, err
		}
		s.Addr = ln.Addr()
		_ = ln.Close()
		all = append(all, s)
	}
	return all, nil
}

// Sockets returns the listening TCP and Unix sockets that were handed over, in the manager's order.
func (m *Manager) Sockets() []*Socket { return m.sockets }

// Watchdog returns the interval of the watchdog: the manager kills the process if Alive is not called for that long.
// 0 is no watchdog.
func (m *Manager) Watchdog() time.Duration { return m.watchdog }

// Socket is a listening TCP or Unix socket that outlives this process: the manager holds it too. Connections wait in it while no
// process accepts them.
type Socket struct {
	Name string   // FileDescriptorName= of the socket unit, by default the unit's name; "unknown" without a name
	Addr net.Addr // where it listens: *net.TCPAddr or *net.UnixAddr

	fd int // a number and not an *os.File: only the listener that Listen returns shall be in the poller
}

// errNotListening means that a descriptor is no listening socket for connections.
var errNotListening = errors.New("no listening TCP or Unix socket (ListenStream= and Accept=no make one)")

// Listen returns a new listener on the socket. After it is closed, connections that were not accepted wait for the next
// listener, in this process or another one. The listener is a *net.TCPListener or a *net.UnixListener; the latter does
// not remove its file, which is the manager's.
func (s *Socket) Listen() (net.Listener, error) {
	fail := func(err error) (net.Listener, error) {
		return nil, fmt.Errorf("take over socket %s (descriptor %d): %w", s.Name, s.fd, err)
	}
	if listens, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil {
		return fail(os.NewSyscallError("getsockopt", err))
	} else if listens == 0 {
		return fail(errNotListening)
	}
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, firstSocket)
	if err != nil {
		return fail(os.NewSyscallError("fcntl", err))
	}
	f := os.NewFile(uintptr(fd), s.Name)
	defer func() { _ = f.Close() }() // the listener has a descriptor of its own
	ln, err := net.FileListener(f)
	if err != nil {
		return fail(err)
	}
	switch ln.Addr().(type) {
	case *net.TCPAddr, *net.UnixAddr:
		return ln, nil
	}
	_ = ln.Close()
	return fail(errNotListening)
}

// Ready notifies the manager that the process answers, after a start or after Reloading. systemctl status shows status,
// which is one line.
func (m *Manager) Ready(status string) error { return m.send("READY=1", "STATUS="+status) }

// Reloading notifies the manager that the process reloads its configuration. Call Ready after it.
func (m *Manager) Reloading() error {
	return m.send("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(monotonic().Microseconds(), 10))
}

// Stopping notifies the manager that the process stops, and that it may take up to limit.
func (m *Manager) Stopping(limit time.Duration, status string) error {
	return m.send("STOPPING=1", "EXTEND_TIMEOUT_USEC="+strconv.FormatInt(limit.Microseconds(), 10), "STATUS="+status)
}

// Alive resets the watchdog.
func (m *Manager) Alive() error { return m.send("WATCHDOG=1") }

// send sends one notification, without a connection that lasts: the manager may have been restarted.
func (m *Manager) send(fields ...string) error {
	if m.notify == "" {
		return nil
	}
	for i, f := range fields {
		fields[i] = textfmt.OneLine(strings.ReplaceAll(f, "\n", "; ")) // one field is one line
	}
	if err := sendTo(m.notify, []byte(strings.Join(fields, "\n"))); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}
