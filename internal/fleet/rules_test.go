package fleet

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// TestRules is the state machine of an override, value by value. A step is "REVISION ID", with "lifted" for a lift
// record, "REVISION gone", or "REVISION bad"; it arrives on a watch. A step that begins with "read" is a complete read
// at that revision.
func TestRules(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		steps string
		want  string // the id in force, with "lost" and "blocked"
	}{
		{"set", "5 A", "A"},
		{"lift", "5 A, 6 A lifted", ""},
		{"replace", "5 A, 6 B", "B"},
		{"replaced and lifted between two reads", "read 5 A, read 9 C lifted", ""},
		{"gone", "5 A, 6 gone", "A lost"},
		{"gone in a read", "read 5 A, read 6", "A lost"},
		{"gone and lifted", "5 A, 6 gone, 7 A lifted", ""},
		{"gone and lifted by a host that did not know it", "5 A, 6 gone, 7 X lifted", ""},
		{"gone and set", "5 A, 6 gone, 7 B", "B"},
		{"gone and back", "5 A, 6 gone, 7 A", "A"},
		{"unreadable", "5 A, 6 bad", "A blocked"},
		{"unreadable and lifted", "5 A, 6 bad, 7 A lifted", ""},
		{"unreadable and gone", "5 A, 6 bad, 7 gone", "A lost"},
		{"unreadable alone", "5 bad", "blocked"},
		{"lifted id set again", "5 A, 6 A lifted, 7 A", ""},
		{"replaced id comes back", "5 A, 6 B, 7 B lifted, 8 A", ""},
		{"emptied", "read 50 A, read 3", "A lost"},
		{"emptied and lifted", "read 50 A, read 3, 4 A lifted", ""},
		{"emptied and lifted by a host that did not know it", "read 50 A, read 3, 4 X lifted", ""},
		{"emptied and set, in one read", "read 50 A, read 3 B", "A lost blocked"},
		{"emptied and set and set again", "read 50 A, read 3 B, 4 C", "C"},
		{"emptied twice and set", "read 50 A, read 30, read 3, 4 B", "B"},
		{"restored with the lift record of an older override", "read 40 B, read 41 B lifted, read 50 A, read 41 B lifted", "A lost"},
		{"restored with an older override", "read 40 B, read 50 A, read 40 B", "A lost"},
		{"restored with an older lift record that this host has not seen", "read 50 A, read 41 B lifted", "A lost blocked"},
		{"restored with a lifted override", "read 40 A, read 50 A lifted, read 40 A", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newRules("a", nil, slog.New(slog.DiscardHandler))
			for step := range strings.SplitSeq(tt.steps, ", ") {
				apply(t, s, step)
			}
			var got []string
			if r := s.records["all/web"]; r != nil {
				got = append(got, r.Override.ID)
				if r.Lost {
					got = append(got, "lost")
				}
			}
			if s.problem() != "" {
				got = append(got, "blocked")
			}
			if g := strings.Join(got, " "); g != tt.want {
				t.Errorf("after %s: %q, want %q (ended %q)", tt.steps, g, tt.want, slices.Sorted(maps.Keys(s.ended)))
			}
		})
	}
}

// apply applies one step of TestRules to all/web.
func apply(t *testing.T, s *rules, step string) {
	t.Helper()
	applyTo(t, s, "all/web", step)
}

// applyTo applies one step of TestRules to a key.
func applyTo(t *testing.T, s *rules, key, step string) {
	t.Helper()
	text, read := strings.CutPrefix(step, "read ")
	var revision int64
	var id, lift string
	if n, _ := fmt.Sscan(text, &revision, &id, &lift); n == 0 {
		t.Fatalf("step %q", step)
	}
	extra := ""
	if lift != "" {
		extra = `,"lifted":{"at":"2026-01-01T00:00:00Z"}`
	}
	value := raw(id, extra)
	if id == "bad" {
		value = "{"
	}
	kv := &mvccpb.KeyValue{Value: []byte(value), ModRevision: revision}
	switch {
	case read && id == "":
		s.load(nil, revision)
	case read:
		s.load(map[string]*mvccpb.KeyValue{key: kv}, revision)
	case id == "gone":
		s.handleDelete(key, revision)
	default:
		s.handlePut(key, kv)
	}
}

