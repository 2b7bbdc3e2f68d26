package daemon

import (
	"fmt"
	"log/slog"
	"net/netip"
	"syscall"

	"hacheck/internal/clients"
	"hacheck/internal/config"
)

// setNoFile sets the limit of open files to n as rlimit_nofile means it: 0 leaves it, config.RlimitMax is
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
	} else if !assign(&limit.Cur, n, limit.Max) {
		return fmt.Errorf("rlimit_nofile: %d is above the hard limit of %d (ulimit -Hn; LimitNOFILE= under systemd)", n, limit.Max)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("rlimit_nofile: set it to %d: %w", limit.Cur, err)
	}
	return nil
}

// assign stores n unless it is above most. The fields of Rlimit are signed on some systems.
func assign[T int64 | uint64](field *T, n int64, most T) bool {
	if T(n) > most {
		return false
	}
	*field = T(n)
	return true
}

// newConnLimiter returns the bounds of all connections that clients hold to this process. One client has half of the
// descriptors at most, and all clients three quarters: the rest is for what the answers need (the connections and pipes
// of checks, the spool directory, the log).
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
		limits.PerClient = share(limits.PerClient, limit.Cur/2)
		limits.Total = share(limits.Total, limit.Cur/4*3)
	}
	return clients.NewConnLimiter(limits)
}

// share is n of descriptors, at least one and at most most. The fields of Rlimit are signed on some systems.
func share[T int64 | uint64](most int, n T) int {
	return int(min(max(n, 1), T(most)))
}
