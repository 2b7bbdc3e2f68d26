package checktest

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"

	"hacheck/internal/check"
)

// RunUDP is Run for a protocol over UDP. It does not use Row.Healthy and Row.Wrap: answer returns what a healthy server
// sends back for a datagram, nil for nothing.
func RunUDP(t *testing.T, row Row, answer func(datagram []byte) []byte) {
	t.Run("healthy", func(t *testing.T) {
		row.wantHealthy(t, row.run(t.Context(), t, "127.0.0.1", ServeUDP(t, "127.0.0.1", answer)))
	})
	t.Run("healthy over IPv6", func(t *testing.T) {
		row.wantHealthy(t, row.run(t.Context(), t, "::1", ServeUDP(t, "::1", answer)))
	})
	t.Run("healthy by name", func(t *testing.T) {
		// The server listens on IPv4 only; the name's first address may be IPv6.
		row.wantHealthy(t, row.run(t.Context(), t, "localhost", ServeUDP(t, "127.0.0.1", answer)))
	})
	t.Run("50 at once", func(t *testing.T) {
		port := ServeUDP(t, "127.0.0.1", answer)
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { row.wantHealthy(t, row.runBeside(t.Context(), t, "127.0.0.1", port)) })
		}
		all.Wait()
	})
	t.Run("refused", func(t *testing.T) {
		row.want(t, row.runPromptly(t, "127.0.0.1", freeUDPPort(t)), check.ReasonRefused)
	})
	t.Run("unresolvable", func(t *testing.T) {
		row.want(t, row.runPromptly(t, "no..name", 80), check.ReasonResolve)
	})
	t.Run("cancelled before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		row.want(t, row.run(ctx, t, "127.0.0.1", ServeUDP(t, "127.0.0.1", answer)), check.ReasonCancelled)
	})
	t.Run("silent", func(t *testing.T) {
		port := ServeUDP(t, "127.0.0.1", func([]byte) []byte { return nil })
		ctx, cancel := context.WithTimeout(t.Context(), shortTimeout)
		defer cancel()
		row.want(t, row.run(ctx, t, "127.0.0.1", port), check.ReasonTimeout)
	})
	t.Run("cancelled half way", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		port := ServeUDP(t, "127.0.0.1", func([]byte) []byte { cancel(); return nil })
		row.want(t, row.run(ctx, t, "127.0.0.1", port), check.ReasonCancelled)
	})
	for name, wrong := range map[string]func(datagram []byte) []byte{
		"garbage":              func([]byte) []byte { return []byte("\x00\xffgarbage\x1b[31m \r\n\x00more\r\n\r\n") },
		"empty":                func([]byte) []byte { return []byte{} },
		"64 KB":                func([]byte) []byte { return bytes.Repeat([]byte("a"), 65000) },
		"repeats what it gets": func(datagram []byte) []byte { return datagram },
		"cut off":              func(datagram []byte) []byte { a := answer(datagram); return a[:len(a)-1] },
		"more than the answer": func(datagram []byte) []byte { return append(bytes.Clone(answer(datagram)), 'x') },
	} {
		t.Run(name, func(t *testing.T) {
			row.want(t, row.runPromptly(t, "127.0.0.1", ServeUDP(t, "127.0.0.1", wrong)), check.ReasonFailed)
		})
	}
}

// ServeUDP answers datagrams on a free port of an address of this machine until the end of the test. It sends nothing
// for an answer of nil.
func ServeUDP(t testing.TB, host string, answer func(datagram []byte) []byte) (port uint16) {
	t.Helper()
	conn, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatalf("listen on %s: %v (the tests need IPv4 and IPv6 loopback addresses)", host, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if a := answer(b[:n]); a != nil {
				_, _ = conn.WriteTo(a, from) // the client may have closed
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return netip.MustParseAddrPort(conn.LocalAddr().String()).Port()
}

// freeUDPPort returns a port of 127.0.0.1 that refuses datagrams until the end of the test. A socket that is connected
// elsewhere holds the port, so that no other program gets it.
func freeUDPPort(t testing.TB) uint16 {
	t.Helper()
	conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return netip.MustParseAddrPort(conn.LocalAddr().String()).Port()
}
