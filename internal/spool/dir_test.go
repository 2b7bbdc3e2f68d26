//go:build unix

package spool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openDir(t *testing.T) *Dir {
	t.Helper()
	d, err := OpenDir(filepath.Join(t.TempDir(), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info.Mode().Perm()
}

// TestModes: 0750 and 0644 whatever the umask says.
func TestModes(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	d := openDir(t)
	if m := mode(t, d.Root()); m != 0o750 {
		t.Errorf("directory has mode %o", m)
	}
	must(t, d.Write(Entry{Key: web, State: Down}))
	if m := mode(t, filepath.Join(d.Root(), "web")); m != 0o644 {
		t.Errorf("file has mode %o", m)
	}
	unix.Umask(0)
	must(t, d.Write(Entry{Key: Key{Service: "open"}, State: Down}))
	if m := mode(t, filepath.Join(d.Root(), "open")); m != 0o644 {
		t.Errorf("file has mode %o without a umask", m)
	}
}

func TestOpenDirErrors(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "file"), "")
	for path, want := range map[string]string{
		"file":      "not a directory",
		"no/parent": "no such file or directory",
	} {
		if _, err := OpenDir(filepath.Join(dir, path)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("OpenDir(%s) = %v, want %q", path, err, want)
		}
	}
	must(t, os.Chmod(dir, 0o755))
	if d, err := OpenDir(dir); err != nil || d.Root() != dir || mode(t, dir) != 0o755 {
		t.Errorf("OpenDir of what exists: %v, mode %o", err, mode(t, dir))
	}
	t.Chdir(dir)
	if d, err := OpenDir("relative"); err != nil || d.Root() != filepath.Join(dir, "relative") {
		t.Errorf("OpenDir(relative): %v, %v", d, err)
	}
}

func TestWriteReadRemove(t *testing.T) {
	d := openDir(t)
	if _, err := d.Read(web); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Read of nothing: %v", err)
	}
	must(t, d.Remove(web))
	e := Entry{Key: web, State: Drain, Reason: "r", Created: at(1500000000.5), Expires: at(4e9)}
	must(t, d.Write(e))
	if got, err := d.Read(web); err != nil || got != e {
		t.Fatalf("Read = %+v, %v", got, err)
	}
	instance := Entry{Key: Key{Service: "web", Host: "[::1]", Port: 80}, State: Down, Reason: "i", Created: at(1)}
	must(t, d.Write(instance))
	instance.Key.Host = "::1"
	if got, err := d.Read(Key{Service: "web", Host: "0::1", Port: 80}); err != nil || got != instance {
		t.Fatalf("Read = %+v, %v", got, err)
	}
	if got, err := d.List(); err != nil || !slices.Equal(got, []Entry{e, instance}) {
		t.Fatalf("List = %+v, %v", got, err)
	}
	if got := names(t, d.Root()); !slices.Equal(got, []string{"web", "web:::1:80"}) {
		t.Fatalf("files are %q", got)
	}
	must(t, d.Remove(web))
	must(t, d.Remove(instance.Key))
	if got := names(t, d.Root()); got != nil {
		t.Fatalf("files are %q", got)
	}
	must(t, d.Close())
}

func TestWriteRefuses(t *testing.T) {
	d := openDir(t)
	for _, e := range []Entry{
		{Key: Key{Service: "../escaped"}, State: Down},
		{Key: Key{Service: ".."}, State: Down},
		{Key: Key{Service: "a", Host: "../b", Port: 1}, State: Down},
		{Key: Key{Service: "all", Port: 80}, State: Down},
		{Key: web},
		{Key: web, State: Maint + 1},
	} {
		if err := d.Write(e); err == nil {
			t.Errorf("%+v was written", e)
		}
	}
	if err := d.Remove(Key{Service: "../escaped"}); err == nil {
		t.Error("removed outside")
	}
	if got := names(t, d.Root()); got != nil {
		t.Errorf("files are %q", got)
	}
	// An instance of all can not be written, but one that a foreign tool wrote can be taken away.
	put(t, filepath.Join(d.Root(), "all:80"), "")
	must(t, d.Remove(Key{Service: "all", Port: 80}))
	if got := names(t, d.Root()); got != nil {
		t.Errorf("files are %q", got)
	}
}

// TestCreationIsKept while what is said again is still in force.
func TestCreationIsKept(t *testing.T) {
	d := openDir(t)
	c := &clock{}
	d.now = c.now
	created := func(e Entry) time.Time {
		t.Helper()
		must(t, d.Write(e))
		got, err := d.Read(e.Key)
		must(t, err)
		return got.Created
	}
	first := created(Entry{Key: web, State: Down, Reason: "a"})
	if since := time.Since(first); since < 0 || since > time.Minute {
		t.Fatalf("created %v ago", since)
	}
	c.set(time.Hour)
	for _, e := range []Entry{
		{Key: web, State: Down, Reason: "a"},
		{Key: web, State: Drain, Reason: "a"},
		{Key: web, State: Maint, Reason: "a", Expires: c.in(time.Hour).Truncate(time.Second)},
	} {
		if got := created(e); !got.Equal(first) {
			t.Errorf("%+v: created anew", e)
		}
	}
	if got := created(Entry{Key: web, State: Down, Reason: "b"}); got.Sub(first) < time.Hour {
		t.Error("another reason keeps the creation")
	}
	if got := created(Entry{Key: web, State: Down, Reason: "b", Created: at(7)}); !got.Equal(at(7)) {
		t.Error("an explicit creation is not taken")
	}
	if got := created(Entry{Key: web, State: ForceUp, Reason: "b"}); got.Equal(at(7)) {
		t.Error("force-up keeps the creation of the downtime")
	}
	must(t, d.Write(Entry{Key: web, State: Down, Reason: "c", Created: at(8), Expires: c.in(time.Hour)}))
	c.set(3 * time.Hour)
	if got := created(Entry{Key: web, State: Down, Reason: "c"}); got.Equal(at(8)) {
		t.Error("what has expired keeps its creation")
	}
	long := strings.Repeat("x", 3*MaxReason)
	first = created(Entry{Key: web, State: Down, Reason: long})
	c.set(4 * time.Hour)
	if got := created(Entry{Key: web, State: Down, Reason: long}); !got.Equal(first) {
		t.Error("a long reason does not keep the creation")
	}
}

