package proxy

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"hacheck/internal/spool"
)

// FuzzCheckURL: an accepted URL has a valid service, a port in range and a URI that is a suffix of the input. A refused
// one gets a text.
func FuzzCheckURL(f *testing.F) {
	for _, s := range []string{"web/80/status", "web/80", "web/080/?x", "web/65536/", "a:b/1/", "/1/", "web/80?x", "../1/", "web/8 0/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var u checkURL
		if err := u.parse(s); err != nil {
			if err.code != 404 || err.text == "" {
				t.Fatalf("%q: %+v", s, err)
			}
			return
		}
		service, port, uri := u.service, u.port, u.uri
		if !spool.ValidService(service) || uri != "" && (uri[0] != '/' || !strings.HasSuffix(s, uri)) {
			t.Fatalf("%q: %q %d %q", s, service, port, uri)
		}
		digits := strings.TrimPrefix(s, service+"/")
		digits = digits[:len(digits)-len(strings.TrimLeft(digits, "0123456789"))]
		if n, err := strconv.ParseUint("0"+strings.TrimLeft(digits, "0"), 10, 16); err != nil || uint16(n) != port {
			t.Fatalf("%q: port %d, strconv has %d, %v", s, port, n, err)
		}
	})
}

// FuzzState: whatever the headers hold, the destination is a canonical address, or there is a text.
func FuzzState(f *testing.F) {
	for _, s := range []string{
		"UP 2/3; address=10.0.0.5; port=8080; name=be/web1; node=lb1; weight=1/2; scur=13/22; qcur=0",
		"DOWN;address=2001:DB8::1;port=80", "no check; address=unix; port=unix", "UP; address=[::1]", "UP; port=x",
		"UP; address=::ffff:1.2.3.4", "NOLB 2/2; throttle=5%; address==; port=1=2;;;", "UP; address=fe80::1%eth0",
	} {
		f.Add(s, "10.1.1.1")
	}
	f.Fuzz(func(t *testing.T, state, nerve string) {
		h := checkHeaders{nerve: nerve}
		h.state.Add(state)
		var p destination
		if err := p.parse(&h); err != nil {
			if err.code != 400 || len(err.text) > 400 || strings.ContainsAny(err.text, "\r\n\x00") {
				t.Fatalf("%q %q: %+v", state, nerve, err)
			}
			return
		}
		if p.host == "" {
			if p.addr.IsValid() {
				t.Fatalf("%q %q: an address without a host: %+v", state, nerve, p)
			}
			return
		}
		a, err := netip.ParseAddr(p.host)
		if err != nil || a != p.addr || a.String() != p.host || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() {
			t.Fatalf("%q %q: %+v is not a canonical address (%v)", state, nerve, p, err)
		}
	})
}
