package systemd

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// The prefixes by which the journal reads the priority of a line, as in sd-daemon(3).
const (
	Error   = "<3>"
	Warning = "<4>"
	Info    = "<6>"
	Debug   = "<7>"
)

// IsJournal reports whether w is a stream to the journal. systemd describes that stream in $JOURNAL_STREAM; the variable
// alone says nothing, because stderr may have been redirected since.
func IsJournal(w any) bool {
	stream := os.Getenv("JOURNAL_STREAM")
	f, ok := w.(*os.File)
	if !ok || stream == "" {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// WithPriority returns text for w. If w is a stream to the journal, each line of it begins with prefix.
func WithPriority(w any, prefix, text string) string {
	if !IsJournal(w) {
		return text
	}
	return prefix + strings.ReplaceAll(text, "\n", "\n"+prefix)
}
