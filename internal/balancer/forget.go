package balancer

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// ErrUnknownBalancer is the error of Forget when no row has the address or the name.
var ErrUnknownBalancer = errors.New("no balancer has that address or node name")

// AskingError is the error of Forget for a balancer that is not silent: its next request would bring the row back.
type AskingError struct {
	Ago time.Duration // since its last request
}

func (e *AskingError) Error() string {
	return fmt.Sprintf("the balancer still asks, its last request came %v ago", e.Ago.Round(time.Millisecond))
}

// Forget removes every row of a balancer that is gone, and returns how many there were. name is its address or the node
// name that it sends. An agent connection has an address alone. If one of the rows is not silent, Forget removes nothing
// and returns an *AskingError.
func (t *Table) Forget(name string) (rows int, err error) {
	if addr, err := netip.ParseAddr(name); err == nil {
		name = addr.Unmap().String()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	var asking *AskingError
	seen := func(last time.Time, silentAfter time.Duration) {
		if ago := now.Sub(last); ago <= silentAfter && (asking == nil || ago < asking.Ago) {
			asking = &AskingError{ago}
		}
		rows++
	}
	for _, s := range t.services {
		s.mu.Lock()
		for _, w := range s.rows {
			if w.isOf(name) {
				seen(w.last.at, w.silentAfter())
			}
		}
		s.mu.Unlock()
	}
	for k, a := range t.agents {
		if k.peer == name {
			seen(a.answered, a.silentAfter())
		}
	}
	switch {
	case rows == 0:
		return 0, ErrUnknownBalancer
	case asking != nil:
		return 0, asking
	}
	for _, s := range t.services {
		t.forgetRows(s, name)
	}
	for k, a := range t.agents {
		if k.peer == name {
			delete(t.agents, k)
			t.agentRows.Remove(a.place)
		}
	}
	return rows, nil
}

// isOf reports whether name is the address or the node name of the balancer of w.
func (w *row) isOf(name string) bool {
	return w.key.peer == name || name != "" && w.key.node == name
}

// forgetRows removes the rows of a balancer about s. t.mu is held.
func (t *Table) forgetRows(s *ServiceRecord, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = slices.DeleteFunc(s.rows, func(w *row) bool {
		if !w.isOf(name) {
			return false
		}
		delete(s.index, w.key)
		t.rows.Remove(w.place)
		return true
	})
}
