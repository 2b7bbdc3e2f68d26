package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests unmount or remove the spool directory, make it unreadable, or give the commands another one than the
// daemon. A command must not succeed if no daemon obeys its override, and a mount must not bring a service up.

// TestUnmountedSpool: an override stays when its file system is unmounted, and the metric hacheck_spool_lost is 1 until
// the file system is mounted again.
func TestUnmountedSpool(t *testing.T) { runInNamespace(t, syscall.CLONE_NEWNS, unmountSpool) }

func unmountSpool(t *testing.T) {
	mount := func(source, target, fstype string, flags uintptr) {
		t.Helper()
		if err := syscall.Mount(source, target, fstype, flags, ""); err != nil {
			t.Fatalf("mount %s: %v", target, err)
		}
	}
	mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE)
	for _, how := range []string{"file system", "bind mount", "mount of the parent"} {
		t.Run(how, func(t *testing.T) {
			disk, point := t.TempDir(), t.TempDir()
			spool, source, fstype, flags := point, disk, "", uintptr(syscall.MS_BIND)
			switch how {
			case "file system":
				source, fstype, flags = "tmpfs", "tmpfs", 0
			case "mount of the parent":
				spool = filepath.Join(point, "spool")
				for _, dir := range []string{spool, filepath.Join(disk, "spool")} {
					if err := os.Mkdir(dir, 0o750); err != nil {
						t.Fatal(err)
					}
				}
			}
			mount(source, point, fstype, flags)
			d := startDaemonOn(t, spool, nil)
			d.mustRun("hadown", "web", "-r", "disk")
			if a := d.get("/spool/web/0/"); a.code != 503 {
				t.Fatalf("before: %d %s", a.code, a.body)
			}
			eventually(t, func() error { return syscall.Unmount(point, 0) }) // EBUSY while the daemon reads it
			down := func(when string) {
				t.Helper()
				if a := d.get("/spool/web/0/"); a.code != 503 || !strings.Contains(a.body, "disk") {
					t.Fatalf("%s: %d %s", when, a.code, a.body)
				}
			}
			lost := func(want string) {
				t.Helper()
				eventually(t, func() error {
					down("hacheck_spool_lost " + want)
					if m := d.get("/metrics").body; !strings.Contains(m, "\nhacheck_spool_lost "+want+"\n") {
						return fmt.Errorf("hacheck_spool_lost is not %s", want)
					}
					return nil
				})
			}
			down("at once")
			lost("1")
			if out, err := d.run("hadown", "other", "-r", "below"); err != nil || d.get("/spool/other/0/").code != 503 || !strings.Contains(out, "mount") {
				t.Errorf("hadown meanwhile: %v %s", err, out)
			}
			d.mustRun("haup", "other")
			mount(source, point, fstype, flags)
			if how == "file system" { // another, empty one
				lost("1")
			} else {
				lost("0")
			}
			d.mustRun("haup", "web")
			if a := d.get("/spool/web/0/"); a.code != 200 {
				t.Errorf("lifted: %d %s", a.code, a.body)
			}
			eventually(t, func() error { return syscall.Unmount(point, 0) })
			if err := d.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUnmountedWeight: a weight stays when its file system is unmounted, and haup ends it although the directory that it
// sees has none.
func TestUnmountedWeight(t *testing.T) { runInNamespace(t, syscall.CLONE_NEWNS, unmountWeight) }

func unmountWeight(t *testing.T) {
	spool, agent := t.TempDir(), freePort(t)
	mount := func(source, fstype, target string, flags uintptr) {
		t.Helper()
		if err := syscall.Mount(source, target, fstype, flags, ""); err != nil {
			t.Fatalf("mount %s: %v", target, err)
		}
	}
	mount("", "", "/", syscall.MS_REC|syscall.MS_PRIVATE)
	mount("tmpfs", "tmpfs", spool, 0)
	d := startDaemonOn(t, spool, nil, "-A", strconv.Itoa(agent))
	says := func(when, want string) {
		t.Helper()
		if got := askAgent(t, agent, "web"); got != want {
			t.Fatalf("%s: the agent says %q, want %q", when, got, want)
		}
	}
	for range 3 { // before that the client may be a person
		says("without a weight", "up ready")
	}
	d.mustRun("haup", "web", "--weight", "25%")
	says("with a weight", "up ready 25%")
	eventually(t, func() error { return syscall.Unmount(spool, 0) }) // EBUSY while the daemon reads it
	mount("tmpfs", "tmpfs", spool, 0)
	says("without its file system", "up ready 25%")
	d.mustRun("haup", "web")
	says("after haup", "up ready 100%")
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	eventually(t, func() error { return syscall.Unmount(spool, 0) })
}

// startDaemonOn starts hacheck on a spool directory, with more args. With as, it runs as that user.
func startDaemonOn(t *testing.T, spool string, as *syscall.Credential, args ...string) *daemon {
	t.Helper()
	d := newDaemon(t, "127.0.0.1", freePort(t), spool)
	command := bin(t, "hacheck")
	p := &process{name: "hacheck", done: make(chan struct{})}
	if as != nil { // this user cannot read the directory of the commands
		command = filepath.Join(filepath.Dir(spool), "hacheck")
		if err := os.WriteFile(command, []byte(readFile(t, bin(t, "hacheck"))), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p.cmd = exec.Command(command, append(args, "-B", "127.0.0.1", "-p", strconv.Itoa(d.port), "--spool-root", spool)...)
	p.cmd.Dir = "/"
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: as}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
		if err := p.stop(); err != nil || t.Failed() {
			t.Logf("hacheck: %v\n%s", err, p.out.String())
		}
	})
	d.process = p
	d.waitReady(t, d.addr)
	return d
}

// reachableDir returns a new directory that every user can reach.
func reachableDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for p := dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestDaemonReadsOtherSpool: a command fails if the daemon reads another directory or cannot read this one. The
// message names both directories.
func TestDaemonReadsOtherSpool(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	d.mustRun("hadown", "web", "-r", "why")
	other := filepath.Join(t.TempDir(), "typo")
	run := func(stdin string, args ...string) (stdout, stderr string, exit int) {
		t.Helper()
		cmd := exec.Command(bin(t, stdin), args...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		return out.String(), errs.String(), exitCode(err)
	}
	port := strconv.Itoa(d.port)
	for _, c := range []struct {
		name   string
		args   []string
		exit   int
		stderr []string
	}{
		{"haup", []string{"web", "--spool-root", other, "-p", port}, 1, []string{d.spool, other, "--spool-root"}},
		{"hadown", []string{"db", "-r", "x", "--spool-root", other, "-p", port}, 1, []string{d.spool, other, "--spool-root", "did not exist and was created"}},
		{"hadown", []string{"db", "-r", "x", "--spool-root", other, "-p", port, "--json"}, 1, []string{d.spool}},
		{"hadown", []string{"db", "-r", "x", "--spool-root", other, "-p", port, "--wait=30s"}, 1, []string{d.spool}},
		{"haup", []string{"web", "--spool-root", other, "-p", port}, 1, []string{d.spool, other}},
		{"hastatus", []string{"web", "--spool-root", other, "-p", port}, 0, []string{"warning", d.spool, other}},
		{"hastatus", []string{"--spool-root", other, "-p", port}, 0, []string{"warning", d.spool, other}},
		{"hashowdowned", []string{"--spool-root", other, "-p", port}, 0, []string{"warning", d.spool, other}},
		{"hadown", []string{"db", "-r", "x", "--spool-root", other, "-p", ""}, 0, nil},
		{"haup", []string{"db", "--spool-root", other, "-p", ""}, 0, nil},
		{"haup", []string{"db", "--spool-root", other, "-p", strconv.Itoa(freePort(t))}, 0, nil}, // no daemon there
		{"hadown", []string{"db", "-r", "x", "--spool-root", d.spool + "/.", "-p", port}, 0, nil},
		{"haup", []string{"db", "web", "--spool-root", d.spool, "-p", "localhost:" + port}, 0, nil},
		{"hadown", []string{"web", "--wait", "-p", ""}, 2, []string{"no daemon"}},
	} {
		stdout, stderr, exit := run(c.name, c.args...)
		for _, part := range c.stderr {
			if !strings.Contains(stderr, part) {
				t.Errorf("%s %q: stderr %q does not say %q", c.name, c.args, stderr, part)
			}
		}
		if exit != c.exit || c.stderr == nil && stderr != "" {
			t.Errorf("%s %q exits with %d, want %d: %s%s", c.name, c.args, exit, c.exit, stdout, stderr)
		}
		if strings.Contains(strings.Join(c.args, " "), "--json") && !strings.Contains(stdout, `"error":"the daemon on`) {
			t.Errorf("%s %q: %s", c.name, c.args, stdout)
		}
	}
	if a := d.get("/spool/web/0/"); a.code != 200 {
		t.Errorf("lifted: %d", a.code)
	}
	// These requests of the commands are not recorded as requests of clients.
	if a := d.get("/recent"); strings.Contains(a.body, `"db"`) {
		t.Errorf("/recent: %s", a.body)
	}
	if a := d.get("/balancers"); !strings.Contains(a.body, `"balancers":[]`) {
		t.Errorf("/balancers: %s", a.body)
	}

	// A daemon that hangs delays a command by a second and does not make it fail.
	if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	out, err := d.run("hadown", "db", "-r", "x")
	took := time.Since(began)
	if err := d.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if exitCode(err) != 0 || !strings.Contains(out, "warning") || took < time.Second/2 || took > 20*time.Second {
		t.Errorf("beside a daemon that hangs: %v after %v: %s", err, took, out)
	}
}

// TestRemovedSpool: after the spool directory was removed, hadown of root creates one that the daemon can read, or
// fails. Without root, the test and the daemon are the same user.
func TestRemovedSpool(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		owner int // of the parent
		exit  int
	}{{"parent of the daemon's user", 65534, 0}, {"parent of root", 0, 1}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			spool := filepath.Join(reachableDir(t), "spool")
			if err := os.Mkdir(spool, 0o750); err != nil {
				t.Fatal(err)
			}
			var nobody *syscall.Credential
			if os.Geteuid() == 0 {
				nobody = &syscall.Credential{Uid: 65534, Gid: 65534}
				for path, uid := range map[string]int{spool: 65534, filepath.Dir(spool): c.owner} {
					if err := os.Chown(path, uid, uid); err != nil {
						t.Fatal(err)
					}
				}
			} else {
				c.exit = 0
			}
			d := startDaemonOn(t, spool, nobody)
			d.mustRun("hadown", "web", "-r", "why")
			if a := d.get("/spool/web/0/"); a.code != 503 {
				t.Fatalf("before: %d", a.code)
			}
			if err := os.RemoveAll(spool); err != nil {
				t.Fatal(err)
			}
			out, err := d.run("haup", "web")
			if a := d.get("/spool/web/0/"); exitCode(err) != 1 || a.code != 503 || !strings.Contains(out, "cannot read "+spool) {
				t.Errorf("haup without a directory: %v %s; web answers %d", err, out, a.code)
			}
			out, err = d.run("hadown", "db", "-r", "why")
			if exitCode(err) != c.exit || !strings.Contains(out, spool+" did not exist and was created") {
				t.Errorf("hadown exits with %d, want %d: %s", exitCode(err), c.exit, out)
			}
			want := 503
			if c.exit != 0 {
				want = 200
				if !strings.Contains(out, "cannot read "+spool) {
					t.Errorf("hadown: %s", out)
				}
				if a := d.get("/spool/web/0/"); a.code != 503 {
					t.Errorf("the directory cannot be read, and web is %d", a.code)
				}
			}
			if a := d.get("/spool/db/0/"); a.code != want {
				t.Errorf("db answers %d, want %d", a.code, want)
			}
		})
	}
}
