package control

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hacheck/internal/fleet/report"
)

func TestDoReturnsTheLastEvent(t *testing.T) {
	want := Request{
		Op: OpSet, Scopes: []string{"group:rack7", "host:web3"}, Services: []string{"web", "db:5432"}, State: "drain",
		Reason: "new\nkernel", Replace: true, WaitTurn: 1.5, Timeout: 10,
	}
	got := make(chan Request, 1)
	socket := serve(t, func(_ context.Context, _ Caller, r Request, send func(Event) error) Event {
		got <- r
		for i := range 3 {
			if err := send(Event{Text: "step " + strconv.Itoa(i)}); err != nil {
				return Event{Code: CodeUnavailable, Error: err.Error()}
			}
		}
		return Event{Code: CodeTimeout, Error: "not yet", Outcome: &report.Outcome{Missing: []string{"web9"}}}
	}, Options{})
	var texts []string
	e, err := Do(t.Context(), socket, want, func(e Event) { texts = append(texts, e.Text) })
	if err != nil {
		t.Fatal(err)
	}
	if !e.Done || e.Code != CodeTimeout || e.Error != "not yet" || e.Outcome == nil || !slices.Equal(e.Outcome.Missing, []string{"web9"}) {
		t.Errorf("the last event is %+v", e)
	}
	if !slices.Equal(texts, []string{"step 0", "step 1", "step 2"}) {
		t.Errorf("progress is %q", texts)
	}
	r := receive(t, got, "the handler has the request")
	if !slices.Equal(r.Scopes, want.Scopes) || !slices.Equal(r.Services, want.Services) || r.Reason != want.Reason ||
		r.State != want.State || !r.Replace || r.WaitTurn != 1.5 || r.Timeout != 10 {
		t.Errorf("the request is %+v, want %+v", r, want)
	}
}

// A report of a large fleet passes; other answers of that length do not.
func TestLongAnswers(t *testing.T) {
	fleet := &report.Fleet{Error: strings.Repeat("x", maxEvent+1000)}
	socket := serve(t, func(context.Context, Caller, Request, func(Event) error) Event { return Event{Fleet: fleet} }, Options{})
	e, err := do(t, socket, Request{Op: OpReport})
	if err != nil || e.Fleet == nil || len(e.Fleet.Error) != len(fleet.Error) {
		t.Errorf("the report: code %d, error %v", e.Code, err)
	}
	e, err = do(t, socket, Request{Op: OpSet})
	if err != nil || e.Code != CodeUnavailable || !strings.Contains(e.Error, "longer than") {
		t.Errorf("another answer: %v, error %v; want that it is too long", e, err)
	}
}

func TestNoSocket(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, socket := range []string{"", filepath.Join(dir, "missing"), filepath.Join(dir, "no", "dir"), filepath.Join(file, "s"), stale, file} {
		_, err := do(t, socket, Request{Op: OpReport})
		if !errors.Is(err, ErrNoSocket) || !strings.Contains(err.Error(), socket) {
			t.Errorf("%q: error %v, want ErrNoSocket with the path", socket, err)
		}
	}
	if _, err := do(t, filepath.Join(dir, strings.Repeat("x", 200)), Request{}); err == nil || errors.Is(err, ErrNoSocket) {
		t.Errorf("a path that is too long: error %v, want one that says so", err)
	}
}

// answer listens like a daemon that sends text and closes the connection.
func answer(t *testing.T, text string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Read(make([]byte, 1000))
		_, _ = conn.Write([]byte(text))
	}()
	t.Cleanup(func() {
		ln.Close()
		<-ended
	})
	return socket
}

func TestWrongAnswers(t *testing.T) {
	for _, test := range []struct{ name, answer, want string }{
		{"none", "", ErrBroken.Error()},
		{"progress alone", "{\"text\":\"a\"}\n", ErrBroken.Error()},
		{"without its end", `{"done":true}`, ErrBroken.Error()},
		{"no JSON", "HTTP/1.1 400 Bad Request\r\n\r\n", "the answer cannot be read"},
		{"wrong type", "{\"done\":\"yes\"}\n", "the answer cannot be read"},
		{"endless line", strings.Repeat("x", maxEvent+1), "line is too long"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, err := do(t, answer(t, test.answer), Request{Op: OpSet})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("event %+v, error %v; want the error %q", e, err, test.want)
			}
		})
	}
}

func TestDoEndsWithItsContext(t *testing.T) {
	handling := make(chan struct{})
	withdrawn := make(chan struct{})
	socket := serve(t, func(ctx context.Context, _ Caller, _ Request, _ func(Event) error) Event {
		close(handling)
		<-ctx.Done()
		close(withdrawn)
		return Event{}
	}, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := Do(ctx, socket, Request{Op: OpTakeDown}, nil)
		ended <- err
	}()
	receive(t, handling, "the handler runs")
	cancel()
	if err := receive(t, ended, "Do returns"); !errors.Is(err, context.Canceled) {
		t.Errorf("Do: error %v, want the error of its context", err)
	}
	receive(t, withdrawn, "the context of the handler ends")

	expired, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if _, err := Do(expired, socket, Request{}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a context that has ended: error %v", err)
	}
}