// TestOddFiles: for the commands a file counts as it does for the daemon.
func TestOddFiles(t *testing.T) {
	d := openDir(t)
	now := &clock{}
	d.now = now.now
	file := func(name string) string { return filepath.Join(d.Root(), name) }
	put(t, file("text"), "why\n")
	put(t, file("expired"), `{"expiration": 5}`)
	must(t, os.Mkdir(file("directory"), 0o755))
	must(t, unix.Mkfifo(file("fifo"), 0o644))
	must(t, os.Symlink("text", file("link")))
	must(t, os.Symlink("/etc/passwd", file("outside")))
	must(t, os.Symlink("loop", file("loop")))
	put(t, file("foo~"), "")
	put(t, file("foo:0"), "")
	put(t, file("foo:bar"), "")
	put(t, file(tempPrefix+"0123456789abcdef"), "")
	put(t, file(newAsideName("renewed")), `{"reason": "moved aside, and in force"}`)
	put(t, file(newAsideName("old")), `{"expiration": 5}`)
	put(t, file("a:[::1]:80"), `{"state": "drain"}`)
	put(t, file("a:0::1:80"), `{"state": "maint"}`)

	list, err := d.List()
	must(t, err)
	var got []string
	for _, e := range list {
		got = append(got, e.Key.Name()+" "+show(&e))
	}
	want := []string{"a:::1:80 maint", "link down why", "renewed down moved aside, and in force", "text down why"}
	if !slices.Equal(got, want) {
		t.Fatalf("List is %q, want %q", got, want)
	}
	for _, name := range want {
		name, said, _ := strings.Cut(name, " ")
		k, err := ParseKey(name)
		must(t, err)
		if e, err := d.Read(k); err != nil || show(&e) != said {
			t.Errorf("Read(%s) = %q, %v", name, show(&e), err)
		}
	}
	for _, name := range []string{"expired", "directory", "fifo", "outside", "loop", "old", "absent"} {
		if e, err := d.Read(Key{Service: name}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Read(%s) = %q, %v", name, show(&e), err)
		}
	}
	must(t, d.Remove(Key{Service: "directory"})) // says nothing, so there is nothing to remove
	must(t, d.Remove(Key{Service: "a", Host: "::1", Port: 80}))
	must(t, d.Remove(Key{Service: "renewed"}))
	must(t, d.Remove(Key{Service: "fifo"}))
	left := strings.Join(names(t, d.Root()), " ")
	for _, gone := range []string{"a:", "renewed", "fifo"} {
		if strings.Contains(left, gone) {
			t.Errorf("%s is still there: %s", gone, left)
		}
	}
	if !strings.Contains(left, "directory") {
		t.Errorf("the directory is gone: %s", left)
	}
	if err := d.Write(Entry{Key: Key{Service: "directory"}, State: Down}); err == nil || errors.Is(err, ErrNotDurable) {
		t.Errorf("Write over a directory: %v", err)
	}
	must(t, d.Write(Entry{Key: Key{Service: "link"}, State: Down, Reason: "new"}))
	if content, err := os.ReadFile(file("text")); err != nil || string(content) != "why\n" {
		t.Errorf("writing a link changed its target: %q, %v", content, err)
	}
}

// TestWriteRemovesOtherNames of the key: what a foreign tool wrote must not speak louder than the command.
func TestWriteRemovesOtherNames(t *testing.T) {
	d := openDir(t)
	put(t, filepath.Join(d.Root(), "a:[::1]:80"), `{"state": "maint"}`)
	k := Key{Service: "a", Host: "::1", Port: 80}
	must(t, d.Write(Entry{Key: k, State: Drain}))
	if e, err := d.Read(k); err != nil || e.State != Drain {
		t.Errorf("Read = %q, %v", show(&e), err)
	}
	if got := names(t, d.Root()); !slices.Equal(got, []string{"a:::1:80"}) {
		t.Errorf("files are %q", got)
	}
}

// TestMissingDirectoryIsAnError: without the directory Read must not return fs.ErrNotExist, which means up.
func TestMissingDirectoryIsAnError(t *testing.T) {
	d := openDir(t)
	must(t, os.Remove(d.Root()))
	if _, err := d.Read(web); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read: %v", err)
	}
	if _, err := d.List(); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("List: %v", err)
	}
	if err := d.Write(Entry{Key: web, State: Down}); err == nil {
		t.Error("Write into nothing succeeded")
	}
	if err := d.Remove(web); err == nil {
		t.Error("Remove from nothing succeeded")
	}
}
