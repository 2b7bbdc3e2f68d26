//go:build !linux

package systemd

import (
	"errors"
	"time"
)

// There is no systemd but on Linux.

func monotonic() time.Duration { return 0 }

func sendTo(string, []byte) error { return errors.ErrUnsupported }
