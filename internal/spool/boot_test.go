package spool

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	bootNow    = "0f8a7c1e-58c4-4d9f-9d4a-6a1f9b3a7c11"
	bootBefore = "7be1b6aa-0c61-47b5-8f6b-2d0f4f0f1a22"
)

// TestEndAtBoot: only another id that was read ends an override.
func TestEndAtBoot(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, boot, now string
		err             error
		want            bool // it has ended
	}{
		{"same start", bootNow, bootNow, nil, false},
		{"another start", bootBefore, bootNow, nil, true},
		{"unreadable id", bootBefore, "", errors.New("unreadable"), false},
		{"without an end", "", bootNow, nil, false},
	} {
		e := Entry{Boot: test.boot}
		e.endAtBoot(func() (string, error) { return test.now, test.err })
		if got := e.Expired(time.Now()); got != test.want {
			t.Errorf("%s: it has ended: %t", test.name, got)
		}
	}
}

func TestReadBootID(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for content, want := range map[string]string{
		bootNow + "\n": bootNow, "": "", "\n": "", "no": "", strings.ToUpper(bootNow): "", bootNow + bootNow: "",
	} {
		path := filepath.Join(dir, "boot_id")
		must(t, os.WriteFile(path, []byte(content), 0o644))
		if got, err := readBootID(path); got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", content, got, err)
		}
	}
	if id, err := readBootID(filepath.Join(dir, "none")); err == nil {
		t.Errorf("a missing file is %q", id)
	}
}

// TestBootField: the field survives a file, an odd one does not count, and none forces a service up for longer.
func TestBootField(t *testing.T) {
	t.Parallel()
	k := Key{Service: "web"}
	e := Entry{Key: k, State: Drain, Reason: "why", Boot: bootNow}
	if got := ParseEntry(k, e.Marshal()); got.Boot != bootNow || got.State != Drain {
		t.Errorf("%s is read as %+v", e.Marshal(), got)
	}
	for content, want := range map[string]State{
		`{"boot": "x"}`:                              Down,
		`{"boot": 1}`:                                Down,
		`{"boot": null}`:                             Down,
		`{"state": "up", "boot": 1}`:                 Down,
		`{"state": "up", "boot": "x"}`:               Down,
		`{"state": "up", "boot": "` + bootNow + `"}`: ForceUp,
	} {
		got := ParseEntry(k, []byte(content))
		if got.State != want || got.Boot != "" && want == Down {
			t.Errorf("%s is %v until start %q", content, got.State, got.Boot)
		}
	}
}
