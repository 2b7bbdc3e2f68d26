package fleet

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
)

// TestOverridesOfATakenName: while another daemon has the name of this host, an override for the name is in force here
// only if this host has obeyed it while it had the name itself. Then it ends by a lift record or by its time alone. The
// steps are those of TestRules, on host:a/web; "registered" says that this host has its name in etcd, and "restarted"
// that it goes on with its copy.
func TestOverridesOfATakenName(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		steps string
		want  bool // in force while another daemon has the name
	}{
		{"set while the other daemon has the name", "5 A", false},
		{"set before", "5 A, registered", true},
		{"set after this host has lost the name", "registered, 5 A", false},
		{"set before, and lifted", "5 A, registered, 6 A lifted", false},
		{"set before, and replaced", "5 A, registered, 6 B", true},
		{"set before, replaced, and lifted", "5 A, registered, 6 B, 7 B lifted", false},
		{"set before, lifted, and set for the other daemon", "5 A, registered, 6 A lifted, 7 B", false},
		{"set before, and changed by hand", "5 A, registered, 6 A", true},
		{"set before, and gone", "5 A, registered, 6 gone", true},
		{"set before, gone, and set again", "5 A, registered, 6 gone, 7 B", true},
		{"set before, and unreadable", "5 A, registered, 6 bad", true},
		{"set before, and read again", "5 A, registered, read 6 A", true},
		{"set before, and etcd emptied", "5 A, registered, read 3", true},
		{"set before, and restarted", "5 A, registered, restarted", true},
		{"set before, restarted, and replaced", "5 A, registered, restarted, 6 B", true},
		{"set while the other daemon has the name, and restarted", "5 A, restarted", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newRules("a", nil, slog.New(slog.DiscardHandler))
			for step := range strings.SplitSeq(tt.steps, ", ") {
				switch step {
				case "registered":
					s.markOwn()
				case "restarted":
					s = restarted(t, s)
				default:
					applyTo(t, s, "host:a/web", step)
				}
			}
			if got := len(s.entries(true)) == 1; got != tt.want {
				t.Errorf("after %s: in force %v, want %v", tt.steps, got, tt.want)
			}
			if had, got := len(s.records), len(s.entries(false)); got != had {
				t.Errorf("after %s: of %d overrides %d are in force for the daemon that has the name", tt.steps, had, got)
			}
		})
	}
}

// restarted returns rules with what the copy on disk keeps of s.
func restarted(t *testing.T, s *rules) *rules {
	t.Helper()
	text, err := json.Marshal(localCopy{Header: s.header, Revision: s.revision, Records: s.records, Ended: s.ended})
	var c localCopy
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	next := newRules(s.host, s.groups, s.log)
	next.header, next.revision, next.records, next.ended = c.Header, c.Revision, c.Records, c.Ended
	return next
}

// TestTakenNameLeavesOtherScopes: an override for all hosts or for a group is in force whatever daemon has the name.
func TestTakenNameLeavesOtherScopes(t *testing.T) {
	t.Parallel()
	s := newRules("a", []string{"rack7"}, slog.New(slog.DiscardHandler))
	for _, key := range []string{"all/web", "group:rack7/web", "host:a/web"} {
		applyTo(t, s, key, "5 "+key[:1])
	}
	var got []string
	for _, e := range s.entries(true) {
		got = append(got, e.Scope)
	}
	if want := "all group:rack7"; strings.Join(got, " ") != want {
		t.Errorf("in force for %q, want %q", got, want)
	}
}
