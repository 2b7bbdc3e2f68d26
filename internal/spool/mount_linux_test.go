package spool

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// mountTest is one way in which mounts change what the path of the spool leads to.
type mountTest struct {
	*testSpool
	t    *testing.T
	base string // a directory of the test
}

func (s *mountTest) dir(names ...string) string {
	s.t.Helper()
	path := filepath.Join(append([]string{s.base}, names...)...)
	must(s.t, os.MkdirAll(path, 0o755))
	return path
}

func (s *mountTest) tmpfs(path string) {
	s.t.Helper()
	must(s.t, unix.Mount("tmpfs", path, "tmpfs", 0, "size=1m"))
}

func (s *mountTest) bind(from, to string) {
	s.t.Helper()
	must(s.t, unix.Mount(from, to, "", unix.MS_BIND, ""))
}

// unmount takes the mount at path away. The index keeps it busy only while it has the directory open.
func (s *mountTest) unmount(path string, flags int) {
	s.t.Helper()
	if s.testSpool != nil {
		s.x.mu.Lock()
		defer s.x.mu.Unlock()
	}
	must(s.t, unix.Unmount(path, flags))
}

// follow opens an index on path.
func (s *mountTest) follow(path string, sys ...func(*system)) {
	s.t.Helper()
	d, err := OpenDir(path)
	must(s.t, err)
	s.testSpool = openSpoolOn(s.t, d, sys...)
}

// lost asks, as requests do, until Stats.Lost is want.
func (s *mountTest) lost(want bool) {
	s.t.Helper()
	s.waitFor("lost or not", func(_ []Change, _ string) bool {
		s.x.Lookup("somebody", "", 80, true)
		s.signal() // keep asking
		return s.x.Stats().Lost == want
	})
}

