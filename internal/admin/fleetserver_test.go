package admin

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"hacheck/internal/control"
)

// fleetServer is a real control socket with invented answers.
type fleetServer struct {
	socket string
	stop   func()

	mu       sync.Mutex
	answers  map[string][]control.Event // by operation; the last event ends the answer
	requests []control.Request
}

// startFleet listens on a socket in dir, whose path must be short. handler, unless it is nil, answers instead of the
// answers.
func startFleet(dir string, handler control.Handler) (*fleetServer, error) {
	s := &fleetServer{socket: filepath.Join(dir, "control.sock"), answers: map[string][]control.Event{}}
	ln, err := control.Listen(s.socket)
	if err != nil {
		return nil, err
	}
	if handler == nil {
		handler = s.answer
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = control.Serve(ctx, ln, handler, control.Options{})
	}()
	s.stop = func() {
		cancel()
		<-done
	}
	return s, nil
}

// newFleet is startFleet for a test.
func newFleet(t *testing.T, handler control.Handler) *fleetServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "hc") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := startFleet(dir, handler)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	return s
}

// set sets the events that answer an operation.
func (s *fleetServer) set(op string, events ...control.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[op] = events
}

func (s *fleetServer) answer(_ context.Context, _ control.Caller, r control.Request, send func(control.Event) error) control.Event {
	s.mu.Lock()
	s.requests = append(s.requests, r)
	events := s.answers[r.Op]
	s.mu.Unlock()
	if len(events) == 0 {
		return control.Event{Code: control.CodeUsage, Error: "the test has no answer for " + r.Op}
	}
	for _, e := range events[:len(events)-1] {
		if send(e) != nil {
			return control.Event{}
		}
	}
	return events[len(events)-1]
}

// received returns the requests since the last call.
func (s *fleetServer) received() []control.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.requests
	s.requests = nil
	return list
}

// fleetKey is the key of the server of a script.
type fleetKey struct{}

// cmdFleet is `fleet FILE`: it sets $CONTROL to a control socket, and what it answers. FILE has the events of each
// operation.
func cmdFleet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fleet FILE")
	}
	answers := map[string][]control.Event{}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &answers))
	s, _ := ts.Value(fleetKey{}).(*fleetServer)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers, s.requests = answers, nil
	ts.Setenv("CONTROL", s.socket)
}

// cmdRequests is `requests FILE`: the requests since the last call must be those in FILE, one a line.
func cmdRequests(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: requests FILE")
	}
	s, _ := ts.Value(fleetKey{}).(*fleetServer)
	got := ""
	for _, r := range s.received() {
		line, err := json.Marshal(r)
		ts.Check(err)
		got += string(line) + "\n"
	}
	if want := ts.ReadFile(args[0]); got != want {
		ts.Fatalf("the daemon received\n%swant\n%s", got, want)
	}
}

// setupFleet starts the server of one script.
func setupFleet(e *testscript.Env) error {
	dir, err := os.MkdirTemp("", "hc")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	s, err := startFleet(dir, nil)
	if err != nil {
		return err
	}
	e.Defer(func() {
		s.stop()
		os.RemoveAll(dir)
	})
	e.Values[fleetKey{}] = s
	return nil
}
