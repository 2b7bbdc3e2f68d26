package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
)

// isJournal reports whether w is a stream to systemd's journal. systemd describes that stream in $JOURNAL_STREAM; the
// variable alone says nothing, because stderr may have been redirected since.
func isJournal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// journalPriority returns the prefix by which the journal reads the priority of a line, as in sd-daemon(3).
func journalPriority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<3>"
	case l >= slog.LevelWarn:
		return "<4>"
	case l >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}

// newStreamHandler returns the handler for the log of a tool that writes text to w, its stdout or stderr.
func newStreamHandler(w io.Writer, level slog.Level) slog.Handler {
	if isJournal(w) {
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
