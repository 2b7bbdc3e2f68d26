package proxy

import (
	"net/netip"
	"testing"
)

func TestHolderOf(t *testing.T) {
	t.Parallel()
	for peer, want := range map[string]string{
		"10.0.0.5":             "10.0.0.5/32",
		"::ffff:10.0.0.5":      "10.0.0.5/32",
		"2001:db8:1:2:3::4":    "2001:db8:1:2::/64",
		"2001:db8:1:2:ffff::1": "2001:db8:1:2::/64",
		"fe80::1%eth0":         "fe80::/64",
		"::1":                  "::1/128",
	} {
		if got := holderOf(peer); got.String() != want {
			t.Errorf("%s counts for %v, want %s", peer, got, want)
		}
	}
	if got := holderOf("@"); got != (netip.Prefix{}) {
		t.Errorf("no address counts for %v", got)
	}
}

func TestCrowd(t *testing.T) {
	t.Parallel()
	c := crowd{most: 2}
	a, b := holderOf("10.0.0.1"), holderOf("10.0.0.2")
	for i, may := range []bool{true, true, false, false} {
		if c.enter(a) != may {
			t.Errorf("connection %d of a: want entered %v", i+1, may)
		}
	}
	if !c.enter(b) {
		t.Error("what a holds keeps b out")
	}
	c.leave(a)
	if !c.enter(a) || c.enter(a) {
		t.Error("who leaves makes room for one")
	}
	for range 2 {
		c.leave(a)
	}
	c.leave(b)
	if len(c.holds) != 0 {
		t.Errorf("remembered of those who have left: %v", c.holds)
	}
}
