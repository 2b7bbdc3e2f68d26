package systemd

import (
	"time"

	"golang.org/x/sys/unix"
)

// monotonic is the time since some moment in the past, by the clock of the service manager.
func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // it fails for clocks that do not exist
	return time.Duration(ts.Nano())
}
