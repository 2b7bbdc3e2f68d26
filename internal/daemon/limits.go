package daemon

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"syscall"

	"hacheck/internal/clients"
	"hacheck/internal/config"
)

// setNoFile sets the limit of open files to n, the value of rlimit_nofile. 0 leaves the limit, config.RlimitMax means
// the hard limit. restore sets the limit as it was before; it is never nil.
func setNoFile(n int64) (restore func(), err error) {
	restore = func() {}
	if n == 0 {
		return restore, nil
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return restore, fmt.Errorf("read the limit of open files: %w", err)
	}
	before := limit
	if n == config.RlimitMax {
		limit.Cur = limit.Max
	} else if !setUpTo(&limit.Cur, n, limit.Max) {
		return restore, fmt.Errorf("rlimit_nofile: %d is above the hard limit of %d (ulimit -Hn; LimitNOFILE= under systemd)", n, limit.Max)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return restore, fmt.Errorf("rlimit_nofile: set it to %d: %w", limit.Cur, err)
	}
	restore = func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) } // the process may set what it had
	// Without a free descriptor the daemon could not even read the file that raises the limit again.
	f, err := os.Open(os.DevNull)
	if err != nil {
		restore()
		return func() {}, fmt.Errorf("rlimit_nofile: %d is too low, hacheck has as many files and connections open: %w", limit.Cur, err)
	}
	_ = f.Close()
	return restore, nil
}

// setUpTo sets the field to n unless n is above limit. The fields of Rlimit are signed on some systems.
func setUpTo[T int64 | uint64](field *T, n int64, limit T) bool {
	if T(n) > limit {
		return false
	}
	*field = T(n)
	return true
}

// newConnLimiter returns the limiter of all client connections of this process.
func newConnLimiter(log *slog.Logger) *clients.ConnLimiter {
	limits := clients.ConnLimits{
		OnLimit: func(client netip.Prefix, held int, total bool) {
			if total {
				log.Warn("all clients together hold as many connections as they may: idle ones are closed for new ones; keep strangers out or raise rlimit_nofile", "client", client)
				return
			}
			log.Warn("a client holds as many connections as it may: its idle ones are closed for new ones", "client", client, "connections", held)
		},
	}
	limits.PerClient, limits.Total = connBounds()
	return clients.NewConnLimiter(limits)
}

// connBounds returns the bounds of a ConnLimiter for the limit of open files as it is. One client may hold half of the
// descriptors, all clients three quarters. The rest is for the connections and pipes of checks, the spool directory and
// the log.
func connBounds() (perClient, total int) {
	perClient, total = clients.DefaultConnsPerClient, clients.DefaultConnsTotal
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		perClient = clamp(limit.Cur/2, perClient)
		total = clamp(limit.Cur/4*3, total)
	}
	return perClient, total
}

// clamp returns n, but at least 1 and at most limit. The fields of Rlimit are signed on some systems.
func clamp[T int64 | uint64](n T, limit int) int {
	return int(min(max(n, 1), T(limit)))
}
