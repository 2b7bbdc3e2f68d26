//go:build !linux

package systemd

import (
	"errors"
	"time"
)

// systemd exists on Linux only.

func monotonic() time.Duration { return 0 }

func sendTo(string, []byte) error { return errors.ErrUnsupported }
