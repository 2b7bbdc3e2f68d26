package fleet

import (
	"time"

	"golang.org/x/sys/unix"
)

// identity tells two daemons with the same host name apart.
type identity struct {
	Instance string // random, kept in the state directory
	Boot     string // boot id of the kernel
}

// bootTime returns the time since the machine was booted. Unlike Go's monotonic clock it runs while the machine sleeps.
func bootTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return time.Duration(time.Now().UnixNano())
	}
	return time.Duration(t.Nano())
}
