//go:build unix

package spool

import (
	"context"
	"log/slog"
	"sync"

	"hacheck/internal/loglimit"
)

// maxLetters is how many changes wait to be told before those of one key are put together.
const maxLetters = 16 << 10

// letter is one thing to tell: a change, or a line of the log.
type letter struct {
	change Change
	log    func()
}

// courier tells changes and writes log lines outside of the lock that requests wait on: a receiver may
// ask the index, and a log may be a pipe that nobody reads.
type courier struct {
	onChange func(Change)
	wake     chan struct{}
	lines    *loglimit.Limiter

	mu      sync.Mutex
	letters []letter
	limit   int
}

// log writes a line unless there were too many of the same message lately.
func (c *courier) log(log *slog.Logger, level slog.Level, msg string, attrs ...slog.Attr) {
	if c.lines.Allow(loglimit.Override, "spool directory: "+msg, msg) {
		c.write(log, level, msg, attrs...)
	}
}

// write is log for lines whose number is bounded otherwise.
func (c *courier) write(log *slog.Logger, level slog.Level, msg string, attrs ...slog.Attr) {
	if log.Enabled(context.Background(), level) {
		c.post(letter{log: func() { log.LogAttrs(context.Background(), level, msg, attrs...) }})
	}
}

func (c *courier) changed(change Change) {
	if c.onChange != nil {
		c.post(letter{change: change})
	}
}

func (c *courier) post(l letter) {
	c.mu.Lock()
	c.letters = append(c.letters, l)
	if len(c.letters) > max(c.limit, maxLetters) {
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
func (c *courier) merge() {
	at := map[Key]int{}
	kept, lines := c.letters[:0], 0
	for _, l := range c.letters {
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
	clear(c.letters[len(kept):])
	c.letters = kept
	c.limit = 2 * len(kept)
}

// run delivers until done is closed, and what is there then.
func (c *courier) run(done <-chan struct{}) {
	for open := true; open; {
		select {
		case <-c.wake:
		case <-done:
			open = false
		}
		c.mu.Lock()
		letters := c.letters
		c.letters, c.limit = nil, 0
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
