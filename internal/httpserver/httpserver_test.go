package httpserver

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"hacheck/internal/clients"
)

// startServer starts a server whose requests to /held wait until release is closed. entered receives for each of them.
func startServer(t *testing.T, limits clients.ConnLimits) (addr string, entered chan struct{}, release chan struct{}) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	entered, release = make(chan struct{}, 100), make(chan struct{})
	srv := New(Options{
		AnswerTimeout: 10 * time.Second, Log: slog.New(slog.DiscardHandler), Conns: clients.NewConnLimiter(limits),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/held" {
				entered <- struct{}{}
				<-release
			}
			_, _ = io.WriteString(w, r.Proto)
		}),
	})
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-served })
	return ln.Addr().String(), entered, release
}

func http2Client(t *testing.T) *http.Client {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func TestBothProtocols(t *testing.T) {
	addr, _, _ := startServer(t, clients.ConnLimits{})
	for proto, client := range map[string]*http.Client{"HTTP/1.1": http.DefaultClient, "HTTP/2.0": http2Client(t)} {
		r, err := client.Get("http://" + addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || string(body) != proto {
			t.Errorf("%q, %v, want %s", body, err, proto)
		}
	}
}

// TestStreamsCountAsConnections: a client cannot have more requests in flight by HTTP/2 than it may have connections.
func TestStreamsCountAsConnections(t *testing.T) {
	addr, entered, release := startServer(t, clients.ConnLimits{PerClient: 3})
	client := http2Client(t)
	codes := make(chan int, 3)
	for range 3 {
		go func() {
			r, err := client.Get("http://" + addr + "/held")
			if err != nil {
				t.Error(err)
				codes <- 0
				return
			}
			r.Body.Close()
			codes <- r.StatusCode
		}()
		<-entered
	}
	r, err := client.Get("http://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the fourth stream got %d, want 503", r.StatusCode)
	}
	close(release)
	for range 3 {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("a stream within the limit got %d", code)
		}
	}
}

// rawHTTP2 is a connection of HTTP/2 without a client's caution.
type rawHTTP2 struct {
	*http2.Framer
	net.Conn
	settings map[http2.SettingID]uint32
}

func dialHTTP2(t *testing.T, addr string) *rawHTTP2 {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	raw := &rawHTTP2{http2.NewFramer(c, c), c, map[http2.SettingID]uint32{}}
	if err := raw.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	f, err := raw.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	_ = f.(*http2.SettingsFrame).ForeachSetting(func(s http2.Setting) error { raw.settings[s.ID] = s.Val; return nil })
	return raw
}

// readUntilClosed reads until the server has closed the connection.
func (r *rawHTTP2) readUntilClosed(t *testing.T) {
	t.Helper()
	for {
		if _, err := r.ReadFrame(); err != nil {
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("the server has not closed the connection")
			}
			return
		}
	}
}

// TestHTTP2Limits: the limits that the server announces, and what it does with a client that exceeds them.
func TestHTTP2Limits(t *testing.T) {
	addr, entered, release := startServer(t, clients.ConnLimits{})
	raw := dialHTTP2(t, addr)
	if got := raw.settings[http2.SettingMaxConcurrentStreams]; got != maxStreams {
		t.Errorf("it allows %d streams, want %d", got, maxStreams)
	}
	if got := raw.settings[http2.SettingMaxHeaderListSize]; got == 0 || got > 2*maxHeadBytes {
		t.Errorf("it allows heads of %d bytes", got)
	}
	var block headerBlock
	// Each request is reset at once while its handler runs, as in CVE-2023-44487.
	head := block.encode("/held")
	for i := range uint32(10 * maxStreams) {
		id := 2*i + 1
		if raw.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head, EndStream: true, EndHeaders: true}) != nil ||
			raw.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break // closed already
		}
	}
	raw.readUntilClosed(t)
	close(release)
	if n := len(entered); n > maxStreams {
		t.Errorf("%d handlers ran at once, want %d at most", n, maxStreams)
	}
}

// TestHTTP2FloodIsClosed: a client that causes answers and reads none of them is cut off.
func TestHTTP2FloodIsClosed(t *testing.T) {
	addr, _, _ := startServer(t, clients.ConnLimits{})
	raw := dialHTTP2(t, addr)
	for range 10_000_000 {
		if err := raw.WritePing(false, [8]byte{}); err != nil {
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("the server has not closed the connection")
			}
			return
		}
	}
	t.Error("ten million PINGs were taken, and none of the answers was read")
}

// headerBlock encodes heads of requests.
type headerBlock struct{ out writer }

type writer []byte

func (w *writer) Write(p []byte) (int, error) { *w = append(*w, p...); return len(p), nil }

func (b *headerBlock) encode(path string) []byte {
	b.out = nil
	e := hpack.NewEncoder(&b.out)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path}, {Name: ":authority", Value: "x"},
	} {
		_ = e.WriteField(f)
	}
	return b.out
}
