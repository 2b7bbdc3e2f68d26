package conn

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// server accepts one connection and serves it.
func server(t *testing.T, serve func(c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		serve(c)
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

func dial(ctx context.Context, t *testing.T, addr string) *Conn {
	t.Helper()
	c, err := Dial(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A connection to a port of the ephemeral range can connect to itself when nothing listens there. By chance this
// happens once in some ten thousand connections.
func TestConnectedToItself(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr)
	other, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	if isSelfConnection(other) {
		t.Error("a connection to a server counts as one to itself")
	}
	_ = other.Close()
	_ = l.Close()
	itself, err := (&net.Dialer{LocalAddr: at}).Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer itself.Close()
	if !isSelfConnection(itself) {
		t.Error("a connection to itself counts as one to a server")
	}
}

// TestMaxRead: a server that sends more than a check reads gets no more read.
func TestMaxRead(t *testing.T) {
	addr := server(t, func(c net.Conn) { _, _ = c.Write(make([]byte, MaxRead+1)) })
	n, err := io.Copy(io.Discard, dial(t.Context(), t, addr))
	if n != MaxRead || !errors.Is(err, ErrTooMuch) {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// TestEndOfContext: a read ends with the context, and no deadline that a driver sets brings the connection back.
func TestEndOfContext(t *testing.T) {
	addr := server(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	ctx, cancel := context.WithCancel(t.Context())
	c := dial(ctx, t, addr)
	result := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		result <- err
	}()
	cancel()
	if err := <-result; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the read: %v", err)
	}
	for name, set := range map[string]func(time.Time) error{
		"SetDeadline": c.SetDeadline, "SetReadDeadline": c.SetReadDeadline, "SetWriteDeadline": c.SetWriteDeadline,
	} {
		if err := set(time.Time{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a write after %s: %v", name, err)
		}
	}
}

func TestOnce(t *testing.T) {
	addr := server(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	c := dial(t.Context(), t, addr)
	next := Once(c)
	if got, err := next(); got != net.Conn(c) || err != nil {
		t.Errorf("first: %v, %v", got, err)
	}
	if got, err := next(); got != nil || !errors.Is(err, ErrSecond) {
		t.Errorf("second: %v, %v", got, err)
	}
}

// TestFrames: messages up to the bound pass, whatever the size of the reads; the header of a longer one does not.
func TestFrames(t *testing.T) {
	frame := func(n int, body string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(n))) + body
	}
	size := func(head []byte) int64 { return int64(int32(binary.BigEndian.Uint32(head))) }
	whole := frame(3, "abc") + frame(0, "") + frame(5, "hello")
	for name, c := range map[string]struct {
		sent, want string
		tooLong    bool
	}{
		"messages": {whole, whole, false},
		"cut off":  {whole[:6], whole[:6], false},
		"too long": {whole + frame(16<<20, ""), whole + "\x01\x00\x00", true},
		"negative": {frame(-1, ""), "\xff\xff\xff", true},
	} {
		for _, at := range []int{1, 3, 4096} {
			addr := server(t, func(conn net.Conn) { _, _ = io.WriteString(conn, c.sent) })
			f := Frames(dial(t.Context(), t, addr), 4, size, 5)
			var got []byte
			var err error
			for buf := make([]byte, at); err == nil; {
				var n int
				n, err = f.Read(buf)
				got = append(got, buf[:n]...)
			}
			var frameErr *FrameError
			if errors.As(err, &frameErr) != c.tooLong || !c.tooLong && !errors.Is(err, io.EOF) {
				t.Errorf("%s, reads of %d: %v", name, at, err)
			}
			if want := c.want; !c.tooLong && string(got) != want || len(got) > len(want) {
				t.Errorf("%s, reads of %d: got %q", name, at, got)
			}
		}
	}
}
