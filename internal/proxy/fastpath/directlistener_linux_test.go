package fastpath

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDirectIsUsed: on Linux the listener is a direct one, and owns the port.
func TestDirectIsUsed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	direct := Listen(ln, testOptions())
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

// TestDirectReset: a client that resets its connection after its first bytes were read, as HAProxy does when it is
// killed, has no address any more. Its connection does not reach net/http.
func TestDirectReset(t *testing.T) {
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
	l := &directListener{endpoint: &endpoint{Options: testOptions()}, addr: ln.Addr()}
	if h, ok := l.netConn(fd, []byte("GET /")); ok {
		t.Errorf("handed on: %+v", h)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("the descriptor is still open: %v", err)
	}
}
