package proxy

import (
	"testing"

	"hacheck/internal/clients"
)

func TestCrowd(t *testing.T) {
	t.Parallel()
	c := crowd{most: 2}
	a, b := clients.NetworkOf("10.0.0.1"), clients.NetworkOf("10.0.0.2")
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
