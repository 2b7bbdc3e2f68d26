package check

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// connectNow is a net.Dialer's ControlContext that connects before the dialer does. To an address of this
// machine, which is where nearly all checks go, the connection is there when the call returns, although the
// kernel says "in progress"; the dialer's own call then finds it so, and neither sets a timer nor sleeps and
// is woken for it. To any other machine its call finds the connection under way and waits for it as always.
func connectNow(_ context.Context, _, address string, c syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || to.Addr().Zone() != "" {
		return nil //nolint:nilerr // the dialer knows what to do with it
	}
	var sa unix.Sockaddr
	if ip := to.Addr(); ip.Is4() {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: ip.As4()}
	} else {
		sa = &unix.SockaddrInet6{Port: int(to.Port()), Addr: ip.As16()}
	}
	if cerr := c.Control(func(fd uintptr) { err = unix.Connect(int(fd), sa) }); cerr != nil {
		return cerr
	}
	switch {
	case err == nil, errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.EALREADY), errors.Is(err, unix.EINTR):
		return nil
	}
	return os.NewSyscallError("connect", err) // the kernel tells it only once
}
