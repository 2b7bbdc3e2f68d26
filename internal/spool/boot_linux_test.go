package spool

import (
	"slices"
	"testing"
)

// TestUntilBoot: Dir and Index obey an override of this start of the machine, and not one of another start. Its file goes.
func TestUntilBoot(t *testing.T) {
	t.Parallel()
	now, err := BootID()
	if err != nil {
		t.Fatal(err)
	}
	r := openSpool(t)
	r.write(Entry{Key: Key{Service: "web"}, State: Down, Reason: "why", Boot: now})
	r.want("web", "down why")
	r.write(Entry{Key: Key{Service: "old"}, State: Down, Reason: "why", Boot: bootBefore})
	r.wantExpired("old")
	if e, err := r.d.Read(Key{Service: "web"}); err != nil || e.State != Down || e.Boot != now {
		t.Errorf("the override of this start is %+v, %v", e, err)
	}
	if e, err := r.d.Read(Key{Service: "old"}); err == nil && e.State != Ready {
		t.Errorf("the override of another start is %+v", e)
	}
	if has := r.names(); slices.Contains(has, "old") || !slices.Contains(has, "web") {
		t.Errorf("the directory has %q", has)
	}
}
