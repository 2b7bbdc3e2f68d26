package daemon

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// inJournal makes stderr the file at path, and the stream that $JOURNAL_STREAM describes.
func inJournal(t *testing.T, path string) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		c.Stderr = f
		c.Env = append(c.Env, fmt.Sprintf("JOURNAL_STREAM=%d:%d", stat.Dev, stat.Ino))
	}
}

// wantPriorities wants prefix before each line of file that what matches.
func wantPriorities(t *testing.T, file string, prefixOf map[string]string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for line := range bytes.Lines(b) {
		m := regexp.MustCompile(`\blevel"?[=:]"?([A-Z]+)`).FindSubmatch(line)
		if m == nil {
			t.Errorf("a line without a level: %s", line)
			continue
		}
		level := string(m[1])
		found[level] = true
		if rest, ok := bytes.CutPrefix(line, []byte(prefixOf[level])); !ok || rest[0] != 't' && rest[0] != '{' {
			t.Errorf("want the prefix %q: %s", prefixOf[level], line)
		}
	}
	for level := range prefixOf {
		if !found[level] {
			t.Errorf("no line of level %s in:\n%s", level, b)
		}
	}
}

// TestJournalPriority: in the journal each line begins with the priority of its level, and nowhere else.
func TestJournalPriority(t *testing.T) {
	priorities := map[string]string{"DEBUG": "<7>", "INFO": "<6>", "WARN": "<4>"}
	none := map[string]string{"DEBUG": "", "INFO": "", "WARN": ""}
	for _, c := range []struct {
		name, conf string
		journal    bool
		want       map[string]string
	}{
		{"text", "", true, priorities},
		{"json", "log_format: json\n", true, priorities},
		{"another stderr", "", false, none},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			conf, stderr, file := filepath.Join(dir, "hacheck.yaml"), filepath.Join(dir, "stderr"), filepath.Join(dir, "log")
			writeFile(t, conf, c.conf+"cache_tme: 1\n") // a warning
			addr := freeAddr(t)
			p := launch(t, func(cmd *exec.Cmd) {
				inJournal(t, stderr)(cmd)
				if !c.journal {
					cmd.Env = append(cmd.Env, "JOURNAL_STREAM=1:1")
				}
			}, "-v", "-c", conf, "-B", "127.0.0.1", "-p", port(t, addr))
			p.addrs = []string{addr}
			waitForFile(t, stderr, "hacheck answers")
			p.mustGet("/spool/web/0/", 200)
			waitForFile(t, stderr, "/spool/web/0/")
			wantPriorities(t, stderr, c.want)

			// A reload moves the log to a file, and back.
			writeFile(t, conf, c.conf+"cache_tme: 1\nlog_path: "+file+"\n")
			p.signal(syscall.SIGHUP)
			waitForFile(t, file, "reloaded the configuration")
			p.mustGet("/spool/web/0/", 200)
			waitForFile(t, file, "/spool/web/0/")
			b, err := os.ReadFile(file)
			if err != nil || bytes.HasPrefix(b, []byte("<")) || bytes.Contains(b, []byte("\n<")) {
				t.Errorf("the log file has priorities (%v):\n%s", err, b)
			}
			writeFile(t, conf, c.conf+"cache_tme: 1\n")
			p.signal(syscall.SIGHUP)
			waitUntil(t, "the log is back on stderr", func() bool {
				b, err := os.ReadFile(stderr)
				return err == nil && bytes.Count(b, []byte("reloaded the configuration")) == 1
			})
			wantPriorities(t, stderr, c.want)
		})
	}
}

// TestJournalPriorityOfErrors: the reason why the daemon does not start is an error in the journal.
func TestJournalPriorityOfErrors(t *testing.T) {
	dir := t.TempDir()
	conf, stderr := filepath.Join(dir, "hacheck.yaml"), filepath.Join(dir, "stderr")
	writeFile(t, conf, "cache_time: x\ncheck_hosts_allowed: y\n")
	for _, command := range []struct {
		args []string
		exit int
	}{{[]string{"-c", conf}, 2}, {[]string{"run"}, 3}} {
		p := launch(t, inJournal(t, stderr), command.args...)
		p.wantExit(command.exit)
		b, err := os.ReadFile(stderr)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n") {
			if !strings.HasPrefix(line, "<3>") {
				t.Errorf("%v: want the priority of an error: %s", command.args, line)
			}
		}
	}
}

// TestJournalPriorityOfTools: the other tools that run as a service log with priorities too.
func TestJournalPriorityOfTools(t *testing.T) {
	stdout := filepath.Join(t.TempDir(), "stdout")
	addr := freeAddr(t)
	p := launch(t, func(c *exec.Cmd) {
		inJournal(t, stdout)(c)
		c.Args = []string{c.Args[0], "aggregate", "--listener", addr, "--script", "true", "--spool-root", t.TempDir()}
		c.Stdout, c.Stderr = c.Stderr, nil
	})
	waitUntil(t, "the log has a line", func() bool {
		p.wantRunning()
		b, err := os.ReadFile(stdout)
		return err == nil && bytes.Contains(b, []byte("\n"))
	})
	wantPriorities(t, stdout, map[string]string{"INFO": "<6>"})
}
