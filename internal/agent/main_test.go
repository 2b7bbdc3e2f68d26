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

// lookup is one lookup.
type lookup struct {
	service, host string
	port          uint16
	local         bool
}

// fakeOverrides answers lookups with what it holds about the service.
type fakeOverrides struct {
	mu        sync.Mutex
	overrides map[string]*spool.Entry
	ended     map[string]time.Time
	weights   map[string]int
	weightEnd time.Time // of every service
	lookups   []lookup
}

func (s *fakeOverrides) Lookup(service, host string, port uint16, here bool) spool.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookups = append(s.lookups, lookup{service, host, port, here})
	return spool.View{Override: s.overrides[service]}
}

func (s *fakeOverrides) LastMaintEnd(service, _ string, _ uint16, _ bool) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended[service]
}

func (s *fakeOverrides) Weight(service, _ string, _ uint16, _ bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.weights[service]
}

func (s *fakeOverrides) WeightEnd(string, string, uint16, bool) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.weightEnd
}

func (s *fakeOverrides) set(service string, state spool.State, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.overrides == nil {
		s.overrides = map[string]*spool.Entry{}
	}
	s.overrides[service] = &spool.Entry{Key: spool.Key{Service: service}, State: state, Reason: reason}
}

// endMaint is what an Index does when maint ends.
func (s *fakeOverrides) endMaint(service string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.overrides, service)
	if s.ended == nil {
		s.ended = map[string]time.Time{}
	}
	s.ended[service] = time.Now()
}

// logBuffer collects a log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// answerLog is what Options.Noted was told.
type answerLog struct {
	mu   sync.Mutex
	list []answerRecord
}

type answerRecord struct{ Peer, Key, Answer string }

// testAgent is an agent with one server.
type testAgent struct {
	tb        testing.TB
	overrides fakeOverrides
	log       logBuffer
	limit     *loglimit.Limiter
	answers   answerLog
	agent     *Agent
	server    *Server
	addr      string
}

// newTestAgent returns an agent whose server has the default service own and a long read timeout: a slow machine may
// keep a client from sending for longer than readTimeout.
func newTestAgent(tb testing.TB, own string) *testAgent {
	return newTestAgentWithTimeout(tb, own, soon)
}

func newTestAgentWithTimeout(tb testing.TB, own string, timeout time.Duration) *testAgent {
	tb.Helper()
	h := &testAgent{tb: tb}
	log := slog.New(slog.NewTextHandler(&h.log, nil))
	h.limit = loglimit.New(log)
	h.agent = New(Options{
		Overrides: &h.overrides, PassedChecks: new(PassedChecks), Log: log, LogLimit: h.limit,
		OnAnswer: func(peer string, k spool.Key, answer string) {
			h.answers.mu.Lock()
			defer h.answers.mu.Unlock()
			h.answers.list = append(h.answers.list, answerRecord{peer, k.Name(), answer})
		},
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	h.addr = ln.Addr().String()
	h.agent.queue.readTimeout = timeout
	h.server = h.agent.Serve(ln, own)
	tb.Cleanup(h.server.Close)
	return h
}

// dial connects from an address of this machine.
func (h *testAgent) dial(from string) *net.TCPConn {
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
func (h *testAgent) ask(text string) string {
	h.tb.Helper()
	c := h.dial("127.0.0.1")
	defer c.Close()
	_, _ = io.WriteString(c, text) // the server may close before it has read all
	return h.readAll(c)
}

func (h *testAgent) readAll(c net.Conn) string {
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
