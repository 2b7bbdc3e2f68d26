package admin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"hacheck/internal/spool"
)

// TestManyNames: with thousands of names each command lists the directory a few times and sends the daemon a few requests,
// and not for each name.
func TestManyNames(t *testing.T) {
	t.Parallel()
	const n = 2000 // the kernel queues more than the four events of each
	root := t.TempDir()
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("service-%d", i)
	}
	requests := atomic.Int64{}
	daemon := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.WriteHeader(http.StatusNotFound)
	}))
	defer daemon.Close()
	listings := countListings(t, root)
	run := func(command string, code, lines int, args ...string) {
		t.Helper()
		var out strings.Builder
		env := scriptEnv()
		env.Stdout, env.Stderr = &out, os.Stderr
		all := []string{command, "--spool-root", root, "--control-socket", "", "-p", strings.TrimPrefix(daemon.URL, "http://")}
		got := Main(command, slices.Concat(all, args, names), env)
		if got != code || strings.Count(out.String(), "\n") != lines {
			t.Errorf("%s %q: exit %d, %d lines; want exit %d, %d lines", command, args, got, strings.Count(out.String(), "\n"), code, lines)
		}
		if listed, asked := listings(), requests.Swap(0); listed > 20 || asked > 3 { // a listing has several reads
			t.Errorf("%s %q: the directory was read %d times, and the daemon got %d requests", command, args, listed, asked)
		}
	}
	run("hadown", ExitOK, 0, "-P", "80", "-r", "many")
	run("hadown", ExitOK, 0, "-P", "80", "-r", "again")
	run("hastatus", ExitFailed, n, "-P", "80")
	run("haup", ExitOK, 0, "-P", "80")
	run("hadown", ExitOK, 0, "--until-boot", "-r", "many")
	run("hastatus", ExitFailed, n)
	run("haup", ExitOK, 1, "--json")
	run("hastatus", ExitOK, n)
	dir, err := spool.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := dir.List(); err != nil || len(list) != 0 {
		t.Errorf("%d overrides, %v; want none", len(list), err)
	}
}

// countListings returns a function that returns how often the names in root were read since its last call. The kernel
// merges equal events in a row: two listings count as one if no file or directory is opened between them.
func countListings(t *testing.T, root string) func() int {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, root, unix.IN_OPEN|unix.IN_ACCESS|unix.IN_MOVED_FROM); err != nil {
		t.Fatal(err)
	}
	return func() (listings int) {
		t.Helper()
		for buf := make([]byte, 64<<10); ; {
			n, err := unix.Read(fd, buf)
			if errors.Is(err, unix.EAGAIN) {
				return listings
			}
			if err != nil {
				t.Fatal(err)
			}
			for rest := buf[:n]; len(rest) > 0; rest = rest[unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(rest[12:]):] {
				mask := binary.NativeEndian.Uint32(rest[4:])
				if mask&unix.IN_Q_OVERFLOW != 0 {
					t.Fatal("the kernel has dropped events")
				}
				if mask&unix.IN_ACCESS != 0 && mask&unix.IN_ISDIR != 0 {
					listings++
				}
			}
		}
	}
}
