package daemon

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"time"

	"hacheck/internal/systemd"
)

const (
	// logMode is the mode of a log file that the daemon creates. The log names services, hosts and the reasons of
	// operators, which are not for every user of the machine.
	logMode = 0o640
	// rotationInterval is the least time between two lookups of the log file's name, which find that the file was
	// rotated. While nothing is logged, nothing is looked up.
	rotationInterval = time.Second
)

// logFile is an open log_path. It is not safe for concurrent use: the goroutine of a logWriter owns it.
type logFile struct {
	file        *os.File
	path        string    // "" for stdout and stderr, which are never closed or reopened
	checked     time.Time // when path was last looked up
	partialLine bool      // the last write ended in the middle of a line
	journal     bool      // systemd's journal reads it; each line begins with its priority
}

// openLog opens a log_path of the configuration.
func openLog(path string) (*logFile, error) {
	switch path {
	case "stdout":
		return &logFile{file: os.Stdout, journal: systemd.IsJournal(os.Stdout)}, nil
	case "stderr":
		return &logFile{file: os.Stderr, journal: systemd.IsJournal(os.Stderr)}, nil
	}
	f, err := openLogFile(path)
	if err != nil {
		return nil, fmt.Errorf("open log_path: %w", err)
	}
	return &logFile{file: f, path: path, checked: time.Now()}, nil
}

func openLogFile(path string) (*os.File, error) {
	// With O_NONBLOCK a FIFO without a reader is an error; without it, the call would block.
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, logMode)
}

// reopenIfRotated opens the file again if path names another file now.
func (f *logFile) reopenIfRotated(now time.Time) {
	if f.path == "" || now.Sub(f.checked) < rotationInterval {
		return
	}
	f.checked = now
	named, err := os.Stat(f.path)
	open, openErr := f.file.Stat()
	if err == nil && openErr == nil && os.SameFile(named, open) {
		return
	}
	f.reopen()
}

// reopen opens the file at path. If that fails, the open file stays the log, so that no line is lost.
func (f *logFile) reopen() {
	if f.path == "" {
		return
	}
	if file, err := openLogFile(f.path); err == nil {
		_ = f.file.Close()
		f.file, f.partialLine = file, false
	}
}

// write writes whole lines and returns how many of them were lost.
func (f *logFile) write(lines []byte) (lost int) {
	if f.partialLine {
		lines = append([]byte("\n"), lines...)
	}
	n, err := f.file.Write(lines)
	if err == nil {
		f.partialLine = false
		return 0
	}
	lost = bytes.Count(lines[n:], []byte("\n"))
	if n > 0 {
		f.partialLine = lines[n-1] != '\n'
	} else if f.partialLine {
		lost-- // the newline that ends the partial line
	}
	return lost
}

// close closes the file. f may be nil.
func (f *logFile) close() {
	if f != nil && f.path != "" {
		_ = f.file.Close()
	}
}
