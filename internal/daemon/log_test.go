package daemon

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func lostLine(n int) []byte { return fmt.Appendf(nil, "lost %d\n", n) }

func TestLogWriterCountsWhatIsLost(t *testing.T) {
	defer goleak.VerifyNone(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := newLogWriter(&logFile{file: w, path: "a pipe, closed with the sink", checked: time.Now().Add(time.Hour)}, lostLine)
	// Without a reader, 64 KiB fill the pipe, then the queue fills, and no Write blocks.
	line := bytes.Repeat([]byte("x"), 1023)
	line = append(line, '\n')
	const lines = 3000
	for range lines {
		if n, err := s.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	var got bytes.Buffer
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = got.ReadFrom(r) })
	waitUntil(t, "the queue is written", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.queue) == 0
	})
	s.Write([]byte("the last\n"))
	s.close(testTimeout)
	<-s.done
	reading.Wait()
	written := bytes.Count(got.Bytes(), line)
	if want := fmt.Sprintf("lost %d\n", lines-written); written == lines || !strings.Contains(got.String(), want) {
		t.Errorf("%d of %d lines were written, and nowhere does it say %q", written, lines, want)
	}
	if !strings.Contains(got.String(), "the last\n") {
		t.Error("the last line is lost")
	}
	s.Write(line) // after close: it neither panics nor blocks
}

// TestLogWriterChangesFile: lines from before a change stay in the old file.
func TestLogWriterChangesFile(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := t.TempDir()
	for i := range 50 {
		paths := []string{filepath.Join(dir, fmt.Sprint("a", i)), filepath.Join(dir, fmt.Sprint("b", i)), filepath.Join(dir, fmt.Sprint("c", i))}
		var targets []*logFile
		for _, path := range paths {
			target, err := openLog(path)
			if err != nil {
				t.Fatal(err)
			}
			targets = append(targets, target)
		}
		s := newLogWriter(targets[0], lostLine)
		s.Write([]byte("one\n"))
		s.setFile(targets[1], lostLine)
		if i%2 == 0 {
			s.Write([]byte("two\n"))
		}
		s.setFile(targets[2], lostLine)
		s.setFile(nil, lostLine)
		s.Write([]byte("three\n"))
		s.close(testTimeout)
		<-s.done
		var got []string
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(b))
		}
		// If a file was replaced before the goroutine opened it, its lines are in the file before.
		if got[0] != "one\n" && got[0] != "one\ntwo\n" || got[0]+got[1] != map[bool]string{true: "one\ntwo\n", false: "one\n"}[i%2 == 0] || got[2] != "three\n" {
			t.Fatalf("the logs are %q", got)
		}
	}
}

// TestLogWriterEndsPartialLine: the disk is full in the middle of a line, and has space again later.
func TestLogWriterEndsPartialLine(t *testing.T) {
	defer goleak.VerifyNone(t)
	path := filepath.Join(t.TempDir(), "log")
	target, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	var most syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &most); err != nil {
		t.Fatal(err)
	}
	limit := func(l syscall.Rlimit) {
		t.Helper()
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			t.Fatal(err)
		}
	}
	defer limit(most)
	small := most
	small.Cur = 10 // a write beyond is cut off, and the next one is an error
	limit(small)
	if lost := target.write([]byte("12345\n12345\n12345\n")); lost != 2 {
		t.Errorf("%d lines lost, want 2", lost)
	}
	if lost := target.write([]byte("12345\n")); lost != 1 {
		t.Errorf("%d lines lost, want 1", lost)
	}
	limit(most)
	if lost := target.write([]byte("whole\n")); lost != 0 {
		t.Errorf("%d lines lost, want 0", lost)
	}
	target.close()
	b, err := os.ReadFile(path)
	if want := "12345\n1234\nwhole\n"; err != nil || string(b) != want {
		t.Errorf("the log is %q, %v; want %q", b, err, want)
	}
}

func TestOpenLog(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, fifo, filepath.Join(dir, "no", "log")} {
		if target, err := openLog(path); err == nil {
			target.close()
			t.Errorf("openLog(%s) succeeds", path)
		}
	}
	for path, want := range map[string]*os.File{"stdout": os.Stdout, "stderr": os.Stderr} {
		target, err := openLog(path)
		if err != nil || target.file != want {
			t.Errorf("openLog(%s) = %v, %v", path, target, err)
		}
		target.close() // does not close it
		if _, err := want.Stat(); err != nil {
			t.Errorf("%s is closed: %v", path, err)
		}
	}
}

// TestFormatSwitch: loggers that were derived before the switch use the new handler, with their attributes and groups.
func TestFormatSwitch(t *testing.T) {
	var text, json bytes.Buffer
	h := newReplaceableHandler(slog.LevelInfo, newHandler("text", &text, slog.LevelInfo))
	log := slog.New(h).With("a", 1).WithGroup("g").With("b", 2)
	other := slog.New(h)
	log.Info("one", "c", 3)
	h.setHandler(newHandler("json", &json, slog.LevelInfo))
	log.Info("two", "c", 3)
	other.Debug("not said")
	other.Info("three")
	if got := text.String(); !strings.HasSuffix(got, "msg=one a=1 g.b=2 g.c=3\n") {
		t.Errorf("text: %s", got)
	}
	if got := json.String(); !strings.Contains(got, `"msg":"two","a":1,"g":{"b":2,"c":3}}`) ||
		!strings.HasSuffix(got, `"msg":"three"}`+"\n") || strings.Contains(got, "not said") {
		t.Errorf("json: %s", got)
	}
}

// TestDurationsHaveAUnit: a duration in the log has a unit in both formats.
func TestDurationsHaveAUnit(t *testing.T) {
	for format, want := range map[string]string{"text": " took=1.5s g.after=2m0s\n", "json": `"took":"1.5s","g":{"after":"2m0s"}}` + "\n"} {
		var b bytes.Buffer
		log := slog.New(newHandler(format, &b, slog.LevelInfo)).With("took", 1500*time.Millisecond)
		log.Info("checked", slog.Group("g", "after", 2*time.Minute))
		if !strings.HasSuffix(b.String(), want) {
			t.Errorf("%s: %s, want the end %s", format, b.String(), want)
		}
	}
}
