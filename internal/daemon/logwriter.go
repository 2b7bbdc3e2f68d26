package daemon

import (
	"sync"
	"time"
)

const (
	// maxQueued is how many bytes of log may wait to be written. A disk that hangs or a stopped terminal must not block
	// the daemon: further lines are lost, and counted.
	maxQueued = 1 << 20
	// maxIdleQueue is the capacity that the queue keeps after a burst, in bytes.
	maxIdleQueue = 64 << 10
)

// logWriter writes log lines on a goroutine of its own, so that no caller waits for a disk or a pipe. Its close ends
// the goroutine.
type logWriter struct {
	mu         sync.Mutex
	queue      []byte
	lost       int              // lines that were lost since the last line about lost lines
	formatLost func(int) []byte // returns that line
	next       *logFile         // replaces the file
	oldBytes   int              // bytes of queue that go to the file before next
	reopenFile bool             // the file is reopened before the next line
	closed     bool

	wake chan struct{} // holds one
	done chan struct{} // closed when the goroutine has ended
}

func newLogWriter(f *logFile, formatLost func(int) []byte) *logWriter {
	w := &logWriter{formatLost: formatLost, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run(f)
	return w
}

// Write queues one line. It does not block and returns no error.
func (w *logWriter) Write(line []byte) (int, error) {
	w.update(func() {
		if w.closed || len(w.queue)+len(line) > maxQueued {
			w.lost++
		} else {
			w.queue = append(w.queue, line...)
		}
	})
	return len(line), nil
}

// setFile makes f the file of the lines that are written from now on, and takes it over; nil leaves the file.
func (w *logWriter) setFile(f *logFile, formatLost func(int) []byte) {
	w.update(func() {
		if f != nil {
			w.next.close() // it has got no line yet
			w.next, w.oldBytes = f, len(w.queue)
		}
		w.formatLost = formatLost
	})
}

// reopen reopens the log file, as after a rotation.
func (w *logWriter) reopen() { w.update(func() { w.reopenFile = true }) }

// close ends the goroutine. It waits up to timeout until the queue is written.
func (w *logWriter) close(timeout time.Duration) {
	w.update(func() { w.closed = true })
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-w.done:
	case <-t.C:
	}
}

// update changes w and wakes the goroutine.
func (w *logWriter) update(change func()) {
	w.mu.Lock()
	change()
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // it is awake already
	}
}

func (w *logWriter) run(f *logFile) {
	defer close(w.done)
	defer func() { f.close() }()
	var lines []byte
	for range w.wake {
		w.mu.Lock()
		lines, w.queue = w.queue, lines[:0]
		next, oldBytes, reopen, lost, formatLost, closed := w.next, w.oldBytes, w.reopenFile, w.lost, w.formatLost, w.closed
		w.next, w.reopenFile, w.lost = nil, false, 0
		w.mu.Unlock()

		rest := lines
		if next != nil {
			if oldBytes > 0 {
				lost += f.write(lines[:oldBytes])
			}
			f.close()
			f, rest = next, lines[oldBytes:]
		}
		if reopen {
			f.reopen()
		}
		if len(rest) > 0 {
			f.reopenIfRotated(time.Now())
			if n := f.write(rest); n > 0 {
				lost += n
			} else if lost > 0 && f.write(formatLost(lost)) == 0 {
				lost = 0
			}
		}
		w.mu.Lock()
		w.lost += lost
		w.mu.Unlock()
		if cap(lines) > maxIdleQueue {
			lines = nil
		}
		if closed {
			return
		}
	}
}
