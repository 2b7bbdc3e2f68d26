package main

import (
	"fmt"
	"syscall"

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

// peerConns is how many connections one caller may hold: half of the descriptors there are, and no more than
// the door's own bound.
func peerConns() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	const most = 4096
	return int(min(max(limit.Cur/2, 1), most))
}
