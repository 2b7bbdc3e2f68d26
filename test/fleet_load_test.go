package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// steadyLoad sends requests at a steady rate and counts the lost ones.
type steadyLoad struct {
	t              testing.TB
	answered, lost atomic.Int64
	first          atomic.Pointer[string] // the first loss
	cancel         context.CancelFunc
	clients        sync.WaitGroup
}

// startLoad sends about 40 requests a second to each address, half of them on keep-alive connections.
func startLoad(t testing.TB, addrs []string) *steadyLoad {
	l := &steadyLoad{t: t}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	l.cancel = cancel
	for _, addr := range addrs {
		for i := range 4 {
			l.clients.Go(func() {
				client := &http.Client{Timeout: waitLimit, Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
				defer client.CloseIdleConnections()
				tick := time.NewTicker(100 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-ctx.Done():
						return
					case <-tick.C:
					}
					if err := requestOK(client, "http://"+addr+"/"); err != nil {
						l.lost.Add(1)
						text := time.Now().Format(time.StampMilli) + ": " + err.Error()
						l.first.CompareAndSwap(nil, &text)
					} else {
						l.answered.Add(1)
					}
				}
			})
		}
	}
	t.Cleanup(l.end)
	return l
}

// requestOK sends a request. It returns an error unless the answer is complete and 200.
func requestOK(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("answered %s: %s", resp.Status, body)
	}
	return err
}

func (l *steadyLoad) end() {
	l.cancel()
	l.clients.Wait()
}

// expectNoLoss ends the load and fails the test if a request was lost.
func (l *steadyLoad) expectNoLoss() {
	l.t.Helper()
	l.end()
	l.t.Logf("%d requests answered, %d lost", l.answered.Load(), l.lost.Load())
	if l.answered.Load() == 0 {
		l.t.Error("there was no load")
	}
	if first := l.first.Load(); first != nil {
		l.t.Errorf("%d requests were lost, the first at %s", l.lost.Load(), *first)
	}
}

// relay forwards connections to an address and can be cut.
type relay struct {
	t        testing.TB
	addr, to string

	mu    sync.Mutex
	ln    net.Listener // nil while it is cut
	conns map[net.Conn]bool
	ended sync.WaitGroup
}

// startRelay starts a relay on a free port of 127.0.0.1.
func startRelay(t testing.TB, to string) *relay {
	t.Helper()
	r := &relay{t: t, addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t))), to: to, conns: map[net.Conn]bool{}}
	r.restore()
	t.Cleanup(func() {
		r.cut()
		r.ended.Wait()
	})
	return r
}

// restore accepts connections again.
func (r *relay) restore() {
	r.t.Helper()
	ln, err := net.Listen("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.ln = ln
	r.mu.Unlock()
	r.ended.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			r.ended.Go(func() { r.forward(conn) })
		}
	})
}

// cut closes all connections and refuses new ones.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ln != nil {
		r.ln.Close()
		r.ln = nil
	}
	for c := range r.conns {
		c.Close()
	}
}

func (r *relay) forward(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer server.Close()
	r.mu.Lock()
	if r.ln == nil {
		r.mu.Unlock()
		return
	}
	r.conns[client], r.conns[server] = true, true
	r.mu.Unlock()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			client.Close()
			server.Close()
		})
	}
	both.Wait()
	r.mu.Lock()
	delete(r.conns, client)
	delete(r.conns, server)
	r.mu.Unlock()
}
