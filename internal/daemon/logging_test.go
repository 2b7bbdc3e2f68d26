package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"hacheck/test/checktest"
)

// TestLogWithoutReader: the reader of stderr has gone (SIGPIPE), or it does not read and the pipe is full.
func TestLogWithoutReader(t *testing.T) {
	for _, gone := range []bool{true, false} {
		t.Run(fmt.Sprintf("gone=%v", gone), func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			addr := freeAddr(t)
			p := launch(t, func(c *exec.Cmd) { c.Stderr = w }, "-v", "-B", "127.0.0.1", "-p", port(t, addr))
			w.Close()
			p.addrs = []string{addr}
			waitUntil(t, "the daemon answers", func() bool {
				p.wantRunning()
				code, _, _ := p.get("/spool/web/0/")
				return code == 200
			})
			if gone {
				r.Close()
			}
			// A pipe holds 64 KiB, the queue 1 MiB.
			long, refusing := strings.Repeat("x", 10_000), strconv.Itoa(int(checktest.ClosedPort(t)))
			for i := range 200 {
				p.mustGet("/http/web/"+refusing+"/"+strconv.Itoa(i)+long, 503)
			}
			p.signal(syscall.SIGTERM)
			p.wantExit(0)
		})
	}
}

func waitForFile(t *testing.T, path, text string) {
	t.Helper()
	waitUntil(t, path+" says "+text, func() bool {
		b, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(b), text)
	})
}

// TestLogRotation: a log file that was moved away is created again, with SIGHUP and without, and is never readable by all.
func TestLogRotation(t *testing.T) {
	dir := t.TempDir()
	log, conf := filepath.Join(dir, "log"), filepath.Join(dir, "hacheck.yaml")
	writeFile(t, conf, "log_path: "+log+"\n")
	addr := freeAddr(t)
	p := launch(t, nil, "-v", "-c", conf, "-B", "127.0.0.1", "-p", port(t, addr))
	p.addrs = []string{addr}
	waitForFile(t, log, "hacheck answers")

	rotate := func(n int) {
		t.Helper()
		if info, err := os.Stat(log); err != nil || info.Mode() != 0o640 {
			t.Errorf("before rotation %d the log has mode %v, %v, want 0640", n, info.Mode(), err)
		}
		if err := os.Rename(log, log+"."+strconv.Itoa(n)); err != nil {
			t.Fatal(err)
		}
	}
	rotate(1)
	p.signal(syscall.SIGHUP)
	waitForFile(t, log, "reloaded the configuration")

	rotate(2)
	n := 0
	waitUntil(t, "the log is made anew by itself", func() bool {
		n++
		p.mustGet("/spool/n"+strconv.Itoa(n)+"/0/", 200)
		_, err := os.Stat(log)
		return err == nil
	})
	// Every line is in one of the files.
	p.mustGet("/spool/last/0/", 200)
	waitForFile(t, log, "/spool/last/0/")
	if info, err := os.Stat(log); err != nil || info.Mode() != 0o640 {
		t.Errorf("a log that was made anew without a signal has mode %v, %v, want 0640", info.Mode(), err)
	}
	var all strings.Builder
	for _, f := range []string{log + ".2", log} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	for i := 1; i <= n; i++ {
		if !strings.Contains(all.String(), "/spool/n"+strconv.Itoa(i)+"/0/") {
			t.Errorf("the line of request %d of %d is lost", i, n)
		}
	}

	// The directory is removed and created again. Until then the open file is the log.
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	waitForFile(t, filepath.Join(dir+".gone", "log"), "not reloaded")
	if err := os.Rename(dir+".gone", dir); err != nil {
		t.Fatal(err)
	}
	if said := p.log(); said != "" {
		t.Errorf("stderr says %q", said)
	}
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
	waitForFile(t, log, "msg=stopped")
}

// TestFullDisk: the daemon answers while the log cannot be written.
func TestFullDisk(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "hacheck.yaml")
	writeFile(t, conf, "log_path: /dev/full\n")
	addr := freeAddr(t)
	p := launch(t, nil, "-v", "-c", conf, "-B", "127.0.0.1", "-p", port(t, addr))
	p.addrs = []string{addr}
	waitUntil(t, "the daemon answers", func() bool {
		p.wantRunning()
		code, _, _ := p.get("/spool/web/0/")
		return code == 200
	})
	for range 100 {
		p.mustGet("/spool/web/0/", 200)
	}
	p.signal(syscall.SIGTERM)
	p.wantExit(0)
}

// TestOverrideIsLogged: one line when an override is set and one when it is lifted, and none for a request.
func TestOverrideIsLogged(t *testing.T) {
	spool := filepath.Join(t.TempDir(), "spool")
	p := startDaemon(t, "--spool-root", spool)
	file := filepath.Join(spool, "web:80")
	// Renamed, because the daemon could see the file before its content.
	beside := filepath.Join(filepath.Dir(spool), "beside")
	writeFile(t, beside, `{"reason": "new disk", "expiration": 4000000000, "creation": 1500000000, "by": "alice"}`)
	if err := os.Rename(beside, file); err != nil {
		t.Fatal(err)
	}
	p.mustGet("/spool/web/80/", 503)
	p.waitForLog(regexp.MustCompile(`level=INFO msg="override set" service=web:80 state=down reason="new disk" since=2017-07-14T\S+ until=2096-10-02T\S+ by=alice`))
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	p.mustGet("/spool/web/80/", 200)
	p.waitForLog(regexp.MustCompile(`level=INFO msg="override lifted" service=web:80 state=down reason="new disk".* by=alice`))
	if said := p.log(); strings.Contains(said, "/spool/web") {
		t.Errorf("requests are logged without -v:\n%s", said)
	}
}
