package proxy

import (
	"net"
	"net/netip"
	"sync"

	"hacheck/internal/clients"
	"hacheck/internal/loglimit"
)

// maxPeerConns is how many connections one address may hold, where Options.PeerConns does not say otherwise.
// A balancer holds one for each check of its that is under way.
const maxPeerConns = 4096

// crowd counts the connections that net/http has, by who holds them: a single stranger must not be able to
// hold all the descriptors there are, since without one every balancer is refused and takes the host out.
// Connections that end with an answer by the shortcut are not in it; they hold nobody up.
type crowd struct {
	most int

	mu    sync.Mutex
	holds map[netip.Prefix]int
}

// enter counts a connection, or reports that its holder has enough.
func (c *crowd) enter(who netip.Prefix) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds[who] >= c.most {
		return false
	}
	if c.holds == nil {
		c.holds = make(map[netip.Prefix]int)
	}
	c.holds[who]++
	return true
}

// leave takes back an enter.
func (c *crowd) leave(who netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds[who]--; c.holds[who] <= 0 {
		delete(c.holds, who)
	}
}

// admit has the connection c counted, or closes it and returns false because its holder has enough.
func (s *Server) admit(c *conn) bool {
	gone, ok := s.enter(c.peer)
	if !ok {
		_ = c.TCPConn.Close()
		return false
	}
	c.gone = gone
	return true
}

// enter counts a connection of peer's until gone is called, or returns false because there are enough.
func (s *Server) enter(peer string) (gone func(), ok bool) {
	who := clients.NetworkOf(peer)
	if s.crowd.enter(who) {
		return func() { s.crowd.leave(who) }, true
	}
	const message = "an address holds as many connections as it may; more of its are closed unanswered"
	if s.limit.AllowOnce(loglimit.Client, who.String(), message, "") {
		s.log.Warn(message, "peer", peer, "connections", s.crowd.most)
	}
	return nil, false
}

// Bounded wraps the listener of another door of this process, whose connections then count together with those
// of this one: the descriptors are the same.
func (s *Server) Bounded(ln net.Listener) net.Listener { return bounded{ln, s} }

type bounded struct {
	net.Listener
	s *Server
}

// Accept implements net.Listener.
func (b bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if gone, ok := b.s.enter(hostOf(c.RemoteAddr().String())); ok {
			return &counted{Conn: c, gone: sync.OnceFunc(gone)}, nil
		}
		_ = c.Close()
	}
}

// counted is a connection that somebody holds.
type counted struct {
	net.Conn
	gone func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.gone()
	return c.Conn.Close()
}
