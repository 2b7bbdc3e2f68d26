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
// used for fewer addresses than it listens on, and never by two endpoints at once: each of them would get a part of the
// connections.
type inheritedSockets struct {
	sockets []*systemd.Socket
	bind    string // the address of -B if the command line has one, otherwise ""

	mu     sync.Mutex
	kept   []*systemd.Socket // in use until the process ends: by -p, -A and --control-socket
	unused []string          // as newlyUnused has last found them
}

// httpNames are the names of sockets that belong to the HTTP server of -p whatever their port is: of hacheck.socket,
// with that name, and without a name, as from systemd-socket-activate.
var httpNames = []string{"http", "hacheck.socket", "unknown"}

// listenHTTP opens the ports of -p. It uses every socket with one of these ports or with a name in httpNames; a socket
// that listens on other addresses than -B names is an error. It opens the ports that no socket has. It does not open
// the default port beside sockets: a socket unit that was changed to another port means that port.
//
// It leaves to other endpoints, whatever its name is, a socket on an address of configured or on a port of agentPorts.
func (in *inheritedSockets) listenHTTP(bind string, ports, agentPorts []uint16, configured []string) ([]net.Listener, error) {
	var listeners []net.Listener
	have := map[uint16]bool{}
	for _, s := range in.sockets {
		port := socketPort(s)
		if port == 0 || isOn(s, configured) || slices.Contains(agentPorts, port) { // port 0: a Unix socket, which answers no checks
			continue
		}
		if !slices.Contains(ports, port) && !slices.Contains(httpNames, s.Name) {
			continue
		}
		if !includes(in.bind, s) {
			return nil, mismatch(s, "-B", in.bind)
		}
		ln, err := in.keep(s)
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

// isOn reports whether s listens on one of the addresses, which are of the configuration.
func isOn(s *systemd.Socket, addrs []string) bool {
	return slices.ContainsFunc(addrs, func(addr string) bool {
		host, port, err := splitPort(addr)
		return err == nil && port != 0 && port == socketPort(s) && includes(host, s)
	})
}

// listen uses the socket on the port until the process ends, or opens the port at bind.
func (in *inheritedSockets) listen(bind string, port uint16) (net.Listener, error) {
	s, err := in.find(in.bind, port, "-B", in.bind)
	switch {
	case err != nil:
		return nil, err
	case s != nil:
		return in.keep(s)
	}
	return openPort(bind, port)
}

// listenConfigured uses the socket on addr, an address of the configuration, or opens addr.
func (in *inheritedSockets) listenConfigured(addr string) (net.Listener, error) {
	host, port, err := splitPort(addr)
	if err != nil {
		return nil, err
	}
	s, err := in.find(host, port, "the configuration", addr)
	switch {
	case err != nil:
		return nil, err
	case s != nil:
		return s.Listen()
	}
	return openConfigured(addr)
}

// find returns the socket on that port whose addresses host includes, nil without one. A socket that listens on every
// address is an error, because host cannot be opened beside it, and so is one that is in use already; setting and addr
// are for the text of the errors.
func (in *inheritedSockets) find(host string, port uint16, setting, addr string) (*systemd.Socket, error) {
	var err error
	for _, s := range in.sockets {
		switch {
		case socketPort(s) != port || port == 0:
		case includes(host, s):
			if in.isKept(s) {
				return nil, fmt.Errorf("socket %s on %s answers for -p or -A since the start: restart hacheck to use it for another setting", s.Name, s.Addr)
			}
			return s, nil
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
			ln, err := in.keep(s)
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

// keep uses a socket until the process ends.
func (in *inheritedSockets) keep(s *systemd.Socket) (net.Listener, error) {
	in.mu.Lock()
	in.kept = append(in.kept, s)
	in.mu.Unlock()
	return s.Listen()
}

func (in *inheritedSockets) isKept(s *systemd.Socket) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Contains(in.kept, s)
}

// newlyUnused returns the name and address of each socket that no endpoint uses while configured are the addresses of
// the configuration. It returns nothing if the last call has found the same sockets.
func (in *inheritedSockets) newlyUnused(configured []string) []string {
	var unused []string
	for _, s := range in.sockets {
		if !in.isKept(s) && !isOn(s, configured) {
			unused = append(unused, s.Name+" "+s.Addr.String())
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if slices.Equal(unused, in.unused) {
		return nil
	}
	in.unused = unused
	return unused
}

// socketPort returns the port of a TCP socket, 0 for a Unix socket.
func socketPort(s *systemd.Socket) uint16 {
	if a, ok := s.Addr.(*net.TCPAddr); ok {
		return uint16(a.Port)
	}
	return 0
}
