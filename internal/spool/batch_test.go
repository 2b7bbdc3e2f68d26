package spool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestBatch: a batch reads, writes and removes as a Dir does, also files with unusual names of a key.
func TestBatch(t *testing.T) {
	dir, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) bool {
		_, err := os.Lstat(filepath.Join(dir.Root(), name))
		return err == nil
	}
	for _, name := range []string{"web", "db:[2001:db8::1]:80", "db:2001:DB8::1:80", "other", "set:[::2]:1"} {
		if err := os.WriteFile(filepath.Join(dir.Root(), name), []byte("by hand"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir.Root(), "directory"), 0o700); err != nil { // a file cannot replace it
		t.Fatal(err)
	}
	db, set := Key{Service: "db", Host: "2001:db8::1", Port: 80}, Key{Service: "set", Host: "::2", Port: 1}
	if err := dir.WriteWeight(Weight{Key: set, Percent: 25}); err != nil {
		t.Fatal(err)
	}
	b, err := dir.NewBatch()
	if err != nil {
		t.Fatal(err)
	}
	if e, err := b.Read(db); err != nil || e.State != Down || e.Reason != "by hand" {
		t.Errorf("%+v, %v; want the override of the unusual name", e, err)
	}
	for _, k := range []Key{{Service: "web"}, db, {Service: "absent"}, {Service: "absent", Port: 1}} {
		if err := b.Remove(k); err != nil {
			t.Errorf("remove %v: %v", k, err)
		}
		if e, err := b.Read(k); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v after its removal: %+v, %v", k, e, err)
		}
	}
	errs := b.WriteAll([]Entry{
		{Key: set, State: Drain, Reason: "new"},
		{Key: Key{Service: "no/name"}, State: Down},
		{Key: Key{Service: "directory"}, State: Down},
		{Key: Key{Service: "last"}, State: Down},
	})
	for i, fails := range []bool{false, true, true, false} {
		if (errs[i] != nil) != fails {
			t.Errorf("entry %d: %v", i, errs[i])
		}
	}
	if e, err := b.Read(set); err != nil || e.State != Drain || e.Reason != "new" {
		t.Errorf("%+v, %v; want the new override", e, err)
	}
	for _, k := range []Key{set, db} { // db has none
		if err := b.EndWeight(k); err != nil {
			t.Error(err)
		}
	}
	if w, err := dir.ReadWeight(set); err != nil || !w.HasEnded(time.Now()) {
		t.Errorf("%+v, %v; want a weight that has ended", w, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]bool{
		"web": false, "db:[2001:db8::1]:80": false, "db:2001:DB8::1:80": false, "other": true, "set:[::2]:1": false, "set:::2:1": true, "last": true,
	} {
		if file(name) != want {
			t.Errorf("%s exists: %v, want %v", name, !want, want)
		}
	}
	if temps, err := filepath.Glob(filepath.Join(dir.Root(), tempPrefix+"*")); err != nil || len(temps) > 0 {
		t.Errorf("temporary files are left: %v, %v", temps, err)
	}
}

// TestBatchInReplacedDirectory: a change of a directory that the path no longer leads to is an error.
func TestBatchInReplacedDirectory(t *testing.T) {
	root := filepath.Join(t.TempDir(), "spool")
	dir, err := OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	b, err := dir.NewBatch()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(root, root+".old"), os.Mkdir(root, 0o750)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.WriteAll([]Entry{{Key: Key{Service: "web"}, State: Down}})...); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err == nil || errors.Is(err, ErrNotDurable) {
		t.Errorf("%v, want an error that does not say that the change is done", err)
	}
}
