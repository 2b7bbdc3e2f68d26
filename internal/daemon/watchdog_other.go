//go:build !linux

package daemon

import (
	"net"
	"time"
)

// The watchdog of systemd exists on Linux only.

func hasPendingConns(net.Listener) bool { return false }

func requestStatus(net.Addr, time.Duration) error { return nil }
