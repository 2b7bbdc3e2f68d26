package proxy

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"hacheck/internal/spool"
)

// FuzzCheckURL: what is accepted is a valid service, a port in range and a URI that is a suffix of the
// input, and nothing that is refused is refused without a sentence.
func FuzzCheckURL(f *testing.F) {
	for _, s := range []string{"web/80/status", "web/80", "web/080/?x", "web/65536/", "a:b/1/", "/1/", "web/80?x", "../1/", "web/8 0/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		service, port, uri, no := splitCheckURL(s)
		if no != nil {
			if no.code != 404 || no.sentence == "" {
				t.Fatalf("%q: refused with %+v", s, no)
			}
			return
		}
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

// FuzzState: whatever the headers hold, the place they name is a canonical address that is dialled as it
// was judged, or there is a sentence.
func FuzzState(f *testing.F) {
	for _, s := range []string{
		"UP 2/3; address=10.0.0.5; port=8080; name=be/web1; node=lb1; weight=1/2; scur=13/22; qcur=0",
		"DOWN;address=2001:DB8::1;port=80", "no check; address=unix; port=unix", "UP; address=[::1]", "UP; port=x",
		"UP; address=::ffff:1.2.3.4", "NOLB 2/2; throttle=5%; address==; port=1=2;;;", "UP; address=fe80::1%eth0",
	} {
		f.Add(s, "10.1.1.1")
	}
	f.Fuzz(func(t *testing.T, state, nerve string) {
		w := wanted{nerve: nerve}
		w.state(state)
		p, no := w.place()
		if no != nil {
			if no.code != 400 || len(no.sentence) > 400 || strings.ContainsAny(no.sentence, "\r\n\x00") {
				t.Fatalf("%q %q: refused with %+v", state, nerve, no)
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