// TestMounts: whatever is mounted or unmounted, no override ends by it, and what is said in the directory that
// the path leads to counts. The spool of every case is base/spool or a link of that name, and web is down in it.
func TestMounts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		play func(s *mountTest)
	}{
		{"unmounted and mounted again", func(s *mountTest) {
			disk, spool := s.dir("disk"), s.dir("spool")
			s.bind(disk, spool)
			s.follow(spool)
			s.down("web", "a")
			s.want("web", "down a")
			s.unmount(spool, 0)
			s.lost(true)
			s.want("web", "down a")
			s.waitFor("said", func(_ []Change, log string) bool { return strings.Contains(log, "spool directory is unmounted") })
			s.bind(disk, spool)
			s.lost(false)
			s.waitFor("said", func(_ []Change, log string) bool { return strings.Contains(log, "is back") })
			if n := strings.Count(s.log(), "spool directory is unmounted"); n != 1 {
				s.t.Errorf("said %d times:\n%s", n, s.log())
			}
			s.want("web", "down a")
			s.up("web")
			s.want("web", "")
		}},
		{"unmounted, and its file system with it", func(s *mountTest) {
			spool := s.dir("spool")
			s.tmpfs(spool)
			s.follow(spool)
			s.down("web", "a")
			s.want("web", "down a")
			s.unmount(spool, 0)
			s.want("web", "down a") // at once: the kernel has reported it
			s.lost(true)
		}},
		{"unmounted lazily", func(s *mountTest) {
			spool := s.dir("spool")
			s.tmpfs(spool)
			s.follow(spool)
			s.down("web", "a")
			s.want("web", "down a")
			shell, err := os.Open(spool) // which keeps the file system alive
			must(s.t, err)
			s.unmount(spool, unix.MNT_DETACH)
			s.lost(true)
			s.want("web", "down a")
			must(s.t, shell.Close())
			s.want("web", "down a")
		}},
		{"unmounted with nothing in force", func(s *mountTest) {
			spool := s.dir("spool")
			s.tmpfs(spool)
			s.follow(spool)
			s.unmount(spool, 0)
			s.lost(true)
			s.down("web", "below")
			s.want("web", "down below")
			s.tmpfs(spool)
			s.waitFor("another one", func(_ []Change, log string) bool {
				s.x.Lookup("web", "", 80, true)
				s.signal()
				return strings.Contains(log, "another file system") || s.x.Stats().Rescans > 2
			})
			s.want("web", "down below")
			s.up("web")
			s.want("web", "")
			s.lost(false)
		}},
		{"the mount of its parent unmounted", func(s *mountTest) {
			disk, mnt := s.dir("disk"), s.dir("mnt")
			s.dir("mnt", "spool") // below the mount
			s.dir("disk", "spool")
			s.bind(disk, mnt)
			s.follow(filepath.Join(mnt, "spool"))
			s.down("web", "a")
			s.want("web", "down a")
			s.unmount(mnt, 0)
			s.lost(true)
			s.want("web", "down a")
			s.bind(disk, mnt)
			s.lost(false)
			s.want("web", "down a")
		}},
		{"the mount of its parent unmounted, and a command makes it anew", func(s *mountTest) {
			disk, mnt := s.dir("disk"), s.dir("mnt")
			s.dir("disk", "spool")
			s.bind(disk, mnt)
			spool := filepath.Join(mnt, "spool")
			s.follow(spool)
			s.down("web", "a")
			s.want("web", "down a")
			s.unmount(mnt, 0)
			s.lost(true)
			d, err := OpenDir(spool)
			must(s.t, err)
			must(s.t, d.Write(Entry{Key: Key{Service: "other"}, State: Down}))
			s.wantSoon("other", "down")
			s.want("web", "down a")
			s.lost(true)
		}},
		{"moved away with its mount", func(s *mountTest) {
			disk, spool, away := s.dir("disk"), s.dir("spool"), s.dir("away")
			s.bind(disk, spool)
			s.follow(spool)
			s.down("web", "a")
			s.want("web", "down a")
			must(s.t, unix.Mount(spool, away, "", unix.MS_MOVE, ""))
			s.lost(true)
			s.want("web", "down a")
			must(s.t, unix.Mount(away, spool, "", unix.MS_MOVE, ""))
			s.lost(false)
			s.want("web", "down a")
			s.up("web")
			s.want("web", "")
		}},
		{"mounted over, and that unmounted", func(s *mountTest) {
			spool := s.dir("spool")
			s.follow(spool)
			s.down("web", "a")
			s.want("web", "down a")
			s.tmpfs(spool)
			s.lost(true)
			s.want("web", "down a")
			s.down("other", "above")
			s.want("other", "down above")
			s.up("other")
			s.want("other", "")
			s.unmount(spool, 0)
			s.lost(false)
			s.want("web", "down a")
			s.up("web")
			s.want("web", "")
		}},
		{"mounted after the start, as at boot, and unmounted", func(s *mountTest) {
			spool := s.dir("spool")
			s.follow(spool)
			s.want("web", "")
			s.tmpfs(spool)
			s.waitFor("followed", func(_ []Change, _ string) bool {
				s.x.Lookup("web", "", 80, true)
				s.signal()
				return s.x.Stats().Rescans > 1
			})
			s.lost(false)
			s.down("web", "a")
			s.want("web", "down a")
			s.unmount(spool, 0)
			s.want("web", "down a")
			s.lost(true)
		}},
		{"another disk in its place", func(s *mountTest) {
			spool := s.dir("spool")
			s.tmpfs(spool)
			s.follow(spool)
			s.down("web", "a")
			s.down("both", "a")
			s.want("web", "down a")
			s.x.mu.Lock() // no update sees it missing
			must(s.t, unix.Unmount(spool, 0))
			s.tmpfs(spool)
			put(s.t, filepath.Join(spool, "both"), "b")
			s.x.mu.Unlock()
			s.want("web", "down a")
			s.want("both", "down b")
			s.lost(true)
			s.up("both") // its file is here
			s.want("both", "")
			s.up("web") // and this one's is not: the word of the command counts
			s.want("web", "")
			s.lost(false)
		}},
		{"another disk in its place, and what was carried expires", func(s *mountTest) {
			spool := s.dir("spool")
			s.tmpfs(spool)
			s.follow(spool)
			s.write(Entry{Key: web, State: Down, Reason: "a", Expires: s.clock.in(3600e9)})
			s.want("web", "down a")
			s.unmount(spool, 0)
			s.tmpfs(spool)
			s.lost(true)
			s.want("web", "down a")
			s.clock.set(2 * 3600e9)
			s.wantExpired("web")
			s.want("web", "")
			s.lost(false)
		}},
		{"a link leads to a mount that is unmounted", func(s *mountTest) {
			disk, mnt := s.dir("disk"), s.dir("mnt")
			s.dir("mnt", "x")
			s.dir("disk", "x")
			s.bind(disk, mnt)
			link := filepath.Join(s.base, "spool")
			must(s.t, os.Symlink(filepath.Join(mnt, "x"), link))
			s.follow(link)
			s.down("web", "a")
			s.want("web", "down a")
			s.unmount(mnt, 0)
			s.lost(true)
			s.want("web", "down a")
		}},
		{"a link to another mount", func(s *mountTest) {
			s.tmpfs(s.dir("one"))
			s.tmpfs(s.dir("two"))
			link := filepath.Join(s.base, "spool")
			must(s.t, os.Symlink("one", link))
			s.follow(link)
			s.down("web", "a")
			s.want("web", "down a")
			must(s.t, os.Symlink("two", link+".new"))
			must(s.t, os.Rename(link+".new", link))
			s.lost(true)
			s.want("web", "down a")
			s.up("web")
			s.want("web", "")
			s.lost(false)
		}},
		{"a link to another directory of the mount", func(s *mountTest) {
			s.dir("one")
			put(s.t, filepath.Join(s.dir("two"), "other"), "b")
			link := filepath.Join(s.base, "spool")
			must(s.t, os.Symlink("one", link))
			s.follow(link)
			s.down("web", "a")
			s.want("web", "down a")
			must(s.t, os.Symlink("two", link+".new"))
			must(s.t, os.Rename(link+".new", link))
			s.wantSoon("other", "down b")
			s.want("web", "")
			s.lost(false)
		}},
		{"remounted read-only", func(s *mountTest) {
			spool := s.dir("spool")
			s.tmpfs(spool)
			s.follow(spool)
			s.down("web", "a")
			s.want("web", "down a")
			must(s.t, unix.Mount("", spool, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			if err := s.d.Remove(web); err == nil {
				s.t.Error("Remove succeeds")
			}
			s.want("web", "down a")
			s.lost(false)
			must(s.t, unix.Mount("", spool, "", unix.MS_REMOUNT, ""))
			s.up("web")
			s.want("web", "")
		}},
		{"bound again over itself", func(s *mountTest) {
			spool := s.dir("spool")
			s.follow(spool)
			s.down("web", "a")
			s.want("web", "down a")
			s.bind(spool, spool)
			s.up("web")
			s.want("web", "")
			s.lost(false)
			s.unmount(spool, 0)
			s.down("web", "b")
			s.want("web", "down b")
			s.lost(false)
		}},
		{"with a weight", func(s *mountTest) {
			spool := s.dir("spool")
			s.tmpfs(spool)
			s.follow(spool)
			percent := func(want int) {
				s.t.Helper()
				if got := s.x.Weight("web", "", 80, true); got != want {
					s.t.Fatalf("weight %d, want %d", got, want)
				}
			}
			must(s.t, s.d.WriteWeight(Weight{Key: web, Percent: 25}))
			percent(25)
			s.unmount(spool, 0)
			s.lost(true)
			percent(25)
			s.tmpfs(spool)
			s.lost(false)
			percent(25)
			must(s.t, s.d.EndWeight(web)) // which announces it
			percent(MaxWeight)
		}},
		{"without inotify", func(s *mountTest) {
			spool := s.dir("spool")
			s.tmpfs(spool)
			s.follow(spool, noInotify)
			s.down("web", "a")
			s.want("web", "down a")
			s.unmount(spool, 0)
			s.want("web", "down a")
			s.lost(true)
			s.tmpfs(spool)
			s.want("web", "down a")
			s.down("web", "b")
			s.want("web", "down b")
			s.up("web")
			s.want("web", "")
			s.lost(false)
		}},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			if !inSubprocess(t, namespaces(syscall.CLONE_NEWNS)) {
				return
			}
			must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
			s := &mountTest{t: t, base: t.TempDir()}
			s.tmpfs(s.base) // which goes with the namespace, and all that is mounted in it
			defer func() { must(t, unix.Unmount(s.base, unix.MNT_DETACH)) }()
			tt.play(s)
			s.close()
		})
	}
}
