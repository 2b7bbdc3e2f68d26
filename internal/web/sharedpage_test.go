package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hacheck/internal/balancer"
)

func TestSharedPage(t *testing.T) {
	t.Parallel()
	const takes = 100 * time.Millisecond
	for _, c := range []struct {
		name  string
		cheap bool
		takes time.Duration
		most  int // documents in 10 s
	}{
		{"once a second", false, takes, 11},
		{"once a second if it takes no time", false, 0, 11},
		{"not oftener than it is made", false, 3 * time.Second, 5},
		{"cheap", true, time.Millisecond, 501},
		{"cheap that is not", true, takes, 11},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				made := 0
				p := newSharedPage(newTestServer(), "/page", newChanMutex(), func() (time.Time, error) {
					made++
					begun := time.Now()
					time.Sleep(c.takes)
					return begun, nil
				})
				p.shortInterval = c.cheap
				end := time.Now().Add(10 * time.Second)
				var all sync.WaitGroup
				for i := range 5 {
					all.Go(func() {
						time.Sleep(time.Duration(i) * 30 * time.Millisecond)
						for time.Now().Before(end) {
							asked := time.Now()
							begun, err := p.get(t.Context())
							if err != nil || begun.Before(asked) {
								t.Errorf("%v; got a document of %v before the question", err, asked.Sub(begun))
							}
							time.Sleep(time.Millisecond)
						}
					})
				}
				all.Wait()
				if made < c.most/2 || made > c.most+1 {
					t.Errorf("made %d times in 10s, want about %d", made, c.most)
				}
			})
		})
	}
}

func TestSharedPagesAreMadeOneAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turn := newChanMutex()
		var making sync.Mutex
		build := func() (int, error) {
			if !making.TryLock() {
				t.Error("two pages are made at once")
				return 0, nil
			}
			defer making.Unlock()
			time.Sleep(time.Second)
			return 0, nil
		}
		a, b := newSharedPage(newTestServer(), "/page", turn, build), newSharedPage(newTestServer(), "/page", turn, build)
		var all sync.WaitGroup
		for _, p := range []*sharedPage[int]{a, b, a, b} {
			all.Go(func() { _, _ = p.get(t.Context()) })
		}
		all.Wait()
	})
}

// newTestServer returns what a sharedPage needs of a Server.
func newTestServer() *Server { return &Server{log: slog.New(slog.DiscardHandler)} }

func TestSharedPageOfAClientThatHasGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newSharedPage(newTestServer(), "/page", newChanMutex(), func() (int, error) { return 0, nil })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := p.get(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want canceled", err)
		}
		time.Sleep(pageInterval)
	})
}

// TestPanicInAPage: the client gets an answer without the panic, the log gets the panic with its stack, and the next
// request gets the page.
func TestPanicInAPage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		fail := true
		metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if fail {
				panic("secret broken pipe")
			}
			_, _ = io.WriteString(w, "page")
		})
		s := New(Options{Log: slog.New(slog.NewTextHandler(&log, nil)), Balancers: balancer.New(), Metrics: metrics}, Settings{})
		get := func() (int, string) {
			r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			r.RemoteAddr = "127.0.0.1:4711"
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			return w.Code, w.Body.String()
		}
		if code, body := get(); code != 500 || body != "Cannot write this page: internal error; the log says where" {
			t.Errorf("%d %q", code, body)
		}
		for _, want := range []string{"level=ERROR", "page could not be made; this is a bug in hacheck", "page=/metrics", "secret broken pipe", "sharedpage_test.go"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log has no %q: %s", want, log.String())
			}
		}
		fail = false
		if code, body := get(); code != 200 || body != "page" {
			t.Errorf("after a panic: %d %q", code, body)
		}
		time.Sleep(pageInterval)
	})
}

func TestReaders(t *testing.T) {
	t.Parallel()
	var r pageLimiter
	client := func(i int) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32) }
	enter := func(from netip.Prefix, times int) (entered int) {
		for range times {
			if r.acquire(from) {
				entered++
			}
		}
		return entered
	}
	if n := enter(client(1), 100); n != maxReadersPerClient {
		t.Errorf("one client reads %d pages at once, want %d", n, maxReadersPerClient)
	}
	all := maxReadersPerClient
	for i := 2; i < 20; i++ {
		all += enter(client(i), 100)
	}
	if all != maxReaders-reservedReaders {
		t.Errorf("%d clients of other machines read at once, want %d", all, maxReaders-reservedReaders)
	}
	if n := enter(netip.MustParsePrefix("127.0.0.1/32"), 100); n != reservedReaders {
		t.Errorf("this machine has %d places left, want %d", n, reservedReaders)
	}
	r.release(client(1))
	if n := enter(client(1), 2); n != 0 {
		t.Errorf("%d, want none: the places of this machine are not for others", n)
	}
	for range maxReadersPerClient - 1 {
		r.release(client(1))
	}
	if n := len(r.byClient); n != 3+1-1 {
		t.Errorf("%d clients are remembered, want 3", n)
	}
}
