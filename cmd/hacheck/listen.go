package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"hacheck/internal/systemd"
)

// inherited are the sockets that the service manager handed over, and which of them are in use. A door
// takes the one on its port instead of opening its own: connections wait in it while no daemon runs, so
// that a restart refuses no check.
type inherited struct {
	sockets []*systemd.Socket

	mu    sync.Mutex
	taken []*systemd.Socket
}

// forHTTP are the names of sockets that are for the HTTP door whatever their port: of hacheck.socket, by
// that name, and without any, as systemd-socket-activate hands them over.
var forHTTP = []string{"http", "hacheck.socket", "unknown"}

// http opens the ports of the HTTP door. Handed over sockets with one of these ports or a name in forHTTP
// are used; a port that has none is opened. The default port is not opened beside other sockets: a socket
// unit that was changed to another port means that port.
func (in *inherited) http(bind string, ports []uint16) ([]net.Listener, error) {
	var listeners []net.Listener
	have := map[uint16]bool{}
	for _, s := range in.sockets {
		port := portOf(s)
		if !slices.Contains(ports, port) && !slices.Contains(forHTTP, s.Name) {
			continue
		}
		ln, err := in.take(s)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, ln)
		have[port] = true
	}
	if len(listeners) > 0 && slices.Equal(ports, []uint16{defaultPort}) {
		return listeners, nil
	}
	for _, port := range ports {
		if port != 0 && have[port] {
			continue
		}
		ln, err := listen(context.Background(), bind, port)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, ln)
	}
	return listeners, nil
}

// listen is the function listen, unless a socket was handed over for the port.
func (in *inherited) listen(ctx context.Context, bind string, port uint16) (net.Listener, error) {
	if s := in.on(port); s != nil {
		return in.take(s)
	}
	return listen(ctx, bind, port)
}

// listenAt is net.Listen for an address of the configuration, unless a socket was handed over for its port.
func (in *inherited) listenAt(addr string) (net.Listener, error) {
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	if s := in.on(uint16(port)); s != nil {
		return in.take(s)
	}
	return listenOn(context.Background(), "tcp", addr, uint16(port))
}

// on returns the socket on that port, or nil.
func (in *inherited) on(port uint16) *systemd.Socket {
	if i := slices.IndexFunc(in.sockets, func(s *systemd.Socket) bool { return portOf(s) == port }); i >= 0 {
		return in.sockets[i]
	}
	return nil
}

func (in *inherited) take(s *systemd.Socket) (net.Listener, error) {
	in.mu.Lock()
	in.taken = append(in.taken, s)
	in.mu.Unlock()
	return s.Listen()
}

// unused are the sockets that nothing listens on. Who connects to one waits without end.
func (in *inherited) unused() (addrs []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, s := range in.sockets {
		if !slices.Contains(in.taken, s) {
			addrs = append(addrs, s.Name+" "+s.Addr.String())
		}
	}
	return addrs
}

func portOf(s *systemd.Socket) uint16 {
	if a, ok := s.Addr.(*net.TCPAddr); ok {
		return uint16(a.Port)
	}
	return 0
}

// listen opens one port.
func listen(ctx context.Context, bind string, port uint16) (net.Listener, error) {
	network, host := "tcp", bind
	switch bind {
	case "0.0.0.0":
		network = "tcp4" // "tcp" would answer on IPv6 too
	case "::":
		host = "" // IPv6 and IPv4; IPv4 alone on a machine that knows no other
	}
	return listenOn(ctx, network, net.JoinHostPort(host, strconv.Itoa(int(port))), port)
}

// listenOn opens addr, which has that port.
func listenOn(ctx context.Context, network, addr string, port uint16) (net.Listener, error) {
	// No keep-alive probes: they would cost four system calls a connection to find what the server's idle
	// timeout finds without any. No Multipath TCP either, which Go offers by default and no balancer asks for.
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, network, addr)
	if err == nil {
		return ln, nil
	}
	// The error itself names what was done and the system call.
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return nil, fmt.Errorf("listen on %s: %w%s", addr, err, hint(err, port))
}

// hint says what to do about an error of listen.
func hint(err error, port uint16) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("; is another hacheck running? (ss -ltnp 'sport = :%d' shows who has the port)", port)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "; -B wants an address of this machine"
	case errors.Is(err, syscall.EACCES) && port < 1024:
		return "; ports below 1024 are for root or who has CAP_NET_BIND_SERVICE"
	}
	return ""
}

// acceptEvery is how often at most the log says that no connection can be accepted.
const acceptEvery = time.Minute

// acceptLog tells the log when connections cannot be accepted, for want of descriptors above all. The
// server tries again by itself, and until it succeeds every balancer takes all of this host out: this
// must not pass in silence.
type acceptLog struct {
	net.Listener
	log  *slog.Logger
	last time.Time // only the server's one accepting goroutine uses it
}

// Accept implements net.Listener.
func (l *acceptLog) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		if now := time.Now(); now.Sub(l.last) >= acceptEvery {
			l.last = now
			l.log.Error("cannot accept connections; trying again", "listen", l.Addr().String(), "err", err)
		}
	}
	return c, err
}
