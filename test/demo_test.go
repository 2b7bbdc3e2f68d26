package test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The demos as README.md and docs/fleet.md show them.
const (
	recording      = "../docs/demo.txt"
	fleetRecording = "../docs/demo-fleet.txt"
)

var demoBuilt struct {
	once sync.Once
	err  error
}

// demoCommand returns the command that runs the demo, and the directory of all its files.
func demoCommand(t *testing.T, args ...string) (cmd *exec.Cmd, tmp string) {
	t.Helper()
	commands := filepath.Dir(bin(t, "hacheck"))
	program := filepath.Join(commands, "demo")
	demoBuilt.once.Do(func() {
		args := []string{"build", "-buildvcs=false", "-o", program}
		if raceEnabled {
			args = append(args, "-race")
		}
		build := exec.Command("go", append(args, "./demo")...)
		build.Dir = ".."
		if out, err := build.CombinedOutput(); err != nil {
			demoBuilt.err = fmt.Errorf("build the demo: %w\n%s", err, out)
		}
	})
	if demoBuilt.err != nil {
		t.Fatal(demoBuilt.err)
	}
	// The name of the directory is short, because the path of a Unix socket has at most 107 bytes.
	tmp, err := os.MkdirTemp("", "demo-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	cmd = exec.Command(program, append([]string{"-bin", commands}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "DEMO_PACE=", "NO_COLOR=", "TERM=xterm")
	return cmd, tmp
}

// expectNothingLeft fails the test if a file or a process of an ended demo is left.
func expectNothingLeft(t *testing.T, tmp string) {
	t.Helper()
	files, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		t.Errorf("left behind: %s", filepath.Join(tmp, f.Name()))
	}
	for _, p := range demoProcesses(t, tmp) {
		t.Errorf("still runs: %s", p)
	}
}

// demoProcesses returns the command lines of the demo's processes. All of them name its directory.
func demoProcesses(t *testing.T, tmp string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range paths {
		words, err := os.ReadFile(path)
		if err == nil && bytes.Contains(words, []byte(tmp+"/")) { // an error: it has ended
			found = append(found, strings.ReplaceAll(string(words), "\x00", " "))
		}
	}
	return found
}

// TestDemo runs the demo. HAProxy must do what the demo says, no request may be lost, nothing may be left, and the
// output must match docs/demo.txt except for numbers. With -update it records docs/demo.txt, at a pace for viewers.
func TestDemo(t *testing.T) {
	t.Parallel()
	text := runDemo(t, recording)

	var states []string
	for _, m := range regexp.MustCompile(`(?m)^  HAProxy has (.*): `).FindAllStringSubmatch(text, -1) {
		states = append(states, m[1])
	}
	if diff := cmp.Diff([]string{"web1 DOWN", "web1 UP", "web1 NOLB", "web1 DOWN", "web1 UP"}, states); diff != "" {
		t.Errorf("what HAProxy made of it (-want +got):\n%s", diff)
	}
	rest := expectInOrder(t, text,
		"$ hadown web1 -r 'kernel upgrade'\n",
		"  HAProxy has web1 DOWN: hacheck has answered 503, down\n",
		"DOWN\tinf\tweb1\tkernel upgrade\n",
		"no other server would be left",
		"$ haup web1\n",
		"  HAProxy has web1 UP: hacheck has answered 200\n",
		"  HAProxy has web1 NOLB: hacheck has answered 404, drain\n",
		"\ndrain  web1 ",
		"web1: out with 1 balancer after ",
		"$ haup web1 --wait\n",
		"web1: up with 1 balancer after ",
		" requests, 0 lost, while web1 was taken out twice and replaced once.\n",
	)
	expectPages(t, rest)
	if diff := cmp.Diff(withoutNumbers(readFile(t, recording)), withoutNumbers(text)); diff != "" {
		t.Errorf("%s is not what the demo prints; go test ./test -run TestDemo -update records it anew (-want +got):\n%s", recording, diff)
	}
}

