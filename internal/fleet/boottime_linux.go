package fleet

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootTime returns the time since the machine was booted. Unlike Go's monotonic clock it runs while the machine sleeps.
func bootTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return time.Duration(time.Now().UnixNano())
	}
	return time.Duration(t.Nano())
}
