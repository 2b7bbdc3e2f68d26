//go:build unix

package agent

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is how long anything may take that should happen at once.
const soon = 20 * time.Second

// asked is one lookup.
type asked struct {
	service, host string
	port          uint16
	here          bool
}

// said answers lookups with what it holds about the service.
type said struct {
	mu    sync.Mutex
	over  map[string]*spool.Entry
	ended map[string]time.Time
	asked []asked
}

func (s *said) Lookup(service, host string, port uint16, here bool) spool.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, asked{service, host, port, here})
	return spool.View{Override: s.over[service]}
}

func (s *said) MaintEnded(service, _ string, _ uint16, _ bool) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended[service]
}

func (s *said) say(service string, state spool.State, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over == nil {
		s.over = map[string]*spool.Entry{}
	}
	s.over[service] = &spool.Entry{Key: spool.Key{Service: service}, State: state, Reason: reason}
}

// back is what an Index does when maint ends.
func (s *said) back(service string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.over, service)
	if s.ended == nil {
		s.ended = map[string]time.Time{}
	}
	s.ended[service] = time.Now()
}

// lines collects a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// noted is what Options.Noted was told.
type noted struct {
	mu   sync.Mutex
	list []note
}

type note struct{ Peer, Key, Answer string }

// house is an agent with one door.
type house struct {
	tb    testing.TB
	said  said
	log   lines
	limit *loglimit.Limiter
	noted noted
	agent *Agent
	door  *Server
	addr  string
}

// open makes a house whose door speaks for own and has patience: machines that test may keep a client from
// speaking for longer than readTime.
func open(tb testing.TB, own string) *house { return openFor(tb, own, soon) }

func openFor(tb testing.TB, own string, patience time.Duration) *house {
	tb.Helper()
	h := &house{tb: tb}
	log := slog.New(slog.NewTextHandler(&h.log, nil))
	h.limit = loglimit.New(log)
	h.agent = New(Options{
		Overrides: &h.said, Successes: new(Successes), Log: log, LogLimit: h.limit,
		OnAnswer: func(peer string, k spool.Key, answer string) {
			h.noted.mu.Lock()
			defer h.noted.mu.Unlock()
			h.noted.list = append(h.noted.list, note{peer, k.Name(), answer})
		},
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	h.addr = ln.Addr().String()
	h.agent.crowd.patience = patience
	h.door = h.agent.Serve(ln, own)
	tb.Cleanup(h.door.Close)
	return h
}

// dial connects from an address of this machine.
func (h *house) dial(from string) *net.TCPConn {
	h.tb.Helper()
	c, err := (&net.Dialer{Timeout: soon, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", h.addr)
	if err != nil {
		h.tb.Fatal(err)
	}
	tcp := c.(*net.TCPConn)
	_ = tcp.SetDeadline(time.Now().Add(soon))
	h.tb.Cleanup(func() { tcp.Close() })
	return tcp
}

// ask sends text and returns all that is answered; a reset is no answer.
func (h *house) ask(text string) string {
	h.tb.Helper()
	c := h.dial("127.0.0.1")
	defer c.Close()
	_, _ = io.WriteString(c, text) // a door that has read enough may close
	return h.hear(c)
}

func (h *house) hear(c net.Conn) string {
	h.tb.Helper()
	b, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		h.tb.Errorf("after %q: %v", b, err)
	}
	return string(b)
}

// until polls for a condition that nothing announces.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(soon); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func count(text, what string) int { return strings.Count(text, what) }
