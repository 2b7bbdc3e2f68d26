package daemon

import (
	"fmt"
	"log/slog"
	"net/netip"
	"syscall"

	"hacheck/internal/clients"
	"hacheck/internal/config"
)

// setNoFile sets the limit of open files to n, the value of rlimit_nofile. 0 leaves the limit, config.RlimitMax means
// the hard limit.
func setNoFile(n int64) error {
	if n == 0 {
		return nil
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if n == config.RlimitMax {
		limit.Cur = limit.Max
	} else if !setUpTo(&limit.Cur, n, limit.Max) {
		return fmt.Errorf("rlimit_nofile: %d is above the hard limit of %d (ulimit -Hn; LimitNOFILE= under systemd)", n, limit.Max)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("rlimit_nofile: set it to %d: %w", limit.Cur, err)
	}
	return nil
}

// setUpTo sets the field to n unless n is above limit. The fields of Rlimit are signed on some systems.
func setUpTo[T int64 | uint64](field *T, n int64, limit T) bool {
	if T(n) > limit {
		return false
	}
	*field = T(n)
	return true
}

// newConnLimiter returns the limiter of all client connections of this process. One client may hold half of the
// descriptors, all clients three quarters. The rest is for the connections and pipes of checks, the spool directory and
// the log.
func newConnLimiter(log *slog.Logger) *clients.ConnLimiter {
	limits := clients.ConnLimits{
		PerClient: clients.DefaultConnsPerClient, Total: clients.DefaultConnsTotal,
		OnLimit: func(client netip.Prefix, held int, total bool) {
			if total {
				log.Warn("all clients together hold as many connections as they may: idle ones are closed for new ones; keep strangers out or raise rlimit_nofile", "client", client)
				return
			}
			log.Warn("a client holds as many connections as it may: its idle ones are closed for new ones", "client", client, "connections", held)
		},
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		limits.PerClient = clamp(limit.Cur/2, limits.PerClient)
		limits.Total = clamp(limit.Cur/4*3, limits.Total)
	}
	return clients.NewConnLimiter(limits)
}

// clamp returns n, but at least 1 and at most limit. The fields of Rlimit are signed on some systems.
func clamp[T int64 | uint64](n T, limit int) int {
	return int(min(max(n, 1), T(limit)))
}
