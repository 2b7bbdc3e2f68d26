package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"hacheck/internal/textfmt"
)

const (
	// maxQueued is how much log may wait to be written, in bytes. A disk that hangs or a terminal that
	// was stopped must not stop the daemon; what is over is lost, and counted.
	maxQueued = 1 << 20
	// keptQueue is how much memory the queue keeps after a burst.
	keptQueue = 64 << 10
	// rotationEvery is how often at most the name of the log file is looked up to see whether the file
	// was rotated. Nothing is looked up while nothing is logged.
	rotationEvery = time.Second
)

// logTarget is where a log goes. Only the goroutine of its logSink uses it once the sink has it.
type logTarget struct {
	file   *os.File
	path   string    // "" for stdout and stderr, which are not ours to close or reopen
	looked time.Time // when path was last looked up
	torn   bool      // the last write ended in the middle of a line
}

// openLog opens a log_path of the configuration.
func openLog(path string) (*logTarget, error) {
	switch path {
	case "stdout":
		return &logTarget{file: os.Stdout}, nil
	case "stderr":
		return &logTarget{file: os.Stderr}, nil
	}
	f, err := openLogFile(path)
	if err != nil {
		return nil, fmt.Errorf("open log_path: %w", err)
	}
	return &logTarget{file: f, path: path, looked: time.Now()}, nil
}

// logMode is the mode of a log file that the daemon creates. The log names services, hosts and the reasons of
// operators, which are not for every user of the machine.
const logMode = 0o640

func openLogFile(path string) (*os.File, error) {
	// O_NONBLOCK: a FIFO that nobody reads is an error instead of a wait without end.
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, logMode)
}

// follow opens the file anew when path no longer names the one that is open. When that fails, the open
// file goes on being the log: its lines are at least not lost.
func (t *logTarget) follow(now time.Time) {
	if t.path == "" || now.Sub(t.looked) < rotationEvery {
		return
	}
	t.looked = now
	named, err := os.Stat(t.path)
	open, openErr := t.file.Stat()
	if err == nil && openErr == nil && os.SameFile(named, open) {
		return
	}
	t.reopen()
}

func (t *logTarget) reopen() {
	if t.path == "" {
		return
	}
	if f, err := openLogFile(t.path); err == nil {
		_ = t.file.Close()
		t.file, t.torn = f, false
	}
}

// write writes whole lines and returns how many of them did not make it.
func (t *logTarget) write(lines []byte) (lost int) {
	if t.torn {
		lines = append([]byte("\n"), lines...)
	}
	n, err := t.file.Write(lines)
	if err == nil {
		t.torn = false
		return 0
	}
	lost = bytes.Count(lines[n:], []byte("\n"))
	if n > 0 {
		t.torn = lines[n-1] != '\n'
	} else if t.torn {
		lost-- // the newline that mends the line before
	}
	return lost
}

func (t *logTarget) close() {
	if t != nil && t.path != "" {
		_ = t.file.Close()
	}
}

// logSink takes log lines and has a goroutine write them, so that nobody who logs ever waits for a disk
// or a pipe. Its close ends the goroutine.
type logSink struct {
	mu     sync.Mutex
	queue  []byte
	lost   int              // lines that were not written since somebody was last told
	tell   func(int) []byte // makes the line that tells it
	next   *logTarget       // replaces the target
	old    int              // how many bytes of queue still go to the target before next
	reopen bool             // the target's file is opened anew before the next line
	closed bool

	wake chan struct{} // holds one
	done chan struct{} // closed when the goroutine has ended
}

func newLogSink(t *logTarget, tell func(int) []byte) *logSink {
	s := &logSink{tell: tell, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go s.run(t)
	return s
}

// Write queues one line. It never fails and never waits.
func (s *logSink) Write(line []byte) (int, error) {
	s.mu.Lock()
	if s.closed || len(s.queue)+len(line) > maxQueued {
		s.lost++
	} else {
		s.queue = append(s.queue, line...)
	}
	s.mu.Unlock()
	s.poke()
	return len(line), nil
}

// use has what is written from now on go to t, which the sink then owns; nil leaves the target.
func (s *logSink) use(t *logTarget, tell func(int) []byte) {
	s.mu.Lock()
	var unused *logTarget
	if t != nil {
		unused, s.next, s.old = s.next, t, len(s.queue)
	}
	s.tell = tell
	s.mu.Unlock()
	unused.close()
	s.poke()
}

// reopenFile has the log file opened anew, as after a rotation.
func (s *logSink) reopenFile() {
	s.mu.Lock()
	s.reopen = true
	s.mu.Unlock()
	s.poke()
}

// close writes what is queued, for as long as patience lasts, and ends the sink.
func (s *logSink) close(patience time.Duration) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.poke()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-s.done:
	case <-t.C:
	}
}

