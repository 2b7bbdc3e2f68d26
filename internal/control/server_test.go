package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// exchangeRaw sends text and returns the event that the server answers.
func exchangeRaw(t *testing.T, socket, text string) Event {
	t.Helper()
	conn := connect(t, socket)
	go func() { _, _ = io.WriteString(conn, text) }()
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	var e Event
	if err := json.Unmarshal(line, &e); err != nil || !e.Done {
		t.Fatalf("the answer is %q: %v", line, err)
	}
	return e
}

func TestWrongRequests(t *testing.T) {
	socket := serve(t, echo, Options{})
	for _, test := range []struct{ name, request, want string }{
		{"no JSON", "GET / HTTP/1.1\r\n", "cannot be read"},
		{"wrong type", "{\"op\":1}\n", "cannot be read"},
		{"a list", "[]\n", "cannot be read"},
		{"empty", "\n", "cannot be read"},
		{"two values", "{} {}\n", "cannot be read"},
		{"deep", strings.Repeat("[", 100_000) + "\n", "cannot be read"},
		{"huge line", strings.Repeat(" ", maxRequest+10_000), "longer than"},
		{"huge name", `{"op":"` + strings.Repeat("x", maxRequest) + "\"}\n", "longer than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if e := exchangeRaw(t, socket, test.request); e.Code != CodeUsage || !strings.Contains(e.Error, test.want) {
				t.Errorf("the answer is %+v, want code %d and %q", e, CodeUsage, test.want)
			}
		})
	}
	if e, err := do(t, socket, Request{Op: OpReport}); err != nil || e.Error != OpReport {
		t.Errorf("a right request after them: %+v, %v", e, err)
	}
}

// A caller that sends no request does not keep its connection.
func TestSilentCallerIsCutOff(t *testing.T) {
	socket := serve(t, echo, Options{RequestTimeout: 50 * time.Millisecond})
	conn := connect(t, socket)
	if _, err := conn.Write([]byte(`{"op":`)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read %d bytes, error %v; want the end of the connection", n, err)
	}
}

// A caller that does not read is cut off, and its handler ends.
func TestSlowReaderIsCutOff(t *testing.T) {
	ended := make(chan error, 1)
	socket := serve(t, func(ctx context.Context, _ Caller, _ Request, send func(Event) error) Event {
		text := strings.Repeat("x", 100_000)
		for {
			if err := send(Event{Text: text}); err != nil {
				<-ctx.Done()
				ended <- err
				return Event{}
			}
		}
	}, Options{WriteTimeout: 50 * time.Millisecond})
	conn := connect(t, socket)
	if _, err := conn.Write([]byte("{}\n")); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, ended, "the handler ends"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("send: error %v, want a timeout", err)
	}
}

func TestContextEndsWithTheConnection(t *testing.T) {
	handling, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	socket := serve(t, func(ctx context.Context, _ Caller, _ Request, _ func(Event) error) Event {
		handling <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return Event{}
	}, Options{})
	for name, end := range map[string]func(*net.UnixConn) error{
		"closed":         (*net.UnixConn).Close,
		"half closed":    (*net.UnixConn).CloseWrite,
		"a second line":  func(c *net.UnixConn) error { _, err := c.Write([]byte("{}\n")); return err },
		"closed at once": func(*net.UnixConn) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			conn := connect(t, socket)
			if _, err := conn.Write([]byte("{}\n")); err != nil {
				t.Fatal(err)
			}
			if name == "closed at once" {
				conn.Close()
			}
			receive(t, handling, "the handler runs")
			if err := end(conn); err != nil {
				t.Fatal(err)
			}
			receive(t, ended, "the context ends")
		})
	}
}

// The end of the server ends the handlers, and Serve returns after them.
func TestServeWaitsForHandlers(t *testing.T) {
	ln, err := Listen(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	handling, leave, served := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		served <- Serve(ctx, ln, func(ctx context.Context, _ Caller, _ Request, _ func(Event) error) Event {
			close(handling)
			<-ctx.Done()
			<-leave
			return Event{Code: CodeUnavailable, Error: "the daemon stops"}
		}, Options{})
	}()
	answered := make(chan Event, 1)
	go func() {
		e, _ := Do(context.WithoutCancel(t.Context()), ln.Addr().String(), Request{}, nil)
		answered <- e
	}()
	receive(t, handling, "the handler runs")
	silent := connect(t, ln.Addr().String()) // has sent no request yet
	cancel()
	select {
	case err := <-served:
		t.Fatalf("Serve returned before its handler: %v", err)
	default:
	}
	close(leave)
	if err := receive(t, served, "Serve returns"); err != nil {
		t.Error(err)
	}
	if e := receive(t, answered, "the caller has its answer"); e.Error != "the daemon stops" {
		t.Errorf("the answer is %+v", e)
	}
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("a connection without a request got an answer")
	}
}

func TestHandlerPanics(t *testing.T) {
	var log lockedBuilder
	socket := serve(t, func(ctx context.Context, c Caller, r Request, send func(Event) error) Event {
		if r.Op == OpSet {
			panic("secret detail")
		}
		return echo(ctx, c, r, send)
	}, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	e, err := do(t, socket, Request{Op: OpSet})
	if err != nil || e.Code != CodeUnavailable || !strings.Contains(e.Error, "see its log") || strings.Contains(e.Error, "secret") {
		t.Errorf("the answer is %+v, %v", e, err)
	}
	if said := log.String(); !strings.Contains(said, "secret detail") || !strings.Contains(said, "op=set") {
		t.Errorf("the log has %q", said)
	}
	if e, err := do(t, socket, Request{Op: OpLift}); err != nil || e.Error != OpLift {
		t.Errorf("the next request: %+v, %v", e, err)
	}
}

// lockedBuilder is a strings.Builder for several goroutines.
type lockedBuilder struct {
	mu sync.Mutex
	strings.Builder
}

func (b *lockedBuilder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Builder.Write(p)
}

func (b *lockedBuilder) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Builder.String()
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	ln, err := Listen(path("live"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	info, err := os.Lstat(path("live"))
	if err != nil || info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("the socket has mode %v, %v; want srw-rw----", info.Mode(), err)
	}
	if second, err := Listen(path("live")); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a second daemon: %v, error %v; want an error", second, err)
	}

	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path("stale")})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	again, err := Listen(path("stale"))
	if err != nil {
		t.Fatalf("the socket of a daemon that was killed: %v", err)
	}
	again.Close()

	if err := os.WriteFile(path("file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path("live"), path("link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "link", "missing/s", "file/s", strings.Repeat("x", 200)} {
		if ln, err := Listen(path(name)); err == nil {
			ln.Close()
			t.Errorf("%s: no error", name)
		}
	}
	if text, err := os.ReadFile(path("file")); err != nil || string(text) != "text" {
		t.Errorf("the file has %q, %v", text, err)
	}
}
