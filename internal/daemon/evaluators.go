package daemon

import (
	"sync"
	"sync/atomic"

	"hacheck/internal/health"
)

// evaluators are the evaluator in force and those of earlier configurations that still run checks.
type evaluators struct {
	current atomic.Pointer[health.Evaluator]

	mu  sync.Mutex
	all []*health.Evaluator // current is the last one
}

// replace puts next in force for the requests that come from now on.
func (e *evaluators) replace(next *health.Evaluator) {
	e.mu.Lock()
	defer e.mu.Unlock()
	busy := e.all[:0:0]
	for _, old := range e.all {
		if old.Stats().InFlight > 0 {
			busy = append(busy, old)
		}
	}
	e.all = append(busy, next)
	e.current.Store(next)
}

// isBusy reports whether a check runs that a client may be waiting for.
func (e *evaluators) isBusy() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, one := range e.all {
		if one.Stats().InFlight > 0 {
			return true
		}
	}
	return false
}
