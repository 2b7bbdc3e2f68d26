package check

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
)

// udpListenType is the check of udp_healther: a socket of this machine is bound to the port. It sends nothing.
var udpListenType = Type{
	Name: "udp-listen",
	Doc:  "something is bound to this UDP port on this machine; nothing is sent (Linux)",
	Options: []Option{
		{Name: "host", Want: "an IP address or localhost", Doc: "the socket must be bound to this address or to all addresses; without host, to any address"},
		portOption(0),
	},
	build: func(o *optionReader, _ Defaults) (*ConfiguredCheck, error) {
		port := o.port("port", 0)
		var host netip.Addr
		name := "udp-listen:"
		if text := o.text("host", ""); text != "" {
			name += text + ":"
			var err error
			if host, err = netip.ParseAddr(text); text == "localhost" {
				host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
			} else if err != nil {
				o.addValueError("host", text)
			}
		}
		name += strconv.Itoa(int(port))
		return &ConfiguredCheck{
			Name: name,
			Steps: []Step{{Name: name, run: func(x *exchange) Result {
				switch err := x.ctx.Err(); {
				case errors.Is(err, context.Canceled):
					return result(503, ReasonCancelled, err, "Check cancelled (%s)", excerpt(name, 300))
				case err != nil:
					return result(503, ReasonTimeout, err, "No time left (%s)", excerpt(name, 300))
				}
				return checkUDPListen(host, port)
			}}},
		}, nil
	},
}

// checkUDPListen is healthy when a socket is bound to the port at host, or at any address if host is not valid.
func checkUDPListen(host netip.Addr, port uint16) Result {
	where := "UDP port " + strconv.Itoa(int(port))
	if host.IsValid() {
		where += " of " + host.String()
	}
	bound, err := udpBound(host, port)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return result(500, ReasonConfig, err, "udp-listen works on Linux only")
	case err != nil:
		return result(503, ReasonBusy, err, "Cannot see what is bound to %s: %s", where, causeText(err))
	case !bound:
		return result(503, ReasonRefused, errors.New("nothing is bound to "+where), "Nothing is bound to %s", where)
	}
	return Result{Code: 200, Body: []byte("Something is bound to " + where)}
}

// UDPListening reports whether a socket of this machine is bound to a UDP port, on any address of IPv4 or IPv6, and
// receives from any sender. It sees the network namespace of this process only. On systems other than Linux its error
// is errors.ErrUnsupported.
//
// It reads one or two files of /proc, in a millisecond for thousands of sockets, so it may be called every second.
func UDPListening(port uint16) (bool, error) { return udpBound(netip.Addr{}, port) }

const (
	// maxUDPTable is how much of a table of sockets is read, in bytes: some 130,000 sockets.
	maxUDPTable = 16 << 20
	// maxUDPRow is the longest row of a table in bytes. The kernel pads to 127 for IPv4 and writes some 170 for IPv6.
	maxUDPRow = 1 << 10
	// udpUnconnected is the state (TCP_CLOSE) of a socket that receives from any sender. A connected socket, 01, is a
	// client's and has a random port.
	udpUnconnected = "07"
)

var errUDPTable = errors.New("not a table of sockets")

// findUDP reports whether a table in the format of /proc/net/udp and udp6 has an unconnected socket whose local address
// matches.
func findUDP(table io.Reader, match func(local netip.AddrPort) bool) (bool, error) {
	limited := &io.LimitedReader{R: table, N: maxUDPTable}
	r := bufio.NewReaderSize(limited, maxUDPRow)
	for first := true; ; first = false {
		row, err := r.ReadSlice('\n')
		switch {
		case err == io.EOF && limited.N <= 0:
			return false, fmt.Errorf("%w of at most %d bytes", errUDPTable, maxUDPTable)
		case err == io.EOF && len(row) == 0:
			return false, nil
		case errors.Is(err, bufio.ErrBufferFull):
			return false, errUDPTable
		case err != nil && err != io.EOF:
			return false, err
		}
		if first {
			continue // the names of the columns
		}
		// "  348: 0100007F:0202 00000000:0000 07 ...": slot, local address, remote address, state
		fields := bytes.Fields(row)
		if len(fields) == 0 {
			continue
		}
		if len(fields) < 4 {
			return false, errUDPTable
		}
		local, ok := parseSocket(fields[1])
		if !ok {
			return false, errUDPTable
		}
		if string(fields[3]) == udpUnconnected && match(local) {
			return true, nil
		}
	}
}

// parseSocket parses "0100007F:0202": the address in words of 32 bits in the byte order of this machine, and the port.
func parseSocket(text []byte) (netip.AddrPort, bool) {
	address, port, ok := bytes.Cut(text, []byte(":"))
	var raw [16]byte
	if !ok || len(address) != 8 && len(address) != 32 || len(port) != 4 {
		return netip.AddrPort{}, false
	}
	n, err := hex.Decode(raw[:], address)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for word := raw[:n]; len(word) > 0; word = word[4:] {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	number, err := strconv.ParseUint(string(port), 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	addr, _ := netip.AddrFromSlice(raw[:n])
	return netip.AddrPortFrom(addr, uint16(number)), true
}

// receives reports whether a socket bound to local receives what is sent to port at host, or at any address if host is
// not valid. A socket bound to all of IPv6 counts for IPv4 too. It does not receive IPv4 if it has set IPV6_V6ONLY, but
// the tables do not show that.
func receives(local netip.AddrPort, host netip.Addr, port uint16) bool {
	at := local.Addr()
	switch {
	case local.Port() != port:
		return false
	case !host.IsValid(), at.Unmap() == host.Unmap().WithZone(""):
		return true
	}
	return at == netip.IPv6Unspecified() || at.Unmap() == netip.IPv4Unspecified() && host.Unmap().Is4()
}
