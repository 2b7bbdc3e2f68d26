//go:build unix

package spool

import (
	"context"
	"log/slog"
	"sync"

	"hacheck/internal/loglimit"
)

// maxQueued is how many notifications are queued before those about one key are merged.
const maxQueued = 16 << 10

// notification is a change of an override, a change of a weight or a log line.
type notification struct {
	change Change
	weight *WeightChange // nil: none
	log    func()        // nil: change or weight is to be delivered
}

// notifier delivers changes and log lines from a goroutine of its own, outside Index.mu: OnChange may call the Index,
// and the log may be a pipe without a reader.
type notifier struct {
	onChange func(Change)       // may be nil
	onWeight func(WeightChange) // may be nil
	logger   *slog.Logger
	logLimit *loglimit.Limiter
	wake     chan struct{}

	mu         sync.Mutex
	queue      []notification
	mergeAbove int // length of queue, 0 for maxQueued
}

// log queues a line, unless the log limit suppresses it.
func (n *notifier) log(level slog.Level, msg string, attrs ...slog.Attr) {
	if n.logLimit.Allow(loglimit.Override, "spool directory: "+msg, msg) {
		n.logUnlimited(level, msg, attrs...)
	}
}

// logUnlimited is log for lines that the caller bounds itself.
func (n *notifier) logUnlimited(level slog.Level, msg string, attrs ...slog.Attr) {
	if n.logger.Enabled(context.Background(), level) {
		n.enqueue(notification{log: func() { n.logger.LogAttrs(context.Background(), level, msg, attrs...) }})
	}
}

func (n *notifier) change(c Change) {
	if n.onChange != nil {
		n.enqueue(notification{change: c})
	}
}

func (n *notifier) weightChange(c WeightChange) {
	if n.onWeight != nil {
		n.enqueue(notification{weight: &c})
	}
}

func (n *notifier) enqueue(next notification) {
	n.mu.Lock()
	n.queue = append(n.queue, next)
	if len(n.queue) > max(n.mergeAbove, maxQueued) {
		n.merge()
	}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// merge joins all queued changes of a key into one and keeps the first maxIgnored log lines, so that the number of keys
// bounds the queue. n.mu is held.
func (n *notifier) merge() {
	at, weightAt := map[Key]int{}, map[Key]int{}
	kept, lines := n.queue[:0], 0
	for _, next := range n.queue {
		if next.log != nil {
			if lines++; lines <= maxIgnored {
				kept = append(kept, next)
			}
			continue
		}
		if w := next.weight; w != nil {
			if i, ok := weightAt[w.Key]; ok {
				kept[i].weight.New, kept[i].weight.Expired = w.New, w.Expired
				continue
			}
			weightAt[w.Key] = len(kept)
			kept = append(kept, next)
			continue
		}
		if i, ok := at[next.change.Key]; ok {
			kept[i].change.New, kept[i].change.Expired = next.change.New, next.change.Expired
			continue
		}
		at[next.change.Key] = len(kept)
		kept = append(kept, next)
	}
	clear(n.queue[len(kept):])
	n.queue = kept
	n.mergeAbove = 2 * len(kept)
}

// run delivers notifications until done is closed, and then the ones still queued.
func (n *notifier) run(done <-chan struct{}) {
	for open := true; open; {
		select {
		case <-n.wake:
		case <-done:
			open = false
		}
		n.mu.Lock()
		queue := n.queue
		n.queue, n.mergeAbove = nil, 0
		n.mu.Unlock()
		for _, next := range queue {
			switch {
			case next.log != nil:
				next.log()
			case next.weight != nil:
				n.onWeight(*next.weight)
			default:
				n.onChange(next.change)
			}
		}
	}
}
