package daemon

import (
	"time"

	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// maxLoggedReason is how much of a reason a log line shows, in bytes; hastatus shows all of it.
const maxLoggedReason = 300

// overrideChanged passes a change of an override on to the endpoints and logs it. by and scope are of the override that
// the line is about: who has lifted it is not known here.
func (d *daemon) overrideChanged(c spool.Change) {
	if s := d.services.Load(); s != nil {
		s.triggerBeacons()
	}
	d.successes.OverrideChanged(c)
	message, override := "override set", c.New
	switch {
	case c.New == nil && c.Old == nil:
		return
	case c.New == nil && c.Expired:
		message, override = "override expired", c.Old
	case c.New == nil:
		message, override = "override lifted", c.Old
	case c.Old != nil: // an operator changed it, or a stronger one has expired
		message = "override changed"
	}
	if !d.logLimit.Allow(loglimit.Override, c.Key.Service, message) {
		return
	}
	args := []any{"service", c.Key.Name(), "state", override.State.String(), "reason", textfmt.Excerpt(override.Reason, maxLoggedReason)}
	if !override.Created.IsZero() {
		args = append(args, "since", override.Created.Format(time.RFC3339))
	}
	switch {
	case override.Boot != "":
		args = append(args, "until", "next start")
	case !override.Expires.IsZero():
		args = append(args, "until", override.Expires.Format(time.RFC3339))
	}
	if override.By != "" {
		args = append(args, "by", override.By)
	}
	if override.Scope != "" {
		args = append(args, "scope", override.Scope)
	}
	if override.Lost {
		args = append(args, "lost_in_etcd", true)
	}
	d.log.Info(message, args...)
}

// weightChanged logs a change of a weight. by is of the weight that the line is about: who has ended it is not known here.
func (d *daemon) weightChanged(c spool.WeightChange) {
	message, w := "weight set", c.New
	switch {
	case c.New == nil && c.Expired:
		message, w = "weight expired", c.Old
	case c.New == nil:
		message, w = "weight ended", c.Old
	case c.Old != nil:
		message = "weight changed"
	}
	if !d.logLimit.Allow(loglimit.Override, c.Key.Service, message) {
		return
	}
	args := []any{"service", c.Key.Name(), "weight", w.Percent, "since", w.Created.Format(time.RFC3339)}
	if !w.Expires.IsZero() {
		args = append(args, "until", w.Expires.Format(time.RFC3339))
	}
	if w.By != "" {
		args = append(args, "by", w.By)
	}
	d.log.Info(message, args...)
}
