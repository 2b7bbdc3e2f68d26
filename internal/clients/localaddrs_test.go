package clients

import (
	"net/netip"
	"testing"
)

func TestLocalAddrs(t *testing.T) {
	t.Parallel()
	var l LocalAddrs
	for addr, local := range map[string]bool{"127.0.0.1": true, "127.8.9.10": true, "::1": true, "192.0.2.1": false, "2001:db8::1": false} {
		if got := l.Contains(netip.MustParseAddr(addr)); got != local {
			t.Errorf("%s: local %v, want %v", addr, got, local)
		}
	}
}

func TestHostOf(t *testing.T) {
	t.Parallel()
	for remote, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[2001:db8::1]:80": "2001:db8::1", "[fe80::1%eth0]:80": "fe80::1%eth0", "@": "@", "": "",
	} {
		if got := HostPart(remote); got != want {
			t.Errorf("%q: %q, want %q", remote, got, want)
		}
	}
}
