package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/check"
	"hacheck/internal/health"
	"hacheck/internal/spool"
)

// BenchmarkShortcut is what an answer from memory costs beside the kernel's part, with few targets cached and
// with many, and as many services with an override as a tenth of them.
func BenchmarkShortcut(b *testing.B) {
	for _, n := range []int{10, 100_000} {
		b.Run(fmt.Sprintf("targets=%d", n), func(b *testing.B) {
			log := slog.New(slog.DiscardHandler)
			dir, err := spool.OpenDir(filepath.Join(b.TempDir(), "spool"))
			if err != nil {
				b.Fatal(err)
			}
			for i := range n / 10 {
				if err := dir.Write(spool.Entry{Key: spool.Key{Service: fmt.Sprintf("down-%d", i)}, State: spool.Down, Reason: "bench"}); err != nil {
					b.Fatal(err)
				}
			}
			index, err := spool.OpenIndex(dir, spool.IndexOptions{Log: log})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = index.Close() })
			checks := check.Set{"http": {Name: "http", URI: true, Check: func(context.Context, check.Target) check.Result {
				return check.Result{Code: 200, Body: []byte("OK"), ContentType: "text/plain; charset=utf-8"}
			}}}
			judge := health.New(health.Options{
				Overrides: index, Checks: checks, CacheTime: time.Hour, CacheTimeDown: time.Hour,
				CacheMaxEntries: 100_000, CacheMaxBytes: 64 << 20, Timeout: 5 * time.Second, MaxClients: 512, Allowed: []netip.Prefix{}, Log: log,
			})
			s := New(Options{Log: log, Balancers: balancer.New()}, Settings{Evaluator: judge, Checks: checks, CheckHost: "127.0.0.1", HeadersToCopy: []string{"host"}})
			heads := make([][]byte, 110_000) // as many in either case: their own place in memory is not what is measured
			for i := range heads {
				k := i / 11
				path := fmt.Sprintf("/http/service-%06d/8080/%06d", (k*10+i%11)%n, (k*10+i%11)%n)
				if i%11 == 10 {
					path = fmt.Sprintf("/http/down-%d/8080/%06d", k%max(n/10, 1), k)
				}
				heads[i] = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: x\r\nX-Number: %07d\r\n\r\n", path, i)
			}
			for i := range n {
				judge.Evaluate(&health.Request{Local: true, Target: check.Target{
					Protocol: "http", Service: fmt.Sprintf("service-%06d", i), Host: "127.0.0.1", Port: 8080,
					URI: fmt.Sprintf("/%06d", i), Header: []check.Field{{Name: "Host", Value: "x"}},
				}})
			}
			out := make([]byte, 0, 4096)
			at := 0
			b.ReportAllocs()
			for b.Loop() {
				at = (at + 7919) % len(heads)
				if _, _, ok := s.shortcut(out, heads[at], "127.0.0.1", false); !ok {
					b.Fatalf("%q is not answered", heads[at])
				}
			}
		})
	}
}