func (s *logSink) poke() {
	select {
	case s.wake <- struct{}{}:
	default: // awake already
	}
}

func (s *logSink) run(t *logTarget) {
	defer close(s.done)
	defer func() { t.close() }()
	var lines []byte
	for range s.wake {
		s.mu.Lock()
		lines, s.queue = s.queue, lines[:0]
		next, old, reopen, lost, tell, closed := s.next, s.old, s.reopen, s.lost, s.tell, s.closed
		s.next, s.reopen, s.lost = nil, false, 0
		s.mu.Unlock()

		rest := lines
		if next != nil {
			if old > 0 {
				lost += t.write(lines[:old])
			}
			t.close()
			t, rest = next, lines[old:]
		}
		if reopen {
			t.reopen()
		}
		if len(rest) > 0 {
			t.follow(time.Now())
			if n := t.write(rest); n > 0 {
				lost += n
			} else if lost > 0 && t.write(tell(lost)) == 0 {
				lost = 0
			}
		}
		s.mu.Lock()
		s.lost += lost
		s.mu.Unlock()
		if cap(lines) > keptQueue {
			lines = nil
		}
		if closed {
			return
		}
	}
}

// maxLogged is how much of one text a log line shows, in bytes. What an operator has to read is shorter; the
// stack of a panic may be as long.
const maxLogged = 8 << 10

// newHandler returns the handler for a log_format of the configuration.
func newHandler(format string, w io.Writer, level slog.Level) slog.Handler {
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: harmless}
	if format == "json" {
		return slog.NewJSONHandler(escapedJSON{w}, o)
	}
	return slog.NewTextHandler(w, o)
}

// harmless replaces the characters of a text that may harm the terminal that shows the log, and
// cuts it when it is too long. Newlines and tabs stay: both formats escape them.
func harmless(_ []string, a slog.Attr) slog.Attr {
	var text string
	switch a.Value.Kind() {
	case slog.KindString:
		text = a.Value.String()
	case slog.KindAny:
		err, ok := a.Value.Any().(error)
		if !ok {
			return a
		}
		text = err.Error()
	default:
		return a
	}
	if len(text) > maxLogged {
		text = text[:maxLogged] + "..."
	}
	a.Value = slog.StringValue(textfmt.Lines(text))
	return a
}

// escapedJSON writes lines of JSON with what is harmful in them escaped: lists are made JSON without harmless.
type escapedJSON struct{ io.Writer }

func (w escapedJSON) Write(line []byte) (int, error) {
	if _, err := w.Writer.Write(textfmt.EscapeJSON(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// lostLine returns a function that makes the line about lost lines.
func lostLine(format string) func(int) []byte {
	return func(n int) []byte {
		var b bytes.Buffer
		slog.New(newHandler(format, &b, slog.LevelWarn)).Warn("lines of this log were lost", "lines", n)
		return b.Bytes()
	}
}

// switchHandler is a slog.Handler whose format can be changed under the loggers that were made of it.
type switchHandler struct {
	level   slog.Level
	current *atomic.Pointer[slog.Handler]
	derive  []func(slog.Handler) slog.Handler // what With and WithGroup have asked for, in that order
}

func newSwitchHandler(level slog.Level, h slog.Handler) *switchHandler {
	s := &switchHandler{level: level, current: new(atomic.Pointer[slog.Handler])}
	s.current.Store(&h)
	return s
}

// use has h format the records from now on.
func (s *switchHandler) use(h slog.Handler) { s.current.Store(&h) }

// Enabled implements slog.Handler.
func (s *switchHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= s.level }

// Handle implements slog.Handler.
func (s *switchHandler) Handle(ctx context.Context, r slog.Record) error {
	h := *s.current.Load()
	for _, d := range s.derive {
		h = d(h)
	}
	return h.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (s *switchHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return s.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (s *switchHandler) WithGroup(name string) slog.Handler {
	return s.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (s *switchHandler) with(d func(slog.Handler) slog.Handler) *switchHandler {
	derived := *s
	derived.derive = append(slices.Clip(s.derive), d)
	return &derived
}
