//go:build !linux

package fleet

import "time"

// bootTime returns the wall clock, because the system has no clock that runs while the machine sleeps.
func bootTime() time.Duration { return time.Duration(time.Now().UnixNano()) }
