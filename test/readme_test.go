package test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"hacheck/test/checktest"
)

// These tests run the examples in README.md and docs/*.md. They run a block if the line before its fence is the comment
// <!-- test -->:
//
//	<!-- test -->
//	```console
//	$ hadown web -r 'kernel upgrade'
//	$ curl -s localhost:3333/spool/web/0/
//	Service web in down state since ...: kernel upgrade
//	```
//
// A line that begins with "$ " is a command for a shell, and a line that begins with "> " continues it. The lines after
// it are the expected output, stdout and stderr together. "..." matches any text in a line, and a line "..." matches any
// lines. All blocks of a page are one session in one shell. It starts in an empty directory; bin/ has the commands and is
// in the PATH. $? has the exit code of the last command.
//
// "make run" starts the daemon with that target of the Makefile, in the background with or without an &, until the session
// ends. Its expected output must come within a minute. The tests replace port 3333 by a free port, in commands, in output
// and as the default of the commands, so that another daemon can run on this machine. run/spool is below the empty
// directory. The tests replace 8099 by a port that refuses connections until the session ends, and the ports of etcd, 2379
// and 2380, by free ones.

// example is one command of a page and its expected output.
type example struct {
	line    int
	command string
	want    []string
}

// examplesOf returns the examples in the tested blocks of a page.
func examplesOf(text string) ([]example, error) {
	const marker = "<!-- test -->"
	var examples []example
	inBlock, fenced, marked := false, false, false
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\r\n")
		switch {
		case inBlock && strings.HasPrefix(line, "```"):
			inBlock = false
		case inBlock && strings.HasPrefix(line, "$ "):
			examples = append(examples, example{line: n, command: line[2:]})
		case inBlock && len(examples) == 0:
			return nil, fmt.Errorf("line %d: a tested block begins with a command, \"$ \"", n)
		case inBlock && strings.HasPrefix(line, "> ") && len(examples[len(examples)-1].want) == 0:
			examples[len(examples)-1].command += "\n" + line[2:]
		case inBlock:
			e := &examples[len(examples)-1]
			e.want = append(e.want, line)
		case fenced:
			fenced = !strings.HasPrefix(line, "```")
		case strings.HasPrefix(line, "```"):
			if inBlock = marked; !inBlock {
				fenced = true
			} else if line != "```console" {
				return nil, fmt.Errorf("line %d: a tested block is a ```console block", n)
			}
		}
		if marked && !inBlock {
			return nil, fmt.Errorf("line %d: %s belongs right before a ```console fence", n, marker)
		}
		marked = !inBlock && !fenced && strings.TrimSpace(line) == marker
	}
	if inBlock || fenced || marked {
		return nil, errors.New("the last block is not closed")
	}
	return examples, nil
}

// matchesOutput reports whether the printed lines match the expected output of an example.
func matchesOutput(want, got []string) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	if want[0] == "..." {
		for i := range len(got) + 1 {
			if matchesOutput(want[1:], got[i:]) {
				return true
			}
		}
		return false
	}
	if len(got) == 0 {
		return false
	}
	expr := strings.ReplaceAll(regexp.QuoteMeta(want[0]), regexp.QuoteMeta("..."), ".*")
	return regexp.MustCompile("^"+expr+"$").MatchString(got[0]) && matchesOutput(want[1:], got[1:])
}

// TestExamples runs the examples of the pages.
func TestExamples(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	const readme = "../README.md"
	for _, page := range append(pages, readme) {
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(page)
			if page == readme && errors.Is(err, fs.ErrNotExist) {
				t.Fatal("there is no README.md")
			}
			if err != nil {
				t.Fatal(err)
			}
			examples, err := examplesOf(string(text))
			if err != nil {
				t.Fatal(err)
			}
			if page == readme && len(examples) == 0 {
				t.Fatal("README.md has no tested block: what a new user tries first must be known to work")
			}
			if len(examples) > 0 {
				runExamples(t, examples)
			}
		})
	}
}

