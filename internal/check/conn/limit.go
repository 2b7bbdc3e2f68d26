package conn

import "context"

// Limit bounds how many drivers run at once. A driver costs more memory than a check by hand, and some allocate what a
// server claims to send before Frames can see it, under TLS of their own.
type Limit struct{ slots chan struct{} }

// NewLimit returns a limit of n, which is at least 1.
func NewLimit(n int) *Limit { return &Limit{make(chan struct{}, max(1, n))} }

// Acquire waits for a place. It returns false when ctx ends first. A nil Limit has a place for everyone.
func (l *Limit) Acquire(ctx context.Context) bool {
	if l == nil {
		return ctx.Err() == nil
	}
	select {
	case l.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// Release gives a place back.
func (l *Limit) Release() {
	if l != nil {
		<-l.slots
	}
}
