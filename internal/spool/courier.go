//go:build unix

package spool

import (
	"context"
	"log/slog"
	"sync"

	"hacheck/internal/loglimit"
)

// maxQueued is how many changes wait to be told before those of one key are put together.
const maxQueued = 16 << 10

// notification is one thing to tell: a change, or a line of the log.
type notification struct {
	change Change
	log    func()
}

// notifier tells changes and writes log lines outside of the lock that requests wait on: a receiver may
// ask the index, and a log may be a pipe that nobody reads.
type notifier struct {
	onChange func(Change)
	wake     chan struct{}
	logLimit    *loglimit.Limiter

	mu      sync.Mutex
	queue []notification
	mergeAbove   int
}

// log writes a line unless there were too many of the same message lately.
func (c *notifier) log(log *slog.Logger, level slog.Level, msg string, attrs ...slog.Attr) {
	if c.logLimit.Allow(loglimit.Override, "spool directory: "+msg, msg) {
		c.logUnlimited(log, level, msg, attrs...)
	}
}

// logUnlimited is log for lines whose number is bounded otherwise.
func (c *notifier) logUnlimited(log *slog.Logger, level slog.Level, msg string, attrs ...slog.Attr) {
	if log.Enabled(context.Background(), level) {
		c.enqueue(notification{log: func() { log.LogAttrs(context.Background(), level, msg, attrs...) }})
	}
}

func (c *notifier) change(change Change) {
	if c.onChange != nil {
		c.enqueue(notification{change: change})
	}
}

func (c *notifier) enqueue(l notification) {
	c.mu.Lock()
	c.queue = append(c.queue, l)
	if len(c.queue) > max(c.mergeAbove, maxQueued) {
		c.merge()
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// merge makes one letter of all the changes of a key, and keeps the first log lines. What is left is
// bounded by the number of keys.
func (c *notifier) merge() {
	at := map[Key]int{}
	kept, lines := c.queue[:0], 0
	for _, l := range c.queue {
		if l.log != nil {
			if lines++; lines <= maxIgnored {
				kept = append(kept, l)
			}
			continue
		}
		if i, ok := at[l.change.Key]; ok {
			kept[i].change.New, kept[i].change.Expired = l.change.New, l.change.Expired
			continue
		}
		at[l.change.Key] = len(kept)
		kept = append(kept, l)
	}
	clear(c.queue[len(kept):])
	c.queue = kept
	c.mergeAbove = 2 * len(kept)
}

// run delivers until done is closed, and what is there then.
func (c *notifier) run(done <-chan struct{}) {
	for open := true; open; {
		select {
		case <-c.wake:
		case <-done:
			open = false
		}
		c.mu.Lock()
		letters := c.queue
		c.queue, c.mergeAbove = nil, 0
		c.mu.Unlock()
		for _, l := range letters {
			if l.log != nil {
				l.log()
				continue
			}
			c.onChange(l.change)
		}
	}
}
