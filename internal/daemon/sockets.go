package daemon

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"hacheck/internal/systemd"
)

// inheritedSockets are the sockets that systemd handed over. An endpoint uses the socket on its port instead of
// opening its own: connections wait in it while no daemon runs, so that a restart refuses no check. A socket is never
// used for fewer addresses than it listens on.
type inheritedSockets struct {
	sockets []*systemd.Socket
	bind    string // the address of -B if the command line has one, otherwise ""
	tls     string // tls_listen: a socket with its port speaks TLS whatever its name is

	mu   sync.Mutex
	used []*systemd.Socket
}

// httpNames are the names of sockets that belong to the HTTP server of -p whatever their port is: of hacheck.socket,
// with that name, and without a name, as from systemd-socket-activate.
var httpNames = []string{"http", "hacheck.socket", "unknown"}

// listenHTTP opens the ports of -p. It uses every socket with one of these ports or with a name in httpNames; a socket
// that listens on other addresses than -B names is an error. It opens the ports that no socket has. It does not open
// the default port beside sockets: a socket unit that was changed to another port means that port.
func (in *inheritedSockets) listenHTTP(bind string, ports []uint16) ([]net.Listener, error) {
	var listeners []net.Listener
	have := map[uint16]bool{}
	for _, s := range in.sockets {
		port := socketPort(s)
		if port == 0 || in.isTLS(port) { // a Unix socket, which answers no checks, or the one of tls_listen
			continue
		}
		if !slices.Contains(ports, port) && !slices.Contains(httpNames, s.Name) {
			continue
		}
		if !includes(in.bind, s) {
			return nil, mismatch(s, "-B", in.bind)
		}
		ln, err := in.use(s)
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
		ln, err := openPort(bind, port)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, ln)
	}
	return listeners, nil
}

// isTLS reports whether port is that of tls_listen.
func (in *inheritedSockets) isTLS(port uint16) bool {
	_, of, err := splitPort(in.tls)
	return err == nil && of == port
}

// listen uses the socket on the port, or opens the port at bind.
func (in *inheritedSockets) listen(bind string, port uint16) (net.Listener, error) {
	if ln, err := in.takeSocket(in.bind, port, "-B", in.bind); ln != nil || err != nil {
		return ln, err
	}
	return openPort(bind, port)
}

// listenConfigured uses the socket on addr, an address of the configuration, or opens addr.
func (in *inheritedSockets) listenConfigured(addr string) (net.Listener, error) {
	host, port, err := splitPort(addr)
	if err != nil {
		return nil, err
	}
	if ln, err := in.takeSocket(host, port, "the configuration", addr); ln != nil || err != nil {
		return ln, err
	}
	return openConfigured(addr)
}

// takeSocket uses the socket on that port whose addresses host includes. Without one it returns nil. A socket that listens on
// every address is an error, because host cannot be opened beside it; setting and addr are for its text.
func (in *inheritedSockets) takeSocket(host string, port uint16, setting, addr string) (net.Listener, error) {
	var err error
	for _, s := range in.sockets {
		switch {
		case socketPort(s) != port || port == 0:
		case includes(host, s):
			return in.use(s)
		case s.Addr.(*net.TCPAddr).IP.IsUnspecified(): // it has a port, so it is a TCP address
			err = mismatch(s, setting, addr)
		}
	}
	return nil, err
}

// takeUnixSocket uses the Unix socket with that path. Without one it returns nil.
func (in *inheritedSockets) takeUnixSocket(path string) (*net.UnixListener, error) {
	for _, s := range in.sockets {
		if a, ok := s.Addr.(*net.UnixAddr); ok && a.Name == path {
			ln, err := in.use(s)
			if err != nil {
				return nil, err
			}
			return ln.(*net.UnixListener), nil
		}
	}
	return nil, nil
}

// includes reports whether host includes every address that s listens on. host is an address, 0.0.0.0 for all of IPv4,
// :: or "" for all, or a host name.
func includes(host string, s *systemd.Socket) bool {
	tcp, ok := s.Addr.(*net.TCPAddr)
	if !ok || host == "" {
		return ok
	}
	socket := tcp.AddrPort().Addr().Unmap()
	want, err := netip.ParseAddr(host)
	if err != nil {
		ips, err := net.LookupIP(host)
		return err == nil && !tcp.IP.IsUnspecified() && slices.ContainsFunc(ips, tcp.IP.Equal)
	}
	want = want.Unmap()
	return want == socket || want == netip.IPv6Unspecified() || want == netip.IPv4Unspecified() && socket.Is4()
}

// mismatch is the error for a socket that listens on more or other addresses than a setting names.
func mismatch(s *systemd.Socket, setting, addr string) error {
	return fmt.Errorf("socket %s listens on %s, but %s says %s: change ListenStream= in the socket unit, or %s", s.Name, s.Addr, setting, addr, setting)
}

func (in *inheritedSockets) use(s *systemd.Socket) (net.Listener, error) {
	in.mu.Lock()
	in.used = append(in.used, s)
	in.mu.Unlock()
	return s.Listen()
}

// unused returns the name and address of each socket that no endpoint uses.
func (in *inheritedSockets) unused() (addrs []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, s := range in.sockets {
		if !slices.Contains(in.used, s) {
			addrs = append(addrs, s.Name+" "+s.Addr.String())
		}
	}
	return addrs
}

// socketPort returns the port of a TCP socket, 0 for a Unix socket.
func socketPort(s *systemd.Socket) uint16 {
	if a, ok := s.Addr.(*net.TCPAddr); ok {
		return uint16(a.Port)
	}
	return 0
}
