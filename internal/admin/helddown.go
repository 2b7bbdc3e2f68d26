package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"hacheck/internal/control"
	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// held is what keeps one target down: the strongest override of the fleet, and a text about all of them.
type held struct {
	strongest report.HeldDown
	text      string // "": nothing
}

// heldDown returns for each target what keeps it down on this host, and prints it. haup asks after it has lifted the
// local override. Without a control socket, or without a fleet, nothing is held.
func (c *command) heldDown(targets []target) []held {
	list := make([]held, len(targets))
	overrides := c.fleetOverrides()
	for i, t := range targets {
		var texts []string
		for _, h := range overrides {
			// An unreadable key may cover the target.
			if k, err := spool.ParseKey(keyOf(h)); h.State != spool.ForceUp.Word() && (err != nil || k.Covers(t.key, true)) {
				texts = append(texts, heldText(h))
				if len(texts) == 1 || strength(h) > strength(list[i].strongest) {
					list[i].strongest = h
				}
			}
		}
		if len(texts) > 0 {
			list[i].text = strings.Join(texts, "; ")
			c.errorf("%s: %s", t.label, list[i].text)
		}
	}
	return list
}

// fleetOverrides returns the overrides of the fleet on this host. Without a control socket, or without a fleet, there
// are none.
func (c *command) fleetOverrides() []report.HeldDown {
	if !c.hasControlSocket() {
		return nil
	}
	e, err := c.ask(context.Background(), control.Request{Op: control.OpHeldDown}, c.withinWait(requestTimeout), nil)
	if errors.Is(err, control.ErrNoSocket) || err == nil && e.NoFleet {
		return nil
	}
	if f := c.newFailure(e, err); f != nil && len(e.HeldDown) == 0 {
		c.errorf("warning: it is not known whether the fleet keeps this host down: %s", f.text)
	}
	return e.HeldDown
}

// fleetEntries returns fleetOverrides as entries of the spool. It leaves out keys and states that cannot be read.
func (c *command) fleetEntries() []spool.Entry {
	var list []spool.Entry
	for _, h := range c.fleetOverrides() {
		k, err := spool.ParseKey(keyOf(h))
		state, known := stateOf(h.State)
		if err != nil || !known {
			continue
		}
		e := spool.Entry{Key: k, State: state, Scope: h.Scope, Reason: h.Reason, By: h.By}
		if h.Since != nil {
			e.Created = *h.Since
		}
		if h.Until != nil {
			e.Expires = *h.Until
		}
		list = append(list, e)
	}
	return list
}

// stateOf returns the state of a word of the daemon.
func stateOf(word string) (spool.State, bool) {
	for s := spool.ForceUp; s <= spool.Maint; s++ {
		if s.Word() == word {
			return s, true
		}
	}
	return spool.Ready, false
}

// strength orders overrides as spool.State does. A state that is not known is the weakest.
func strength(h report.HeldDown) spool.State {
	s, _ := stateOf(h.State)
	return s
}

// keyOf returns the key of the override of h. A daemon that does not send it means the service.
func keyOf(h report.HeldDown) string { return cmp.Or(h.Key, h.Service) }

// heldText says which override keeps a service of this host down, and how to lift it.
func heldText(h report.HeldDown) string {
	return fmt.Sprintf("still %s by %s%s; lift it with: %s", stateWord(h.State), overrideText(h.Scope, keyOf(h)), causeText(h.By, h.Reason), liftCommand(h.Scope, keyOf(h)))
}

// overrideText names the override of a scope and a key.
func overrideText(scope, key string) string {
	return fmt.Sprintf("the override of %s on %s", textfmt.OneLine(key), scopeText(scope))
}

// causeText returns by whom and why an override was set, in brackets, "" if neither is known.
func causeText(by, reason string) string {
	by, reason = textfmt.OneLine(by), textfmt.Excerpt(reason, maxReasonText)
	switch {
	case by == "" && reason == "":
		return ""
	case by == "":
		return " (" + reason + ")"
	case reason == "":
		return " (by " + by + ")"
	}
	return " (by " + by + ": " + reason + ")"
}

// maxReasonText is the longest reason in a sentence or a table, in bytes.
const maxReasonText = 200

// stateWord returns a state for people, "down" if the daemon has sent none.
func stateWord(state string) string {
	if state == "" {
		return spool.Down.Word()
	}
	return textfmt.OneLine(state)
}
