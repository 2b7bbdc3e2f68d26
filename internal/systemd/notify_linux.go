package systemd

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// monotonic returns the time of CLOCK_MONOTONIC, which the manager compares with its own.
func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // it fails for clocks that do not exist
	return time.Duration(ts.Nano())
}

// sendTo sends one datagram to a Unix socket, by its path or by its abstract name after "@". Package net would need
// three times as many system calls, which are most of what an idle daemon with a watchdog does.
func sendTo(path string, message []byte) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }() // the datagram is sent, or an error is returned already
	limit := unix.NsecToTimeval(int64(notifyTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	for {
		if err := unix.Sendto(fd, message, unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: path}); err != unix.EINTR {
			return os.NewSyscallError("sendto", err)
		}
	}
}
