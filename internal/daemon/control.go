package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"hacheck/internal/balancer"
	"hacheck/internal/config"
	"hacheck/internal/control"
	"hacheck/internal/fleet"
	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// The times of a request of the control socket.
const (
	defaultApplyTime = 10 * time.Second // of OpSet and OpLift without a Timeout
	maxApplyTime     = time.Hour
	maxWaitTurn      = 7 * 24 * time.Hour
	operationTime    = 10 * time.Second // of an operation that reads or writes etcd a few times
	takedownTime     = time.Minute      // of OpTakeDown beyond its WaitTurn
)

// controlHandler does the requests of the control socket.
type controlHandler struct {
	log       *slog.Logger
	overrides func() []spool.Entry // in force on this host
	section   func() *config.Fleet // in force; nil: this host is in no fleet
	fleet     func() fleet.Service // used only with a section
	balancers *balancer.Table
}

// operation does one kind of request. parseRequest has read and validated r.
type operation struct {
	run          func(*controlHandler, context.Context, *controlRequest) (control.Event, error)
	operatorOnly bool
	withoutFleet bool // works without a section fleet too
}

func operationOf(op string) (operation, bool) {
	o, ok := map[string]operation{
		control.OpTakeDown: {run: (*controlHandler).takeDown},
		control.OpImpact:   {run: (*controlHandler).impact},
		control.OpHeldDown: {run: (*controlHandler).heldDown},
		control.OpReport:   {run: (*controlHandler).report},
		control.OpSet:      {run: (*controlHandler).set, operatorOnly: true},
		control.OpLift:     {run: (*controlHandler).lift, operatorOnly: true},
		control.OpBudget:   {run: (*controlHandler).budget, operatorOnly: true},
		control.OpForget:   {run: (*controlHandler).forget, operatorOnly: true},
		control.OpRelease:  {run: (*controlHandler).release, operatorOnly: true},
		control.OpLeave:    {run: (*controlHandler).leave, operatorOnly: true},
		control.OpJoin:     {run: (*controlHandler).join, operatorOnly: true},

		control.OpForgetBalancer: {run: (*controlHandler).forgetBalancer, withoutFleet: true},
	}[op]
	return o, ok
}

// handle is the control.Handler.
func (h *controlHandler) handle(ctx context.Context, caller control.Caller, r control.Request, send func(control.Event) error) control.Event {
	o, ok := operationOf(r.Op)
	if !ok {
		return control.Event{Code: control.CodeUsage, Error: fmt.Sprintf("the daemon does not know the operation %q", textfmt.Truncate(r.Op, 40))}
	}
	section := h.section()
	if section == nil && !o.withoutFleet {
		return control.Event{Code: control.CodeUsage, NoFleet: true, Error: "this host is in no fleet: the daemon's configuration has no key fleet"}
	}
	if o.operatorOnly && !caller.IsOperator(section.Operators) {
		h.log.Warn("a request on the control socket was refused: only root and members of the groups in fleet: {operators: [...]} may make it",
			"op", r.Op, "by", caller.By, "uid", caller.UID)
		return control.Event{Code: control.CodeRefused, Error: caller.By + " may not do this: use sudo, or have an administrator add a group of yours to operators in the section fleet of the configuration"}
	}
	parsed, err := parseRequest(r, caller, time.Now())
	if err != nil {
		return control.Event{Code: control.CodeUsage, Error: err.Error()}
	}
	if section != nil {
		parsed.self = section.Host
	}
	parsed.progress = func(text string) { _ = send(control.Event{Text: text}) } // an error: ctx ends as well
	e, err := o.run(h, ctx, parsed)
	if err != nil {
		e.Code, e.Error = codeOf(err), errorText(err)
	}
	return e
}

// errorText returns the text of an error of an operation. An operation is canceled when the daemon stops, or when the
// command has gone. Then nothing was changed, unless etcd was being asked.
func errorText(err error) string {
	if _, isUnavailable := errors.AsType[*fleet.UnavailableError](err); !isUnavailable && errors.Is(err, context.Canceled) {
		return "the daemon is stopping; run the command again when it is back"
	}
	return err.Error()
}

// codeOf returns the exit code for an error of an operation.
func codeOf(err error) int {
	_, isRefused := errors.AsType[*fleet.RefusedError](err)
	_, isAsking := errors.AsType[*balancer.AskingError](err)
	if isRefused || isAsking || errors.Is(err, balancer.ErrUnknownBalancer) {
		return control.CodeRefused
	}
	return control.CodeUnavailable
}

// takeDown is hadown --safe. ctx ends when the command closes its connection, which withdraws the claim.
func (h *controlHandler) takeDown(ctx context.Context, r *controlRequest) (control.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, r.waitTurn+takedownTime)
	defer cancel()
	err := h.fleet().TakeDown(ctx, fleet.Takedown{
		Keys: r.keys, Override: r.override, WaitTurn: r.waitTurn, IsStopped: r.caller.IsStopped,
	}, r.progress)
	if err != nil {
		return control.Event{}, err
	}
	return control.Event{WrittenAt: time.Now()}, nil
}

func (h *controlHandler) impact(ctx context.Context, r *controlRequest) (e control.Event, err error) {
	ctx, cancel := context.WithTimeout(ctx, operationTime)
	defer cancel()
	e.Impact, err = h.fleet().Impact(ctx, r.scoped())
	return e, err
}

