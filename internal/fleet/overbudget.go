package fleet

import (
	"fmt"
	"strings"
	"time"

	"hacheck/internal/textfmt"
)

// maxNamed is how many hosts a text names. It counts the others.
const maxNamed = 8

// overBudget returns why the host may not go out of services, "" if it may. full are the services whose budget is used up.
func (snap *snapshot) overBudget(services []string, host string, now time.Time) (reason string, full []string) {
	var texts []string
	for _, s := range services {
		list := snap.outOf(s, host)
		limit := snap.limit(s)
		if len(list)+1 <= limit {
			continue
		}
		full = append(full, s)
		if len(texts) == maxNamed {
			texts = append(texts, "and more services")
		}
		if len(texts) < maxNamed {
			texts = append(texts, snap.overBudgetText(s, list, limit, now))
		}
	}
	return strings.Join(texts, "; "), full
}

func (snap *snapshot) overBudgetText(service string, list []outMember, limit int, now time.Time) string {
	verb := "are"
	if len(list) == 1 {
		verb = "is"
	}
	text := fmt.Sprintf("%s: %d of %s %s out and the budget is %d: ", service, len(list), textfmt.Count(len(snap.states[service]), "host"), verb, limit)
	return text + nameList(list, func(o outMember) string { return o.text(now) })
}

// nameList joins the texts of the first entries and counts the others.
func nameList[T any](list []T, text func(T) string) string {
	var names []string
	for _, v := range list[:min(len(list), maxNamed)] {
		names = append(names, text(v))
	}
	joined := strings.Join(names, ", ")
	if n := len(list) - maxNamed; n > 0 {
		joined += fmt.Sprintf(" and %d more", n)
	}
	return joined
}

// text names the host, why it is out, by whom and since when, and what to do about a host that is gone.
func (o outMember) text(now time.Time) string {
	host := textfmt.OneLine(o.host)
	word, by, reason := o.state.State, o.state.By, o.state.Reason
	switch o.why {
	case outAbsent:
		return fmt.Sprintf("%s (absent%s; gone for good? hacheck fleet forget %s)", host, o.absenceText(now), host)
	case outByPermit:
		word, by, reason = "has a permit", o.permit.By, o.permit.Reason
	case outByState:
		if word == stateFailing {
			by = ""
		}
	}
	text := textfmt.OneLine(word)
	if by != "" {
		text += " by " + textfmt.Excerpt(by, 60)
	}
	text += forText(o.since(), now)
	if reason != "" {
		text += ": " + textfmt.Excerpt(reason, 100)
	}
	return host + " (" + text + ")"
}

// absenceText says for how long the host is absent, or else when it last changed its state: it may have been up since.
func (o outMember) absenceText(now time.Time) string {
	if o.absent.IsZero() && !o.state.Since.IsZero() {
		return ", last change " + shortAge(now.Sub(o.state.Since)) + " ago"
	}
	return forText(o.absent, now)
}

func forText(since, now time.Time) string {
	if since.IsZero() {
		return ""
	}
	return " for " + shortAge(now.Sub(since))
}

// shortAge returns d in its largest unit.
func shortAge(d time.Duration) string {
	for _, u := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= u.length {
			return fmt.Sprintf("%d%s", d/u.length, u.name)
		}
	}
	return fmt.Sprintf("%ds", max(d, 0)/time.Second)
}
