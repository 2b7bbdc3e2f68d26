package fastpath_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hacheck/test/proxytest"
)

// TestDirectHandsOn: heads in pieces, silent connections and large heads come to net/http complete.
func TestDirectHandsOn(t *testing.T) {
	d := proxytest.Start(t, slog.LevelInfo)
	for name, pieces := range map[string][]string{
		"in two pieces":        {"GET /spool/web/0 HT", "TP/1.0\r\n\r\n"},
		"cut in the line end":  {"GET /spool/web/0 HTTP/1.0\r", "\n\r", "\n"},
		"silent at first":      {"", "GET /spool/web/0 HTTP/1.0\r\n\r\n"},
		"larger than a buffer": {"GET /spool/web/0 HTTP/1.0\r\nA: " + string(make4k('a')) + "\r\n\r\n"},
		"empty lines first":    {"\r\n\r\n", "GET /spool/web/0 HTTP/1.1\r\nConnection: close\r\n\r\n"},
	} {
		c, err := net.Dial("tcp", d.Addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		for _, p := range pieces {
			// Each piece is a segment of its own; TCP_NODELAY is Go's default.
			if _, err := io.WriteString(c, p); err != nil {
				t.Fatal(err)
			}
			<-time.After(20 * time.Millisecond)
		}
		if r := proxytest.ReadReply(t, bufio.NewReader(c), "GET"); r.Code != 200 {
			t.Errorf("%s: %+v", name, r)
		}
		_ = c.Close()
	}
}

func make4k(c byte) []byte {
	b := make([]byte, 6<<10)
	for i := range b {
		b[i] = c
	}
	return b
}

// TestDirectUnderFire asks from many sides, by both ways, while the listener is closed in the middle: every
// answer is whole, and no descriptor is left.
func TestDirectUnderFire(t *testing.T) {
	before := descriptors(t)
	func() {
		d := proxytest.Start(t, slog.LevelInfo)
		var answers, torn atomic.Int64
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					c, err := net.Dial("tcp", d.Addr)
					if err != nil {
						continue
					}
					_ = c.SetDeadline(time.Now().Add(10 * time.Second))
					if i%2 == 0 {
						fmt.Fprint(c, "GET /spool/web/0 HTTP/1.0\r\n\r\n")
					} else {
						fmt.Fprint(c, "GET /status HTTP/1.0\r\n\r\n")
					}
					b, err := io.ReadAll(c)
					_ = c.Close()
					switch {
					case len(b) == 0: // the listener was closed before it was accepted
					case err != nil || len(b) < 50 || string(b[:15]) != "HTTP/1.0 200 OK":
						torn.Add(1)
					default:
						answers.Add(1)
					}
				}
			})
		}
		for end := time.Now().Add(10 * time.Second); answers.Load() < 2000 && time.Now().Before(end); {
			<-time.After(time.Millisecond)
		}
		_ = d.HTTP.Close()
		close(stop)
		wg.Wait()
		if answers.Load() < 2000 || torn.Load() > 0 {
			t.Errorf("%d answers, %d torn; want 2000 and none", answers.Load(), torn.Load())
		}
		_ = d.Service.HTTP.Close()
	}()
	for end := time.Now().Add(10 * time.Second); ; {
		n := descriptors(t)
		if n <= before+2 { // the poller and the like, opened once
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d descriptors, %d before", n, before)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