func (h *controlHandler) set(ctx context.Context, r *controlRequest) (control.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	outcome, err := h.fleet().SetOverride(ctx, r.scoped(), r.progress)
	if err != nil {
		return h.changeFailed(r, outcome, err)
	}
	args := append(r.logArgs(), "state", r.State, "reason", textfmt.Excerpt(r.Reason, maxLoggedReason))
	if r.Expires != nil {
		args = append(args, "until", r.Expires.Format(time.RFC3339))
	}
	h.log.Info("an override for many hosts was set", append(args, "missing", len(outcome.Missing), "absent", len(outcome.Absent))...)
	return outcomeEvent(outcome), nil
}

func (h *controlHandler) lift(ctx context.Context, r *controlRequest) (control.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	outcome, err := h.fleet().LiftOverride(ctx, r.scoped(), r.progress)
	if err != nil {
		return h.changeFailed(r, outcome, err)
	}
	h.log.Info("an override for many hosts was lifted", append(r.logArgs(), "missing", len(outcome.Missing), "absent", len(outcome.Absent))...)
	return outcomeEvent(outcome), nil
}

// changeFailed logs that an override for many hosts was not set or lifted, or not certainly. The event has an outcome only
// if a part of the change was made.
func (h *controlHandler) changeFailed(r *controlRequest, outcome report.Outcome, err error) (control.Event, error) {
	h.log.Warn("a change of an override for many hosts failed", append(r.logArgs(), "op", r.Op, "err", err)...)
	return control.Event{Outcome: outcomeOrNil(outcome)}, err
}

// outcomeEvent returns the event for an operation that was done.
func outcomeEvent(o report.Outcome) control.Event {
	e := control.Event{Outcome: &o}
	switch {
	case len(o.Missing) > 0:
		e.Code, e.Error = control.CodeTimeout, fmt.Sprintf("the change is made, but not applied in time by %s", textfmt.Count(len(o.Missing), "host"))
	case len(o.StillDown) > 0:
		e.Code, e.Error = control.CodeRefused, "the overrides are lifted, but something else keeps hosts down"
	}
	return e
}

// outcomeOrNil returns nil for an outcome that says nothing.
func outcomeOrNil(o report.Outcome) *report.Outcome {
	if len(o.Missing)+len(o.Absent)+len(o.Left)+len(o.Unknown)+len(o.StillDown) == 0 {
		return nil
	}
	return &o
}

// heldDown lists the overrides of the fleet that keep services of this host down now, without services every override
// of the fleet that is in force here.
func (h *controlHandler) heldDown(_ context.Context, r *controlRequest) (control.Event, error) {
	e := control.Event{}
	for _, o := range h.overrides() {
		if o.Scope == "" || len(r.keys) > 0 && (!o.State.TakesOut() || !coversAny(o.Key, r.keys)) {
			continue
		}
		e.HeldDown = append(e.HeldDown, report.HeldDown{
			Host: r.self, Service: o.Key.Name(), State: o.State.Word(), Scope: o.Scope, Reason: o.Reason, By: o.By,
			Since: timeOrNil(o.Created), Until: timeOrNil(o.Expires),
		})
	}
	return e, nil
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func coversAny(k spool.Key, list []spool.Key) bool {
	for _, other := range list {
		if k.Covers(other, true) {
			return true
		}
	}
	return false
}

func (h *controlHandler) report(ctx context.Context, _ *controlRequest) (e control.Event, err error) {
	ctx, cancel := context.WithTimeout(ctx, operationTime)
	defer cancel()
	e.Fleet, err = h.fleet().Report(ctx)
	return e, err
}

func (h *controlHandler) budget(ctx context.Context, r *controlRequest) (control.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, operationTime)
	defer cancel()
	return control.Event{}, h.fleet().SetBudget(ctx, r.Services[0], r.Budget, r.override.By)
}

func (h *controlHandler) forget(ctx context.Context, r *controlRequest) (control.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, operationTime)
	defer cancel()
	return control.Event{}, h.fleet().Forget(ctx, r.Host, r.override.By)
}

func (h *controlHandler) release(ctx context.Context, r *controlRequest) (control.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, operationTime)
	defer cancel()
	return control.Event{}, h.fleet().Release(ctx, r.Services[0], r.Host, r.override.By)
}

func (h *controlHandler) leave(_ context.Context, r *controlRequest) (control.Event, error) {
	return control.Event{}, h.fleet().Leave(r.override.By)
}

func (h *controlHandler) join(_ context.Context, r *controlRequest) (control.Event, error) {
	return control.Event{}, h.fleet().Join(r.override.By)
}

// forgetBalancer removes a balancer that is gone. Every user of the control socket may do it, because the next request of
// a balancer brings it back.
func (h *controlHandler) forgetBalancer(_ context.Context, r *controlRequest) (control.Event, error) {
	rows, err := h.balancers.Forget(r.Balancer)
	if err != nil {
		return control.Event{}, fmt.Errorf("%s: %w", textfmt.OneLine(r.Balancer), err)
	}
	h.log.Info("a balancer was forgotten", "balancer", textfmt.OneLine(r.Balancer), "rows", rows, "by", r.override.By)
	return control.Event{}, nil
}
