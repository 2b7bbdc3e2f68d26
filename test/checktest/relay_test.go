package checktest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// TestRelay: bytes pass in both directions, except while the relay is frozen, and the end of one side reaches the other.
func TestRelay(t *testing.T) {
	s := Serve(t, func(conn net.Conn) { _, _ = io.Copy(conn, conn) })
	r := NewRelay(t, s.Addr())
	c, err := net.Dial("tcp", net.JoinHostPort(r.Host, fmt.Sprint(r.Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 4)
	exchange := func(wait time.Duration) error {
		_, _ = c.Write([]byte("ping"))
		_ = c.SetReadDeadline(time.Now().Add(wait))
		_, err := io.ReadFull(c, b)
		return err
	}
	if err := exchange(maxDelay); err != nil {
		t.Fatal(err)
	}
	r.Freeze()
	if err := exchange(50 * time.Millisecond); err == nil {
		t.Error("a frozen relay passes bytes")
	}
	r.Thaw()
	_ = c.SetReadDeadline(time.Now().Add(maxDelay))
	if _, err := io.ReadFull(c, b); err != nil {
		t.Errorf("after the thaw: %v", err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if _, err := c.Read(b); !errors.Is(err, io.EOF) {
		t.Errorf("the server's end: %v", err)
	}
	if r.Count() != 1 {
		t.Errorf("counted %d connections", r.Count())
	}
}
