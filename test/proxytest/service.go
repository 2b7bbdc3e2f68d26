package proxytest

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hacheck/internal/spool"
)

// Overrides is a spool in memory. Overrides of "all" and of services decide. Overrides of instances are only listed.
type Overrides struct {
	mu      sync.Mutex
	entries map[string]spool.Entry // by name
	weights []spool.Weight
}

// NewOverrides returns a spool without overrides.
func NewOverrides() *Overrides { return &Overrides{entries: map[string]spool.Entry{}} }

// Lookup implements health.Overrides.
func (o *Overrides) Lookup(service, _ string, _ uint16, _ bool) spool.View {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range []string{spool.All, service} {
		if e, ok := o.entries[s]; ok {
			return spool.View{Override: &e}
		}
	}
	return spool.View{}
}

// List implements web.Overrides.
func (o *Overrides) List() []spool.Entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := slices.Collect(maps.Values(o.entries))
	slices.SortFunc(list, func(a, b spool.Entry) int { return strings.Compare(a.Key.Name(), b.Key.Name()) })
	return list
}

// Weights implements web.Overrides.
func (o *Overrides) Weights() []spool.Weight {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.weights)
}

// SetWeights sets the weights in force.
func (o *Overrides) SetWeights(list ...spool.Weight) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.weights = list
}

// DirectoryStatus implements web.Overrides.
func (o *Overrides) DirectoryStatus() spool.DirectoryStatus {
	return spool.DirectoryStatus{Directory: "/spool", Inode: 7, Read: true}
}

// Stats implements web.Overrides.
func (o *Overrides) Stats() spool.Stats { return spool.Stats{} }

// Set sets an override.
func (o *Overrides) Set(e spool.Entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.entries[e.Key.Name()] = e
}

// Remove removes an override.
func (o *Overrides) Remove(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.entries, name)
}

// Service is a real HTTP service that records its requests.
type Service struct {
	Port     int
	HTTP     *http.Server
	Requests atomic.Int64
	Hold     chan struct{} // if not nil, each answer waits for two receives from it

	mu   sync.Mutex
	last string
}

// LastRequest returns the request line and the headers of interest of the last request.
func (s *Service) LastRequest() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// NewService starts a service that stops at the end of the test.
func NewService(t testing.TB) *Service {
	t.Helper()
	s := new(Service)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Port = ln.Addr().(*net.TCPAddr).Port
	s.HTTP = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(s.serve)}
	done := make(chan struct{})
	go func() { _ = s.HTTP.Serve(ln); close(done) }()
	t.Cleanup(func() { _ = s.HTTP.Close(); <-done })
	return s
}

// serve answers by the path: /empty, /large, /type and /code/N. Any other answer contains the path.
func (s *Service) serve(w http.ResponseWriter, r *http.Request) {
	s.Requests.Add(1)
	s.mu.Lock()
	s.last = fmt.Sprintf("%s %s Host=%s X-Copy=%q", r.Method, r.RequestURI, r.Host, r.Header["X-Copy"])
	s.mu.Unlock()
	if s.Hold != nil {
		<-s.Hold
		<-s.Hold
	}
	switch r.URL.Path {
	case "/empty":
		return
	case "/large":
		_, _ = io.WriteString(w, strings.Repeat("0123456789", 10_000))
		return
	case "/type":
		w.Header().Set("Content-Type", "text/x-\t\u00e9; charset=latin1")
	}
	var code int
	if _, err := fmt.Sscanf(r.URL.Path, "/code/%d", &code); err == nil {
		w.Header().Set("Location", "/elsewhere")
		w.Header().Set("X-Private", "stays here")
		w.WriteHeader(code)
	}
	if code != 204 && code != 304 {
		_, _ = io.WriteString(w, "body of "+r.RequestURI)
	}
}
