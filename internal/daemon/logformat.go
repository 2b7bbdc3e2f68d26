package daemon

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"slices"
	"sync/atomic"

	"hacheck/internal/textfmt"
)

// logOutput is the log of the daemon: a slog.Handler whose file and format a reload may change.
type logOutput struct {
	*replaceableHandler
	*logWriter
	journal bool // the file is a stream to the journal
}

// newLogOutput returns a logOutput that owns f; verbose includes debug lines.
func newLogOutput(f *logFile, format string, verbose bool) *logOutput {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	w := newLogWriter(f, lostLineFormat(format, f.journal))
	return &logOutput{newReplaceableHandler(level, newFileHandler(format, f.journal, w, level)), w, f.journal}
}

// apply changes the format, and the file unless f is nil, for the lines that are logged from now on.
func (o *logOutput) apply(f *logFile, format string) {
	wasJournal := o.journal
	if f != nil {
		o.journal = f.journal
	}
	h := newFileHandler(format, o.journal, o.logWriter, o.level)
	if wasJournal { // a line between the two calls must not take the prefix of the journal into a file
		o.setHandler(h)
	}
	o.setFile(f, lostLineFormat(format, o.journal))
	o.setHandler(h)
}

// newFileHandler returns the handler for a log file, which may be a stream to the journal.
func newFileHandler(format string, journal bool, w io.Writer, level slog.Level) slog.Handler {
	if journal {
		return newJournalHandler(format, w, level)
	}
	return newHandler(format, w, level)
}

// maxLogged is how many bytes of one text a log line shows. The stack of a panic may be as long.
const maxLogged = 8 << 10

// newHandler returns the handler for a log_format of the configuration.
func newHandler(format string, w io.Writer, level slog.Level) slog.Handler {
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: sanitizeAttr}
	if format == "json" {
		o.ReplaceAttr = sanitizeJSONAttr
		return slog.NewJSONHandler(jsonEscaper{w}, o)
	}
	return slog.NewTextHandler(w, o)
}

// sanitizeAttr replaces the characters of a text that could control the terminal that shows the log, and truncates a
// long text. Newlines and tabs stay: both formats escape them.
func sanitizeAttr(_ []string, a slog.Attr) slog.Attr {
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

// sanitizeJSONAttr is sanitizeAttr for JSON. A duration has its unit, as in the text format: slog would write a number of
// nanoseconds.
func sanitizeJSONAttr(groups []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
		return a
	}
	return sanitizeAttr(groups, a)
}

// jsonEscaper escapes the control characters in lines of JSON. slog formats lists without sanitizeAttr.
type jsonEscaper struct{ io.Writer }

func (w jsonEscaper) Write(line []byte) (int, error) {
	if _, err := w.Writer.Write(textfmt.EscapeJSON(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// lostLineFormat returns a function that formats the line about n lost lines.
func lostLineFormat(format string, journal bool) func(n int) []byte {
	return func(n int) []byte {
		var b bytes.Buffer
		slog.New(newFileHandler(format, journal, &b, slog.LevelWarn)).Warn("lines of this log were lost", "lines", n)
		return b.Bytes()
	}
}

// replaceableHandler is a slog.Handler that passes records to another handler, which can be replaced. Loggers that were
// derived from it before use the new handler too.
type replaceableHandler struct {
	level   slog.Level
	current *atomic.Pointer[slog.Handler]
	derive  []func(slog.Handler) slog.Handler // the calls of WithAttrs and WithGroup, in order
}

func newReplaceableHandler(level slog.Level, h slog.Handler) *replaceableHandler {
	s := &replaceableHandler{level: level, current: new(atomic.Pointer[slog.Handler])}
	s.setHandler(h)
	return s
}

// setHandler makes h format the records from now on.
func (s *replaceableHandler) setHandler(h slog.Handler) { s.current.Store(&h) }

// Enabled implements slog.Handler.
func (s *replaceableHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= s.level }

// Handle implements slog.Handler.
func (s *replaceableHandler) Handle(ctx context.Context, r slog.Record) error {
	h := *s.current.Load()
	for _, derive := range s.derive {
		h = derive(h)
	}
	return h.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (s *replaceableHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return s.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (s *replaceableHandler) WithGroup(name string) slog.Handler {
	return s.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (s *replaceableHandler) with(derive func(slog.Handler) slog.Handler) *replaceableHandler {
	derived := *s
	derived.derive = append(slices.Clip(s.derive), derive)
	return &derived
}
