package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The request and the answer of sock_diag(7), inet_diag_req_v2 and inet_diag_msg of linux/inet_diag.h. Ports and
// addresses are in network byte order, everything else in that of the machine.
const (
	requestSize = 56
	answerSize  = 72

	sourcePort  = 0  // in inet_diag_sockid
	sourceAddr  = 4  // also there
	peerAddr    = 20 // also there: the other end's address
	requestID   = 8  // where inet_diag_sockid begins in a request
	answerID    = 4  // and in an answer
	established = 1 << 1
)

// answerTimeout bounds the wait for the kernel, which answers at once.
const answerTimeout = 2 * time.Second

// Established returns the established connections whose local port is one of ports, by port, local address and peer. Its
// error is that of the kernel, or of a sandbox that forbids netlink.
func Established(ports []uint16) ([]Connections, error) {
	c := &counter{ports: ports, counts: map[peer]int{}}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err := c.ask(family); err != nil {
			return nil, fmt.Errorf("ask the kernel for connections: %w", err)
		}
	}
	return c.list(), nil
}

// ask counts the connections of an address family.
func (c *counter) ask(family uint8) error {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(s) }()
	wait := unix.NsecToTimeval(int64(answerTimeout))
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Sendto(s, c.request(family), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(s, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return fmt.Errorf("parse the answer: %w", err)
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				return answerError(m.Data)
			case unix.SOCK_DIAG_BY_FAMILY:
				c.addAnswer(m.Data)
			}
		}
	}
}

// request returns the request for all established connections of a family. With one port the kernel selects.
func (c *counter) request(family uint8) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN+requestSize)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	r := b[unix.NLMSG_HDRLEN:]
	r[0], r[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(r[4:], established)
	if len(c.ports) == 1 {
		binary.BigEndian.PutUint16(r[requestID+sourcePort:], c.ports[0])
	}
	return b
}

// answerError returns the error of an NLMSG_ERROR, whose data begins with a negative errno.
func answerError(data []byte) error {
	if len(data) < 4 {
		return errors.New("an error without a number")
	}
	return os.NewSyscallError("sock_diag", syscall.Errno(-int32(binary.NativeEndian.Uint32(data))))
}

// addAnswer counts the connection of one answer.
func (c *counter) addAnswer(data []byte) {
	if len(data) < answerSize {
		return
	}
	id := data[answerID:]
	addr := func(at int) netip.Addr {
		if data[0] == unix.AF_INET6 {
			return netip.AddrFrom16([16]byte(id[at:]))
		}
		return netip.AddrFrom4([4]byte(id[at:]))
	}
	c.add(netip.AddrPortFrom(addr(sourceAddr), binary.BigEndian.Uint16(id[sourcePort:])), addr(peerAddr))
}
