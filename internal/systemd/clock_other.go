//go:build !linux

package systemd

import "time"

// monotonic is of use under systemd only, which is on Linux only.
func monotonic() time.Duration { return 0 }
