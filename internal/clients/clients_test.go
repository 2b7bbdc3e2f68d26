package clients_test

import (
	"testing"

	"hacheck/internal/clients"
)

func TestNetworkOf(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"10.0.0.7":           "10.0.0.7/32",
		"127.0.0.1":          "127.0.0.1/32",
		"::ffff:10.0.0.7":    "10.0.0.7/32",
		"::1":                "::1/128",
		"2001:db8:1:2:3::4":  "2001:db8:1:2::/64",
		"2001:db8:1:2::":     "2001:db8:1:2::/64",
		"fe80::1:2:3:4%eth0": "fe80::/64",
		"":                   "invalid Prefix",
		"web.example.org":    "invalid Prefix",
	} {
		if got := clients.NetworkOf(addr).String(); got != want {
			t.Errorf("NetworkOf(%q) = %s, want %s", addr, got, want)
		}
	}
}
