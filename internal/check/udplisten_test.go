package check_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"hacheck/internal/check"
)

// udpSocket binds a socket to address and returns its port.
func udpSocket(t testing.TB, network, address string) uint16 {
	t.Helper()
	conn, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return netip.MustParseAddrPort(conn.LocalAddr().String()).Port()
}

func TestUDPListen(t *testing.T) {
	if runtime.GOOS != "linux" {
		r := build(t, check.Defaults{}, "udp-listen", map[string]any{"port": 514}).Check(t.Context(), check.Target{})
		if r.Code != 500 || r.Reason != check.ReasonConfig || !strings.Contains(string(r.Body), "Linux") {
			t.Errorf("here it answers %d %s %s", r.Code, r.Reason, r.Body)
		}
		return
	}
	for name, c := range map[string]struct {
		network, bound string
		host           string // "" is any
		want           bool
	}{
		"all of IPv4":                 {"udp4", "0.0.0.0:0", "", true},
		"all of IPv6":                 {"udp6", "[::]:0", "", true},
		"all of both":                 {"udp", ":0", "", true},
		"an IPv4 address":             {"udp4", "127.0.0.1:0", "", true},
		"an IPv6 address":             {"udp6", "[::1]:0", "", true},
		"the address":                 {"udp4", "127.0.0.1:0", "127.0.0.1", true},
		"localhost":                   {"udp4", "127.0.0.1:0", "localhost", true},
		"the IPv6 address":            {"udp6", "[::1]:0", "::1", true},
		"all for an address":          {"udp4", "0.0.0.0:0", "127.0.0.1", true},
		"all of IPv6 for an address":  {"udp6", "[::]:0", "::1", true},
		"all of both for IPv4":        {"udp", ":0", "127.0.0.1", true},
		"another address":             {"udp4", "127.0.0.2:0", "127.0.0.1", false},
		"all of IPv4 for IPv6":        {"udp4", "0.0.0.0:0", "::1", false},
		"an IPv4 address for IPv6":    {"udp4", "127.0.0.1:0", "::1", false},
		"an IPv6 address for another": {"udp6", "[::1]:0", "127.0.0.1", false},
	} {
		t.Run(name, func(t *testing.T) {
			port := udpSocket(t, c.network, c.bound)
			options := map[string]any{"port": int(port)}
			if c.host != "" {
				options["host"] = c.host
			}
			r := build(t, check.Defaults{}, "udp-listen", options).Check(t.Context(), check.Target{})
			if c.want != (r.Code == 200) || !c.want && (r.Code != 503 || r.Reason != check.ReasonRefused || r.Err == nil) {
				t.Errorf("%d %s %s", r.Code, r.Reason, r.Body)
			}
			if got, err := check.UDPListening(port); !got || err != nil {
				t.Errorf("UDPListening: %t, %v", got, err)
			}
		})
	}
}

// A connected socket is a client's and does not count.
func TestUDPListenIgnoresClients(t *testing.T) {
	if runtime.GOOS != "linux" {
		return
	}
	server := udpSocket(t, "udp4", "127.0.0.1:0")
	client, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(server)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	port := netip.MustParseAddrPort(client.LocalAddr().String()).Port()
	if got, err := check.UDPListening(port); got || err != nil {
		t.Errorf("a connected socket counts as a listener: %t, %v", got, err)
	}
	_ = client.Close()
	gone := udpSocketGone(t)
	if got, err := check.UDPListening(gone); got || err != nil {
		t.Errorf("after the end of the socket: %t, %v", got, err)
	}
}

// udpSocketGone returns a port to which nothing is bound any more.
func udpSocketGone(t testing.TB) uint16 {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return netip.MustParseAddrPort(conn.LocalAddr().String()).Port()
}

func TestUDPListenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := build(t, check.Defaults{}, "udp-listen", map[string]any{"port": 514}).Check(ctx, check.Target{})
	if r.Reason != check.ReasonCancelled || r.Code != 503 {
		t.Errorf("%d %s %s", r.Code, r.Reason, r.Body)
	}
}

// littleEndian reports the byte order of this machine, in which the kernel writes addresses.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// cutText returns at most the first 200 bytes of s, for an error message.
func cutText(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

// As Linux 6.1 writes them on a little-endian machine.
const (
	udpTable = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops            \n" +
		"  303: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 16512 2 0000000000000000 0         \n" +
		"  318: 0F02000A:0044 0202000A:0043 01 00000000:00000000 00:00000000 00000000   100        0 15877 2 0000000000000000 0         \n" +
		"  764: 00000000:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 19922 2 0000000000000000 0         \n"
	udp6Table = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n" +
		"  303: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 26263 2 0000000000000000 0\n" +
		"  452: 000080FE00000000FF005450B6AD1DFE:0222 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 26263 2 0000000000000000 0\n"
)

func TestUDPTable(t *testing.T) {
	for table, want := range map[string]string{
		udpTable:  "127.0.0.53:53 0.0.0.0:514",
		udp6Table: "[::1]:53 [fe80::5054:ff:fe1d:adb6]:546",
		"":        "",
		"sl\n":    "",
		"sl\n\n":  "",
		// Text in another format is an error, not an empty table.
		"sl\n 1: 0100007F:0035\n":                      "error",
		"sl\n 1: 0100007F 0 07 x\n":                    "error",
		"sl\n 1: 0100007G:0035 0 07 07\n":              "error",
		"sl\n 1: 0100007F:00353 0 07 07\n":             "error",
		"sl\n 1: 0100007F:003G 0 07 07\n":              "error",
		"sl\n 1: 0100007F00:0035 0 07 07\n":            "error",
		"sl\n" + strings.Repeat(" ", 2<<10):            "error",
		"sl\n" + strings.Repeat(udpTable[132:], 1<<17): "error",
	} {
		if !littleEndian && want != "error" {
			continue // the kernel of this machine writes another text
		}
		var seen []string
		_, err := check.FindUDP(strings.NewReader(table), func(local netip.AddrPort) bool {
			seen = append(seen, local.String())
			return false
		})
		got := strings.Join(seen, " ")
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%.200q: got %s (%v), want %s", table, cutText(got), err, want)
		}
	}
}

func FuzzUDPTable(f *testing.F) {
	f.Add(udpTable)
	f.Add(udp6Table)
	f.Fuzz(func(t *testing.T, table string) {
		rows := 0
		_, err := check.FindUDP(strings.NewReader(table), func(local netip.AddrPort) bool {
			rows++
			if !local.Addr().IsValid() {
				t.Errorf("%q has a socket without an address", table)
			}
			return false
		})
		if err == nil && rows > strings.Count(table, "\n") {
			t.Errorf("%d sockets in %q", rows, table)
		}
	})
}

// BenchmarkUDPListening measures what a beacon does each second.
func BenchmarkUDPListening(b *testing.B) {
	port := udpSocketGone(b)
	for b.Loop() {
		if _, err := check.UDPListening(port); err != nil {
			b.Fatal(err)
		}
	}
}
