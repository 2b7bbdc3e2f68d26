//go:build unix

package agent

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/internal/spool"
)

// askFromAnyAddress asks as HAProxy does, from one of many addresses: one has ports for no more than 28,000 connections
// a minute. The error says what is wrong with the answer.
func askFromAnyAddress(addr string) error {
	from := net.IPv4(127, 0, 0, byte(2+rand.IntN(200)))
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}).Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(soon))
	if _, err := io.WriteString(c, "web:8080\n"); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if want := "ready down #kernel upgrade\n"; err == nil && string(got) != want {
		err = fmt.Errorf("answered %q, want %q", got, want)
	}
	return err
}

// newSpoolAgent returns an agent over a real spool directory.
func newSpoolAgent(tb testing.TB) *testAgent {
	tb.Helper()
	d, err := spool.OpenDir(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	if err := d.Write(spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down, Reason: "kernel upgrade"}); err != nil {
		tb.Fatal(err)
	}
	x, err := spool.OpenIndex(d, spool.IndexOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = x.Close() })
	h := newTestAgentWithTimeout(tb, "web", readTimeout)
	h.agent.o.Overrides, h.agent.o.OnAnswer = x, nil
	return h
}

// BenchmarkAgent measures answers, each on a connection of its own, the client's work included.
func BenchmarkAgent(b *testing.B) {
	h := newSpoolAgent(b)
	benchmark(b, h)
}

// BenchmarkAgentBesideBadClient is the same beside a client that opens connections as fast as it can. It
// takes a part of the processors, but no more.
func BenchmarkAgentBesideBadClient(b *testing.B) {
	h := newSpoolAgent(b)
	stop := startBadClient(b, h.addr)
	benchmark(b, h)
	b.ReportMetric(float64(stop())/b.Elapsed().Seconds(), "bad/s")
}

func benchmark(b *testing.B, h *testAgent) {
	var slowest atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			began := time.Now()
			if err := askFromAnyAddress(h.addr); err != nil {
				b.Error(err)
				return
			}
			for took := int64(time.Since(began)); ; {
				if old := slowest.Load(); took <= old || slowest.CompareAndSwap(old, took) {
					break
				}
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
	b.ReportMetric(float64(slowest.Load())/1e6, "slowest-ms")
}

// BenchmarkCheckFinished is what each check that has run pays while nothing comes back.
func BenchmarkCheckFinished(b *testing.B) {
	p, t := new(PassedChecks), &check.Target{Service: "web", Host: "127.0.0.1", Port: 80}
	b.ReportAllocs()
	for b.Loop() {
		p.CheckFinished(t, check.Result{Code: 200}, time.Time{})
	}
}
