package check

import (
	"context"
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crowded returns a listening socket that nobody accepts from and in which there is no more room, and its
// address. A further connection is under way until somebody accepts.
func crowded(t *testing.T) (fd int, addr string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(sa.(*unix.SockaddrInet4).Port))
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		c, err := dialTCP(ctx, addr)
		cancel()
		if err != nil {
			return fd, addr
		}
		t.Cleanup(func() { _ = c.Close() })
	}
}

// TestConnectNow: what the first call to the kernel does not settle, the dialer waits for, as long as it may.
func TestConnectNow(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		c, err := dialTCP(t.Context(), ln.Addr().String())
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		if got := c.RemoteAddr().String(); got != ln.Addr().String() {
			t.Errorf("connected to %s, want %s", got, ln.Addr())
		}
		_ = c.Close()
		_ = ln.Close()
		if _, err := dialTCP(t.Context(), ln.Addr().String()); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("nobody listens on %s: %v", at, err)
		}
	}

	fd, addr := crowded(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if c, err := dialTCP(ctx, addr); err == nil {
		_ = c.Close()
		t.Error("connected to who has no room")
	} else if timeout := net.Error(nil); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("it did not wait: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		c, err := dialTCP(t.Context(), addr)
		if err == nil {
			_ = c.Close()
		}
		got <- err
	}()
	for {
		select {
		case err := <-got:
			if err != nil {
				t.Errorf("once there is room: %v", err)
			}
			return
		case <-time.After(10 * time.Millisecond):
			_ = unix.SetNonblock(fd, true)
			if conn, _, err := unix.Accept(fd); err == nil {
				_ = unix.Close(conn)
			}
		}
	}
}
