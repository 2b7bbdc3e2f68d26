package loglimit

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// buffer is a log that a timer may write to.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// take returns what was written since the last call, without times and levels.
func (b *buffer) take() string {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.b.String()
	b.b.Reset()
	return strings.ReplaceAll(s, `level=WARN msg="too many log lines about one subject; some were left out" `, "")
}

func start(t *testing.T, f func(l *Limiter, log *buffer)) {
	synctest.Test(t, func(*testing.T) {
		log := &buffer{}
		h := slog.NewTextHandler(log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})
		f(New(slog.New(h)), log)
	})
}

// allowed calls Allow n times and returns how often it was true.
func allowed(l *Limiter, c Class, subject string, n int) (lines int) {
	for range n {
		if l.Allow(c, subject, "up or down") {
			lines++
		}
	}
	return lines
}

// TestLeftOutLinesAreReportedInSilence: the count comes although no other line does, once, and the subject has its
// lines again.
func TestLeftOutLinesAreReportedInSilence(t *testing.T) {
	start(t, func(l *Limiter, log *buffer) {
		if n := allowed(l, Service, "web", 100); n != limits[Service].perSubject {
			t.Errorf("%d lines, want %d", n, limits[Service].perSubject)
		}
		if got := log.take(); got != "" {
			t.Errorf("reported at once: %s", got)
		}
		time.Sleep(minute)
		if got, want := log.take(), "about=web left_out=70 last=\"up or down\"\n"; got != want {
			t.Errorf("after a minute: %q, want %q", got, want)
		}
		if n := allowed(l, Service, "web", 1); n != 1 {
			t.Error("no line after a minute")
		}
		time.Sleep(time.Hour)
		if got := log.take(); got != "" {
			t.Errorf("reported for lines that were written: %s", got)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.classes[Service].subjects) > 0 || l.ticking {
			t.Error("an hour later it remembers what was quiet")
		}
	})
}

// TestOneSubjectSilencesNoOther: neither one that is about everything, nor a class.
func TestOneSubjectSilencesNoOther(t *testing.T) {
	start(t, func(l *Limiter, log *buffer) {
		allowed(l, Service, "flapping", 10_000)
		for i := range 10_000 {
			allowed(l, Client, fmt.Sprint("10.0.0.", i), 2)
			allowed(l, Target, fmt.Sprint("invented", i), 2)
		}
		for c, subject := range map[Class]string{Service: "web", Override: "web"} {
			if n := allowed(l, c, subject, 5); n != 5 {
				t.Errorf("class %d: %d lines of 5 under the flood", c, n)
			}
		}
		time.Sleep(minute)
		got := log.take()
		if lines := strings.Count(got, "\n"); lines > 1+2*(maxReports+1) {
			t.Errorf("%d reports:\n%s", lines, got)
		}
		if want := "about=flapping left_out=9970 "; !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
		if strings.Count(got, "about=others") != 2 || strings.Count(got, ` more" left_out=`) != 2 {
			t.Errorf("not one report for the rest of each class:\n%s", got)
		}
		for c := range l.classes {
			if n := len(l.classes[c].subjects); n > maxSubjects+1 {
				t.Errorf("class %d remembers %d subjects", c, n)
			}
		}
	})
}

// TestTotalOfAMinute: all classes of the daemon together.
func TestTotalOfAMinute(t *testing.T) {
	start(t, func(l *Limiter, log *buffer) {
		lines := 0
		for c := range Connection {
			for i := range 2000 {
				lines += allowed(l, c, fmt.Sprint(i), 3)
			}
		}
		if lines != 600 {
			t.Errorf("%d lines in a minute, want 600", lines)
		}
		time.Sleep(minute)
		log.take()
		if n := allowed(l, Override, "web", 1); n != 1 {
			t.Error("no line in the next minute")
		}
	})
}

// TestAllowOnce: the same line once, other lines of the same client too, and ever fewer reports while the client
// goes on.
func TestAllowOnce(t *testing.T) {
	start(t, func(l *Limiter, log *buffer) {
		lines, reports, leftOut := 0, 0, 0
		const hours = 10
		for range hours * 3600 / 2 { // as a balancer with a wrong configuration asks
			if l.AllowOnce(Client, "10.0.0.1/32", "refused", "a") {
				lines++
			}
			time.Sleep(2 * time.Second)
			for line := range strings.Lines(log.take()) {
				var n int
				if _, err := fmt.Sscanf(line, "about=10.0.0.1/32 left_out=%d last=refused", &n); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				reports++
				leftOut += n
			}
		}
		if lines != 1 || reports > hours+6 {
			t.Errorf("%d lines and %d reports in %d hours, want 1 and about one report an hour", lines, reports, hours)
		}
		if !l.AllowOnce(Client, "10.0.0.1/32", "refused", "b") || !l.AllowOnce(Client, "10.0.0.1/32", "other", "a") || !l.AllowOnce(Client, "10.0.0.2/32", "refused", "a") {
			t.Error("another line, or that of another client, counts as repeated")
		}
		l.Flush()
		var n int
		if _, err := fmt.Sscanf(log.take(), "about=10.0.0.1/32 left_out=%d", &n); err != nil || leftOut+n != hours*3600/2-1 {
			t.Errorf("%d and %d are counted as left out, %v; want %d", leftOut, n, err, hours*3600/2-1)
		}
		time.Sleep(3 * time.Hour)
		log.take()
		if !l.AllowOnce(Client, "10.0.0.1/32", "refused", "a") {
			t.Error("no line hours later")
		}
	})
}

func TestTextsAreBounded(t *testing.T) {
	start(t, func(l *Limiter, _ *buffer) {
		for range 100 {
			for i := range 100 {
				l.AllowOnce(Client, "a", "refused", fmt.Sprint(i, time.Now()))
			}
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			if s := l.classes[Client].subjects["a"]; s != nil && len(s.texts) > maxTexts {
				t.Fatalf("%d texts are remembered", len(s.texts))
			}
		}
	})
}

func TestNilAllowsAll(t *testing.T) {
	var l *Limiter
	if allowed(l, Client, "a", 100) != 100 || !l.AllowOnce(Client, "a", "b", "c") || !l.AllowOnce(Client, "a", "b", "c") {
		t.Error("a nil Limiter leaves lines out")
	}
}
