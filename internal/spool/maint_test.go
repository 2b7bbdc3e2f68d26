//go:build unix

package spool

import (
	"fmt"
	"testing"
	"time"
)

// maint writes an override that says maint.
func (r *testSpool) maint(k Key, ends time.Time) {
	r.t.Helper()
	r.write(Entry{Key: k, State: Maint, Reason: "disk", Expires: ends})
}

// TestMaintEnded: at once, whatever ends it, and for whom it covered.
func TestMaintEnded(t *testing.T) {
	instance := Key{Service: "web", Port: 80}
	for name, c := range map[string]struct {
		key   Key
		end   func(r *testSpool)
		wants map[string]bool // what has ended, by a name that ParseKey reads
	}{
		"a service, lifted":    {Key{Service: "web"}, func(r *testSpool) { r.up("web") }, map[string]bool{"web": true, "web:80": true, "db": false, "all": false}},
		"all, lifted":          {Key{Service: All}, func(r *testSpool) { r.up(All) }, map[string]bool{"web": true, "web:80": true, "db": true, "all": true}},
		"an instance, lifted":  {instance, func(r *testSpool) { r.remove("web:80") }, map[string]bool{"web": false, "web:80": true, "web:127.0.0.1:80": true, "web:81": false, "web:10.0.0.1:80": false}},
		"said to be down":      {Key{Service: "web"}, func(r *testSpool) { r.down("web", "still") }, map[string]bool{"web": true}},
		"written by hand":      {Key{Service: "web"}, func(r *testSpool) { r.put("web", "why") }, map[string]bool{"web": true}},
		"expired":              {Key{Service: "web"}, func(r *testSpool) { r.clock.set(2 * time.Hour) }, map[string]bool{"web": true}},
		"still there":          {Key{Service: "web"}, func(r *testSpool) { r.down("db", "why") }, map[string]bool{"web": false, "db": false}},
		"the reason is new":    {Key{Service: "web"}, func(r *testSpool) { r.maint(Key{Service: "web"}, time.Time{}) }, map[string]bool{"web": false}},
		"another one is there": {Key{Service: "web"}, func(r *testSpool) { r.maint(Key{Service: All}, time.Time{}); r.up("web") }, map[string]bool{"web": true, "db": false}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			withAndWithoutInotify(t, func(t *testing.T, r *testSpool) {
				r.maint(c.key, r.clock.in(time.Hour))
				r.x.Lookup("web", "", 80, true)
				if at := r.x.LastMaintEnd("web", "", 80, true); !at.IsZero() {
					t.Fatalf("has ended at %v, before it did", at)
				}
				before := time.Now()
				c.end(r)
				for _, name := range []string{"web", "web:80", "db"} {
					k, _ := ParseKey(name)
					r.x.Lookup(k.Service, k.Host, k.Port, true)
				}
				for name, want := range c.wants {
					k, err := ParseKey(name)
					must(t, err)
					at := r.x.LastMaintEnd(k.Service, k.Host, k.Port, k.Host == "" || k.Host == "127.0.0.1")
					if got := !at.IsZero() && !at.Before(before) && !at.After(time.Now()); got != want || !want && !at.IsZero() {
						t.Errorf("%s: ended at %v, want that it has: %v", name, at, want)
					}
				}
			})
		})
	}
}

func TestMaintEndedIsBoundedAndForgotten(t *testing.T) {
	t.Parallel()
	var m maintEnds
	now := time.Now()
	for i := range maxMaintEnds + 10 {
		m.record(Key{Service: fmt.Sprint(i)}, now)
	}
	if len(m.at) != maxMaintEnds {
		t.Fatalf("%d ends are kept, want %d", len(m.at), maxMaintEnds)
	}
	m.record(Key{Service: "late"}, now.Add(maintEndTTL+1))
	if len(m.at) != 1 {
		t.Fatalf("%d ends are kept, want the last one alone", len(m.at))
	}
	x := new(Index)
	x.pub.maints.at = map[Key]time.Time{{Service: "web"}: now.Add(-maintEndTTL - 1)}
	if at := x.LastMaintEnd("web", "", 0, true); !at.IsZero() {
		t.Errorf("ended at %v is still remembered", at)
	}
}
