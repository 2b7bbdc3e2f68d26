package fastpath_test

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
	"hacheck/internal/proxy"
	"hacheck/internal/proxy/fastpath"
	"hacheck/internal/spool"
	"hacheck/internal/web"
)

// BenchmarkFastPath measures an answer from memory without the kernel's part: with few and with many cached targets, of
// which a tenth have an override, and with the same head each time, as on the connection of a balancer.
func BenchmarkFastPath(b *testing.B) {
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
			evaluator := health.New(health.Options{
				Overrides: index, Checks: checks, CacheTime: time.Hour, CacheTimeDown: time.Hour,
				CacheMaxEntries: 100_000, CacheMaxBytes: 64 << 20, Timeout: 5 * time.Second, MaxClients: 512, CheckHostsAllowed: []netip.Prefix{}, Log: log,
			})
			pages := web.New(web.Options{Log: log, Balancers: balancer.New(), Overrides: index}, web.Settings{Evaluator: evaluator})
			s := proxy.New(proxy.Options{Log: log, Recorder: pages, Pages: pages}, proxy.Settings{
				Evaluator: evaluator, Checks: checks, CheckHost: "127.0.0.1", HeadersToCopy: []string{"host"},
			})
			conn := fastpath.NewAnswerer(s.NewRequest)
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
				evaluator.Evaluate(&health.Request{Local: true, Target: check.Target{
					Protocol: "http", Service: fmt.Sprintf("service-%06d", i), Host: "127.0.0.1", Port: 8080,
					URI: fmt.Sprintf("/%06d", i), Header: []check.Field{{Name: "Host", Value: "x"}},
				}})
			}
			out := make([]byte, 0, 4096)
			same := []byte("GET /http/service-000001/8080/000001 HTTP/1.1\r\nhost: x\r\nx-haproxy-server-state: UP 2/3; address=127.0.0.1; port=8080; name=be/srv; node=lb1; weight=1/2; scur=13/22; qcur=0\r\n\r\n")
			b.Run("heads=different", func(b *testing.B) {
				at := 0
				b.ReportAllocs()
				for b.Loop() {
					at = (at + 7919) % len(heads)
					if _, _, ok := conn.Answer(out, heads[at], "127.0.0.1", true); !ok {
						b.Fatalf("%q is not answered", heads[at])
					}
				}
			})
			b.Run("heads=first", func(b *testing.B) { // B/op is what a connection remembers, and the 32 bytes of an answer
				b.ReportAllocs()
				for b.Loop() {
					if _, _, ok := fastpath.NewAnswerer(s.NewRequest).Answer(out, same, "127.0.0.1", true); !ok {
						b.Fatalf("%q is not answered", same)
					}
				}
			})
			b.Run("heads=same", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, _, ok := conn.Answer(out, same, "127.0.0.1", true); !ok {
						b.Fatalf("%q is not answered", same)
					}
				}
			})
		})
	}
}
