package web

import (
	"math/bits"
	"time"

	"hacheck/internal/check"
	"hacheck/internal/health"
	"hacheck/internal/spool"
)

// A history covers recentFor, in slots of historySlot. A slot is long enough for a request of a balancer that asks every
// few seconds.
const (
	historySlot  = 10 // seconds
	historySlots = int(recentFor/time.Second) / historySlot
)

// history has the answers about one service in the last recentFor: the worst answer of each slot of time, and details of
// the last answer. It takes 24 bytes while it has requests in one slot only; past adds historySlots bytes.
type history struct {
	past *[historySlots]mark // by slot; a mark older than historySlots slots before slot means nothing
	slot uint32              // of mark: unix seconds / historySlot
	took uint32              // by the check behind the last answer, in µs; 0 without a check
	age  uint32              // of that check's result when the answer was given, in ms
	mark mark
	last cause
}

// cause is why an answer was what it was.
type cause struct {
	reason   check.Reason
	override spool.State
}

// mark is the worst answer of one slot, in the upper three bits, and the longest of the checks behind its answers, in
// the lower five: n means less than 2^n µs. 0 means that there was no request.
type mark uint8

const (
	markUp mark = (iota + 1) << 5 // the larger the worse
	markForced
	markDrain
	markOut // down or maint, by an operator
	markFailing

	markKind mark = 7 << 5
)

// add records an answer. It is part of every request and takes a few ns.
func (h *history) add(at time.Time, v *health.Verdict) {
	if slot := uint32(at.Unix() / historySlot); slot != h.slot {
		h.begin(slot)
	}
	h.took = uint32(min(max(v.Result.Took.Microseconds(), 0), 1<<31))
	h.age = uint32(min(max(v.Age.Milliseconds(), 0), 1<<31))
	h.last = cause{v.Result.Reason, v.OverrideState}
	h.mark = h.mark.worse(markOf(v) | mark(min(bits.Len32(h.took), 31)))
}

func markOf(v *health.Verdict) mark {
	switch v.OverrideState {
	case spool.ForceUp:
		return markForced
	case spool.Drain:
		return markDrain
	case spool.Down, spool.Maint:
		return markOut
	default:
		if v.Result.Code == 200 {
			return markUp
		}
		return markFailing
	}
}

func (m mark) worse(n mark) mark {
	return max(m&markKind, n&markKind) | max(m&^markKind, n&^markKind)
}

// begin begins a slot. If the clock was set back, begin drops the past.
func (h *history) begin(slot uint32) {
	switch {
	case slot < h.slot:
		h.past = nil
	case h.mark != 0:
		if h.past == nil {
			h.past = new([historySlots]mark)
		}
		for s := max(h.slot+1, slot-min(slot, uint32(historySlots))); s < slot; s++ {
			h.past[s%uint32(historySlots)] = 0
		}
		if slot-h.slot < uint32(historySlots) {
			h.past[h.slot%uint32(historySlots)] = h.mark
		}
	}
	h.slot, h.mark = slot, 0
}

// marks returns the history up to now, the oldest slot first.
func (h *history) marks(now time.Time) (list [historySlots]mark) {
	first := uint32(now.Unix()/historySlot) - uint32(historySlots) + 1
	for i := range list {
		switch s := first + uint32(i); {
		case s == h.slot:
			list[i] = h.mark
		case s < h.slot && h.slot-s < uint32(historySlots) && h.past != nil:
			list[i] = h.past[s%uint32(historySlots)]
		}
	}
	return list
}

// marksText returns marks as two strings of a character a slot. In answers, "." means no request, "u" up, "f" forced up,
// "r" drain, "o" out (down or maint, by an operator), "x" that the check failed. In took, a digit n to the base of 32
// means that the longest check took less than 2^n µs.
func marksText(marks *[historySlots]mark) (answers, took string) {
	const kinds, digits = ".ufrox??", "0123456789abcdefghijklmnopqrstuv"
	var a, t [historySlots]byte
	for i, m := range marks {
		a[i], t[i] = kinds[m>>5], digits[m&^markKind]
	}
	return string(a[:]), string(t[:])
}
