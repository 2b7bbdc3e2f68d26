package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hasPendingConns reports whether connections wait to be accepted. It returns true if it cannot find out.
func hasPendingConns(ln net.Listener) bool {
	socket, ok := ln.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	queued := true
	err = raw.Control(func(fd uintptr) {
		// For a listening socket this field is the length of the accept queue.
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			queued = info.Unacked > 0
		}
	})
	return err != nil || queued
}

// requestStatus requests /status at addr and returns an error unless an HTTP answer comes. Each step may take limit. It
// does not use package net, because the poller of package net may be what hangs.
func requestStatus(addr net.Addr, limit time.Duration) error {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return nil
	}
	family, at := selfAddr(tcp)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }() // the answer is complete or an error
	tv := unix.NsecToTimeval(int64(limit))
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} { // SO_SNDTIMEO limits connect too
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &tv); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Connect(fd, at); err != nil {
		return os.NewSyscallError("connect", err)
	}
	if _, err := unix.Write(fd, []byte("GET /status HTTP/1.0\r\n\r\n")); err != nil {
		return os.NewSyscallError("write", err)
	}
	var answer [1 << 10]byte
	n, err := unix.Read(fd, answer[:])
	switch {
	case errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("no answer after %v", limit)
	case err != nil:
		return os.NewSyscallError("read", err)
	case !strings.HasPrefix(string(answer[:n]), "HTTP/1."):
		return fmt.Errorf("it answered %q", answer[:n])
	}
	return nil
}

// selfAddr returns the address to connect to for a listener at a. The loopback address replaces an unspecified one.
func selfAddr(a *net.TCPAddr) (family int, at unix.Sockaddr) {
	if ip := a.IP.To4(); ip != nil {
		four := &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip)}
		if a.IP.IsUnspecified() {
			four.Addr = [4]byte{127, 0, 0, 1}
		}
		return unix.AF_INET, four
	}
	six := &unix.SockaddrInet6{Port: a.Port}
	copy(six.Addr[:], a.IP.To16())
	if len(a.IP) == 0 || a.IP.IsUnspecified() {
		six.Addr = [16]byte(net.IPv6loopback)
	}
	return unix.AF_INET6, six
}
