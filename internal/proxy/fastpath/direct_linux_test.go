package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDirectIsUsed: what package net accepts has two descriptors' worth of preparations; here none of the
// answers may come by net/http (TestShortcutIsTaken counts), and the listener is the direct one.
func TestDirectIsUsed(t *testing.T) {
	d := newDoor(t, slog.LevelInfo)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	direct := d.Listener(ln)
	if _, ok := direct.(*directListener); !ok {
		t.Fatalf("%T", direct)
	}
	if direct.Addr().String() != ln.Addr().String() {
		t.Errorf("address %v, want %v", direct.Addr(), ln.Addr())
	}
	if err := direct.Close(); err != nil {
		t.Error(err)
	}
	if _, err := direct.Accept(); err == nil {
		t.Error("accepts after Close")
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("the port is still open")
	}
}

// TestDirectHandsOn: heads in pieces, silent connections and large heads come to net/http complete.
func TestDirectHandsOn(t *testing.T) {
	d := newDoor(t, slog.LevelInfo)
	for name, pieces := range map[string][]string{
		"in two pieces":        {"GET /spool/web/0 HT", "TP/1.0\r\n\r\n"},
		"cut in the line end":  {"GET /spool/web/0 HTTP/1.0\r", "\n\r", "\n"},
		"silent at first":      {"", "GET /spool/web/0 HTTP/1.0\r\n\r\n"},
		"larger than a buffer": {"GET /spool/web/0 HTTP/1.0\r\nA: " + string(make4k('a')) + "\r\n\r\n"},
		"empty lines first":    {"\r\n\r\n", "GET /spool/web/0 HTTP/1.1\r\nConnection: close\r\n\r\n"},
	} {
		c, err := net.Dial("tcp", d.addr)
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
		if r := readReply(t, bufio.NewReader(c), "GET"); r.Code != 200 {
			t.Errorf("%s: %+v", name, r)
		}
		_ = c.Close()
	}
}

// TestDirectReset: a client that resets its connection after its first bytes were read, as HAProxy does when it
// is killed, is nobody any more by the time net/http would have it.
func TestDirectReset(t *testing.T) {
	d := newDoor(t, slog.LevelInfo)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, _, err := unix.Accept4(int(f.Fd()), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) // Fd makes it blocking
	if err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
	for start := time.Now(); ; {
		if _, err := unix.Getpeername(fd); errors.Is(err, unix.ENOTCONN) {
			break
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal("the reset has not come")
		}
	}
	l := &directListener{s: d.Server, addr: ln.Addr()}
	if h, ok := l.toNet(fd, []byte("GET /")); ok {
		t.Errorf("handed on: %+v", h)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("the descriptor is still open: %v", err)
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
		d := newDoor(t, slog.LevelInfo)
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
					c, err := net.Dial("tcp", d.addr)
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
		_ = d.http.Close()
		close(stop)
		wg.Wait()
		if answers.Load() < 2000 || torn.Load() > 0 {
			t.Errorf("%d answers, %d torn; want 2000 and none", answers.Load(), torn.Load())
		}
		_ = d.service.http.Close()
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