func runExamples(t *testing.T, examples []example) {
	port := strconv.Itoa(freePort(t))
	ports := strings.NewReplacer("3333", port, "8099", strconv.Itoa(int(checktest.ClosedPort(t))),
		"2379", strconv.Itoa(freePort(t)), "2380", strconv.Itoa(freePort(t)))
	dir := t.TempDir()
	bins := filepath.Join(dir, "bin")
	if err := os.Mkdir(bins, 0o755); err != nil {
		t.Fatal(err)
	}
	// Wrappers of the commands with the port of the test as the default. The last -p counts, so a page can still name
	// another port.
	for _, name := range []string{"haup", "hadown", "hastatus", "halist", "hashowdowned"} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s -p %s \"$@\"\n", bin(t, name), port)
		if err := os.WriteFile(filepath.Join(bins, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(bin(t, "hacheck"), filepath.Join(bins, "hacheck")); err != nil {
		t.Fatal(err)
	}
	s := startSession(t, dir, bins)
	for _, e := range examples {
		command := ports.Replace(e.command)
		want := make([]string, len(e.want))
		for i := range want {
			want[i] = ports.Replace(e.want[i])
		}
		// Blank lines at the end of a block are not output.
		for len(want) > 0 && want[len(want)-1] == "" {
			want = want[:len(want)-1]
		}
		if makeRun(e.command) {
			d := startMakeRun(t, dir, port)
			eventually(t, func() error {
				got := strings.Split(strings.TrimRight(d.out.String(), "\n"), "\n")
				if len(want) > 0 && !matchesOutput(want, got) {
					return fmt.Errorf("line %d: make run printed:\n%s\nwant:\n%s", e.line, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				return nil
			})
			continue
		}
		if got := s.run(command); !matchesOutput(want, got) {
			t.Errorf("line %d: %s\nprinted:\n%s\nwant:\n%s", e.line, command, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// startMakeRun starts the daemon with make run, with the port and the directories of the session.
func startMakeRun(t *testing.T, dir, port string) *process {
	t.Helper()
	args := []string{"PORT=" + port, "SPOOL=" + filepath.Join(dir, "run/spool"), "BIN=" + filepath.Join(dir, "made")}
	// The build takes longer than the start of a server.
	build := exec.Command(findTool(t, "make"), append(args, "build")...)
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	d := start(t, findTool(t, "make"), append(args, "-C", "..", "run")...)
	d.waitReady(t, net.JoinHostPort("127.0.0.1", port))
	return d
}

// makeRun reports whether the command is make run.
func makeRun(command string) bool {
	return strings.TrimRight(command, " &") == "make run"
}

// session is a shell that runs one command after the other in one environment.
type session struct {
	t     *testing.T
	stdin io.Writer
	lines chan string // what it prints
}

func startSession(t *testing.T, dir, bins string) *session {
	t.Helper()
	cmd := exec.Command(findTool(t, "bash"), "--noprofile", "--norc")
	cmd.Dir = dir
	cmd.SysProcAttr = killWithParent()
	cmd.Env = append(os.Environ(), "PATH="+bins+":"+os.Getenv("PATH"), "LC_ALL=C.UTF-8", "HOME="+dir, "no_proxy=*")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	s := &session{t: t, stdin: stdin, lines: make(chan string)}
	stop := make(chan struct{})
	go func() {
		defer close(s.lines)
		for sc := bufio.NewScanner(r); sc.Scan(); {
			select {
			case s.lines <- sc.Text():
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		close(stop)
		_ = cmd.Wait()
		r.Close()
	})
	return s
}

// run sends a command to the shell and returns the lines that it prints, up to an end line of the test. The next
// command still finds the exit code in $?.
func (s *session) run(command string) []string {
	s.t.Helper()
	const end = "-- end of command --"
	// The command has no stdin: otherwise it could read the commands after it.
	if _, err := fmt.Fprintf(s.stdin, "{ %s\n} </dev/null; code=$?; printf '\\n%s\\n'; (exit $code)\n", command, end); err != nil {
		s.t.Fatalf("%s: the shell has ended: %v", command, err)
	}
	var got []string
	timeout := time.After(waitLimit)
	for {
		select {
		case l, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("%s: the shell has ended after printing\n%s", command, strings.Join(got, "\n"))
			}
			if l != end {
				got = append(got, l)
				continue
			}
			// The line end before ours is the command's own if it did not print one.
			if n := len(got); n > 0 && got[n-1] == "" {
				got = got[:n-1]
			}
			return got
		case <-timeout:
			s.t.Fatalf("%s: not done after %v, so far\n%s", command, waitLimit, strings.Join(got, "\n"))
		}
	}
}

// TestExamplesOf tests the parser of the examples.
func TestExamplesOf(t *testing.T) {
	page := strings.ReplaceAll(`
'''console
$ not run
'''

<!-- test -->
'''console
$ echo one; echo two >&2
one
two
$ printf 'no line end'
no line end
$ x=5
$ false
$ echo $?, $x
1, 5
$ seq 1 100
1
...
99
1...

$ cat <<EOF
> text
> EOF
text
'''
`, "'''", "```")
	examples, err := examplesOf(page)
	if err != nil {
		t.Fatal(err)
	}
	if len(examples) != 7 {
		t.Fatalf("found %d examples, want 7: %+v", len(examples), examples)
	}
	runExamples(t, examples)

	for bad, want := range map[string]string{
		"<!-- test -->\n\n```console\n$ x\n```\n": "right before",
		"<!-- test -->\n```sh\n$ x\n```\n":        "```console block",
		"<!-- test -->\n```console\n$ x\n":        "not closed",
		"<!-- test -->\n```console\nx\n```\n":     "begins with a command",
	} {
		if _, err := examplesOf(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", bad, err, want)
		}
	}
	if matchesOutput([]string{"a"}, nil) || matchesOutput(nil, []string{"a"}) || matchesOutput([]string{"a..c"}, []string{"abc"}) || !matchesOutput([]string{"a...c"}, []string{"abc"}) {
		t.Error("printed does not tell what was printed")
	}
}