// runDemo runs a demo and returns its output. No request may be lost, and nothing may be left. With -update it records
// the demo in a file, at a pace for viewers.
func runDemo(t *testing.T, file string, args ...string) string {
	t.Helper()
	pace := "0"
	if *update {
		pace = "1"
	}
	cmd, tmp := demoCommand(t, append(args, "-pace", pace)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("%v, want exit 0 and nothing on stderr\n%s\n%s", err, &stderr, out)
	}
	expectNothingLeft(t, tmp)
	if lost := regexp.MustCompile(`[1-9][0-9]* lost`).FindString(string(out)); lost != "" {
		t.Errorf("%s:\n%s", lost, out)
	}
	if *update {
		// A directory of this test's is no help to the reader.
		if err := os.WriteFile(file, bytes.ReplaceAll(out, []byte(tmp), []byte("/tmp")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return string(out)
}

// expectInOrder fails the test unless text contains the keys in this order. It returns the text after the last one.
func expectInOrder(t *testing.T, text string, keys ...string) (rest string) {
	t.Helper()
	rest = text
	for _, key := range keys {
		_, after, found := strings.Cut(rest, key)
		if !found {
			t.Fatalf("no %q, or not in its place:\n%s", key, text)
		}
		rest = after
	}
	return rest
}

// expectPages fails the test unless the pages that text names exist.
func expectPages(t *testing.T, text string) {
	t.Helper()
	for _, page := range regexp.MustCompile(`[\w/]+\.md`).FindAllString(text, -1) {
		if _, err := os.Stat(filepath.Join("..", page)); err != nil {
			t.Errorf("to be read next: %v", err)
		}
	}
}

// TestDemoFleet runs the demo of a fleet, which fails if one of its claims does not hold. It must say and run the same
// as docs/demo-fleet.txt. The output of its commands depends on which of several hosts is first.
func TestDemoFleet(t *testing.T) {
	t.Parallel()
	text := runDemo(t, fleetRecording, "-fleet")
	rest := expectInOrder(t, text,
		"web1, web2 $ hadown --safe web ",
		"nothing was changed: web: 1 of 3 hosts is out and the budget is 1: web",
		"web3 $ hastatus --fleet\n",
		" $ haup --wait web\n",
		"web1, web2, web3 $ hadown --safe --wait-turn --drain --wait web ",
		"web1 $ hadown --safe web ",
		"nothing was changed: ",
		"web1 $ hadown web ",
		"  HAProxy has web1 DOWN: hacheck has answered 503, down\n",
		"  HAProxy has web1 UP: hacheck has answered 200\n",
		" requests, 0 lost, while three hosts were restarted",
	)
	expectPages(t, rest)
	said := func(text string) (lines []string) {
		for line := range strings.Lines(text) {
			if regexp.MustCompile(`^(# |web[\d, web]* \$ )`).MatchString(line) {
				lines = append(lines, regexp.MustCompile(`^web[12] \$ haup`).ReplaceAllString(line, "web $$ haup"))
			}
		}
		return lines
	}
	if diff := cmp.Diff(said(readFile(t, fleetRecording)), said(text)); diff != "" {
		t.Errorf("%s is not what the demo prints; go test ./test -run TestDemoFleet -update records it anew (-want +got):\n%s", fleetRecording, diff)
	}
}

// withoutNumbers returns the lines of a demo without what differs between runs: counts of requests, and how often
// hadown --wait reports.
func withoutNumbers(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if strings.Contains(line, ": lb1 (web/web1): ") && !strings.HasSuffix(line, ": out") && !strings.HasSuffix(line, ": up") {
			continue
		}
		for _, r := range []struct{ number, with string }{
			{`\S*/hacheck-demo-\d+/`, "DIR/"},
			{`127\.0\.0\.1:\d+`, "ADDRESS"},
			{`\d+ requests`, "N requests"},
			{`\d+\w* ago`, "N ago"},
			{`(: out with .*); \d+ connections? to port.*$`, "$1"}, // idle ones in HAProxy's pool
			{`after \d+\w*$`, "after N"},
			{`^(web2 .*) \d+ sessions? `, "$1 N sessions "},   // in hastatus
			{`^(  web\d +UP) +\d+ `, "$1 N "},                 // open
			{`^(  web\d +\w+ +\w+) +[1-9]\d* `, "$1 N "},      // answers/s
			{`(web1: lb1 .*), \d+ sessions? open: up$`, "$1"}, // it has requests again
			{`lifted +(\S+|uid \d+) +version 2$`, "lifted USER version 2"},
			{` +`, " "},
		} {
			line = regexp.MustCompile(r.number).ReplaceAllString(line, r.with)
		}
		lines = append(lines, line)
	}
	return lines
}

// TestDemoRejectsInvalidUse: invalid arguments give an error of one sentence.
func TestDemoRejectsInvalidUse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
		exit int
		want string
	}{
		{"no HAProxy", []string{"-haproxy", "no-such-haproxy"}, 1, "demo: no-such-haproxy is not installed, and the demo needs HAProxy 2.2 or later: apt-get install haproxy (or dnf, apk, brew install haproxy)\n"},
		{"no commands", []string{"-bin", "no-such-directory"}, 1, "demo: there is no hacheck in no-such-directory: make build\n"},
		{"no etcd", []string{"-fleet", "-etcd", "no-such-etcd"}, 1, "demo: no-such-etcd is not installed, and the demo needs etcd 3.4 or later: apt-get install etcd-server (or dnf, apk, brew install etcd)\n"},
		{"no etcd that works", []string{"-fleet", "-etcd", "false"}, 1, "demo: false ended at its start: it printed nothing\n"},
		{"no HAProxy that works", []string{"-haproxy", "false"}, 1, "demo: false ended at its start: it printed nothing\n"},
		{"no pace", []string{"-pace", "fast"}, 2, "demo: -pace and DEMO_PACE are a number from 0 to 10, not \"fast\"\n"},
		{"too slow", []string{"-pace", "11"}, 2, "demo: -pace and DEMO_PACE are a number from 0 to 10, not \"11\"\n"},
		{"an argument", []string{"now"}, 2, "demo: takes no arguments, not \"now\"\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd, tmp := demoCommand(t, tt.args...)
			out, err := cmd.CombinedOutput()
			if exitCode(err) != tt.exit || string(out) != tt.want {
				t.Errorf("exit %d, %q; want exit %d, %q", exitCode(err), out, tt.exit, tt.want)
			}
			expectNothingLeft(t, tmp)
		})
	}
}

// TestDemoBrokenPipe: all processes of the demo end when the reader of its output does.
func TestDemoBrokenPipe(t *testing.T) {
	t.Parallel()
	cmd, tmp := demoCommand(t, "-pace", "0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	out.Close()
	kill := time.AfterFunc(waitLimit, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	if err := cmd.Wait(); exitCode(err) != 128+int(syscall.SIGPIPE) {
		t.Errorf("%v, want exit 141", err)
	}
	expectNothingLeft(t, tmp)
}
