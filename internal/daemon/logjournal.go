package daemon

import (
	"context"
	"io"
	"log/slog"

	"hacheck/internal/systemd"
)

// journalPriority returns the prefix of a line of that level.
func journalPriority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return systemd.Error
	case l >= slog.LevelWarn:
		return systemd.Warning
	case l >= slog.LevelInfo:
		return systemd.Info
	}
	return systemd.Debug
}

// newStreamHandler returns the handler for the log of a tool that writes text to w, its stdout or stderr.
func newStreamHandler(w io.Writer, level slog.Level) slog.Handler {
	if systemd.IsJournal(w) {
		return newJournalHandler("text", w, level)
	}
	return newHandler("text", w, level)
}

// journalHandler is a slog.Handler for the journal. Each level has its own handler, which writes the level's prefix.
type journalHandler struct{ debug, info, warn, err slog.Handler }

func newJournalHandler(format string, w io.Writer, level slog.Level) *journalHandler {
	prefixed := func(l slog.Level) slog.Handler {
		return newHandler(format, prefixWriter{w, journalPriority(l)}, level)
	}
	return &journalHandler{
		prefixed(slog.LevelDebug), prefixed(slog.LevelInfo), prefixed(slog.LevelWarn), prefixed(slog.LevelError),
	}
}

// handler returns the handler for l.
func (h *journalHandler) handler(l slog.Level) slog.Handler {
	switch {
	case l >= slog.LevelError:
		return h.err
	case l >= slog.LevelWarn:
		return h.warn
	case l >= slog.LevelInfo:
		return h.info
	}
	return h.debug
}

// Enabled implements slog.Handler.
func (h *journalHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.handler(l).Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.handler(r.Level).Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{
		h.debug.WithAttrs(attrs), h.info.WithAttrs(attrs), h.warn.WithAttrs(attrs), h.err.WithAttrs(attrs),
	}
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{
		h.debug.WithGroup(name), h.info.WithGroup(name), h.warn.WithGroup(name), h.err.WithGroup(name),
	}
}

// prefixWriter writes prefix before each line. A Write has one line, as slog's handlers write it.
type prefixWriter struct {
	w      io.Writer
	prefix string
}

func (p prefixWriter) Write(line []byte) (int, error) {
	if _, err := p.w.Write(append([]byte(p.prefix), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
