package check_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/check"
	"hacheck/test/checktest"
)

// Each result has a text of its own.
func TestUDP(t *testing.T) {
	for name, c := range map[string]struct {
		answer func([]byte) []byte // nil: nothing listens
		code   int
		reason check.Reason
		want   string
	}{
		"answered":           {pong, 200, check.ReasonAnswered, "Answered as expected in 0."},
		"answered otherwise": {func([]byte) []byte { return []byte("no\x1b\n") }, 503, check.ReasonFailed, `AT answered, but not as expected: "no"`},
		"nothing there":      {nil, 503, check.ReasonRefused, "Nothing listens on UDP port AT (its machine refused the datagram)"},
		"no answer":          {func([]byte) []byte { return nil }, 503, check.ReasonTimeout, "No answer from AT over UDP after 0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			port := udpSocketGone(t)
			if c.answer != nil {
				port = checktest.ServeUDP(t, "127.0.0.1", c.answer)
			}
			configured := build(t, check.Defaults{}, "udp", map[string]any{"host": "127.0.0.1", "port": int(port), "send": "ping", "expect": "pong", "timeout": 0.2})
			r := configured.Check(t.Context(), check.Target{})
			at := strings.TrimPrefix(configured.Name, "udp:")
			if r.Code != c.code || r.Reason != c.reason || !strings.HasPrefix(string(r.Body), strings.ReplaceAll(c.want, "AT", at)) {
				t.Errorf("%d %s %s", r.Code, r.Reason, r.Body)
			}
			if diff := cmp.Diff([]string{"udp:" + at}, stepNames(configured)); diff != "" || configured.Endpoint.Network != "udp" {
				t.Errorf("steps (-want +got):\n%s%+v", diff, configured.Endpoint)
			}
		})
	}
}

func TestUDPLarge(t *testing.T) {
	long := strings.Repeat("x", 60_000)
	port := checktest.ServeUDP(t, "127.0.0.1", func(datagram []byte) []byte { return datagram })
	options := map[string]any{"host": "127.0.0.1", "port": int(port), "send": long, "expect": long}
	if r := build(t, check.Defaults{}, "udp", options).Check(t.Context(), check.Target{}); r.Code != 200 {
		t.Errorf("60,000 bytes: %d %s", r.Code, r.Body)
	}
	options["send"] = strings.Repeat("x", 70_000)
	if r := build(t, check.Defaults{}, "udp", options).Check(t.Context(), check.Target{}); r.Code != 500 || r.Reason != check.ReasonConfig {
		t.Errorf("70,000 bytes: %d %s", r.Code, r.Body)
	}
}
