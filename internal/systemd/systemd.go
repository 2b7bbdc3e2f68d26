// Package systemd speaks to the service manager that started this process, when there is one: it takes the
// sockets that are handed over (sd_listen_fds(3)) and tells how the process is (sd_notify(3)).
//
// It is no coreos/go-systemd because of what programs that this one starts would inherit: there the
// environment can be cleaned only by the call that uses it last, and a descriptor that is handed over goes
// to the poller of package os, where the listener made of it is a second time.
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
	maxSockets  = 1024 // more than this is no configuration but a slip
	// notifyPatience is how long a message may wait for a service manager that reads none.
	notifyPatience = 5 * time.Second
)

// Manager is the service manager. The zero Manager is none: it hands nothing over and listens to nothing.
type Manager struct {
	notify   string // the address of its socket; "" is none
	watchdog time.Duration
	sockets  []*Socket
}

// Take reads what the service manager has put into the environment, and removes it there, so that no
// program this one starts believes it is meant. It is to be called once, before any other goroutine opens
// or starts something. Errors mean that the environment is not as sd_listen_fds(3) and
// sd_watchdog_enabled(3) have it.
func Take() (*Manager, error) {
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

// watchdog returns how often the manager wants to hear from the process self; 0 is never.
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

// sockets takes over what was handed to the process self.
func sockets(pid, fds, names string, self int) ([]*Socket, error) {
	if fds == "" || pid != strconv.Itoa(self) {
		return nil, nil // none, or meant for who started this process
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > maxSockets {
		return nil, fmt.Errorf("read LISTEN_FDS: want a number of sockets up to %d, got %q", maxSockets, fds)
	}
	name := strings.Split(names, ":")
	all := make([]*Socket, 0, n)
	for i := range n {
		fd := firstSocket + i
		unix.CloseOnExec(fd) // first of all: no program that is started shall hold the port
		s := &Socket{fd: fd, Name: "unknown"}
		if i < len(name) && name[i] != "" {
			s.Name = name[i]
		}
		// Whatever is wrong with the socket, a listener of it says.
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

// Sockets are the listening TCP sockets that were handed over, in the manager's order.
func (m *Manager) Sockets() []*Socket { return m.sockets }

// Watchdog is how long the manager waits between two calls of Alive before it takes the process for dead;
// 0 is for ever.
func (m *Manager) Watchdog() time.Duration { return m.watchdog }

// Socket is a listening TCP socket that outlives this process: the manager holds it too, and connections
// wait in it while nobody accepts them.
type Socket struct {
	Name string   // FileDescriptorName= of the socket unit, which is the unit's name by default; "unknown" when there is none
	Addr net.Addr // where it listens

	fd int // a plain number: in the poller the socket shall be once, as the listener that Listen returns
}

// ErrSocket means that a socket that was handed over is none that TCP connections can be accepted from.
var ErrSocket = errors.New("no listening TCP socket (ListenStream= with a port and Accept=no make one)")

// Listen returns a listener on the socket. Closing it leaves connections that were not accepted to the
// next one, of this process or another.
func (s *Socket) Listen() (*net.TCPListener, error) {
	fail := func(err error) (*net.TCPListener, error) {
		return nil, fmt.Errorf("take over socket %s (descriptor %d): %w", s.Name, s.fd, err)
	}
	if listens, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil {
		return fail(os.NewSyscallError("getsockopt", err))
	} else if listens == 0 {
		return fail(ErrSocket)
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
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		_ = ln.Close()
		return fail(ErrSocket)
	}
	return tcp, nil
}

// Ready says that the process answers, after a start or after Reloading; status is for people (systemctl
// status shows it), one line.
func (m *Manager) Ready(status string) error { return m.send("READY=1", "STATUS="+status) }

// Reloading says that the process reads its configuration anew. Ready ends it.
func (m *Manager) Reloading() error {
	return m.send("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(monotonic().Microseconds(), 10))
}

// Stopping says that the process is about to end, and may take limit for it.
func (m *Manager) Stopping(limit time.Duration, status string) error {
	return m.send("STOPPING=1", "EXTEND_TIMEOUT_USEC="+strconv.FormatInt(limit.Microseconds(), 10), "STATUS="+status)
}

// Alive keeps the watchdog quiet for another Watchdog.
func (m *Manager) Alive() error { return m.send("WATCHDOG=1") }

// send sends one message. A connection for each: the manager may have been replaced by its successor.
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