// TestRulesForget: ended ids are known for 30 days and bounded in number.
func TestRulesForget(t *testing.T) {
	t.Parallel()
	s := newRules("a", nil, slog.New(slog.DiscardHandler))
	now := time.Now()
	s.now = func() time.Time { return now }
	apply(t, s, "5 A")
	apply(t, s, "6 A lifted")
	now = now.Add(29 * 24 * time.Hour)
	apply(t, s, "read 7 A")
	if s.records["all/web"] != nil {
		t.Fatal("a lifted id is obeyed after 29 days")
	}
	now = now.Add(2 * 24 * time.Hour)
	apply(t, s, "read 8")
	if len(s.ended) != 0 {
		t.Errorf("known after 31 days: %v", s.ended)
	}
	for i := range maxEnded + 10 {
		now = now.Add(time.Second)
		s.end(fmt.Sprint(i))
	}
	s.forget()
	if _, oldest := s.ended["0"]; len(s.ended) != maxEnded || oldest {
		t.Errorf("%d ids are known, the oldest %v", len(s.ended), oldest)
	}
}

// TestRulesExpired: the id of an override that is over is not obeyed again by this host.
func TestRulesExpired(t *testing.T) {
	t.Parallel()
	s := newRules("a", nil, slog.New(slog.DiscardHandler))
	now := time.Now()
	s.now = func() time.Time { return now }
	expires := fmt.Sprintf(`,"expires":%q`, now.Add(time.Minute).UTC().Format(time.RFC3339Nano))
	kv := &mvccpb.KeyValue{Value: []byte(raw("A", expires)), ModRevision: 5}
	s.handlePut("all/web", kv)
	if len(s.entries(false)) != 1 {
		t.Fatal("not in force")
	}
	now = now.Add(time.Minute)
	if len(s.entries(false)) != 0 {
		t.Fatal("in force after its end")
	}
	s.load(map[string]*mvccpb.KeyValue{"all/web": kv}, 6)
	s.load(nil, 7)
	if len(s.records) != 0 || len(s.lost()) != 0 || s.loss != "" {
		t.Errorf("after its end: %d records, lost %q", len(s.records), s.loss)
	}
}

// TestRulesExpiredAndGone: the key of an override that is over may be deleted. That is no loss.
func TestRulesExpiredAndGone(t *testing.T) {
	t.Parallel()
	s := newRules("a", nil, slog.New(slog.DiscardHandler))
	now := time.Now()
	s.now = func() time.Time { return now }
	expires := fmt.Sprintf(`,"expires":%q`, now.Add(time.Minute).UTC().Format(time.RFC3339Nano))
	s.handlePut("all/web", &mvccpb.KeyValue{Value: []byte(raw("A", expires)), ModRevision: 5})
	now = now.Add(time.Minute)
	s.handleDelete("all/web", 6)
	if len(s.records) != 0 || s.loss != "" {
		t.Errorf("%d records, lost %q", len(s.records), s.loss)
	}
}

// TestEntriesAreEqual: an override that is read again, in another time zone or from the copy, gives the same entry.
func TestEntriesAreEqual(t *testing.T) {
	t.Parallel()
	s := newRules("a", nil, slog.New(slog.DiscardHandler))
	value := `{"v":1,"id":"A","state":"down","created":"2026-11-29T12:00:00+01:00","expires":"2026-11-29T13:00:00+01:00"}`
	s.now = func() time.Time { return time.Date(2026, 11, 29, 11, 30, 0, 0, time.UTC) }
	s.handlePut("all/web", &mvccpb.KeyValue{Value: []byte(value), ModRevision: 5}) // arrives late: it ends at its arrival plus an hour
	first := s.entries(false)
	s.load(map[string]*mvccpb.KeyValue{"all/web": {Value: []byte(value), ModRevision: 5}}, 7)
	if got := s.entries(false); len(first) != 1 || len(got) != 1 || got[0] != first[0] {
		t.Errorf("first %+v, then %+v", first, got)
	}
	if want := time.Date(2026, 11, 29, 12, 30, 0, 0, time.UTC); first[0].Expires != want {
		t.Errorf("it ends at %v, want %v", first[0].Expires, want)
	}
}

// TestTooManyOverrides: those beyond the limit are not obeyed, and the host says so.
func TestTooManyOverrides(t *testing.T) {
	t.Parallel()
	s := newRules("a", nil, slog.New(slog.DiscardHandler))
	for i := range maxOverrides + 1 {
		s.handlePut(fmt.Sprintf("all/web%d", i), &mvccpb.KeyValue{Value: []byte(raw(fmt.Sprint(i), "")), ModRevision: int64(i + 1)})
	}
	if len(s.records) != maxOverrides || !strings.Contains(s.problem(), "more than 20000") {
		t.Errorf("%d records, problem %q", len(s.records), s.problem())
	}
}

// TestCopyGenerations: load returns the newest generation.
func TestCopyGenerations(t *testing.T) {
	t.Parallel()
	d := &stateDir{path: t.TempDir()}
	if err := d.open(); err != nil {
		t.Fatal(err)
	}
	defer d.close()
	for i := range 3 {
		if err := d.save(&localCopy{Header: int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := d.load()
	if err != nil || c.Header != 2 || c.Generation != 3 {
		t.Fatalf("got %+v, %v", c, err)
	}
}
