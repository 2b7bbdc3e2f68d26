package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"hacheck/internal/fleet/report"
	"hacheck/internal/spool"
)

// maxChanges bounds the keys of one command: scopes times services. Each is a transaction of its own.
const maxChanges = 256

// change is what a command does to one key below overrides/.
type change struct {
	key string // below overrides/
	old *mvccpb.KeyValue
	now *override // the readable value of old, nil without
	err error     // why old cannot be read
}

// SetOverride sets o and waits until every present host of its scopes has applied it, or ctx ends. The hosts that have
// not are Outcome.Missing.
func (f *Fleet) SetOverride(ctx context.Context, o ScopedOverride, p Progress) (report.Outcome, error) {
	now := time.Now()
	value, err := newOverride(o, now)
	if err != nil {
		return report.Outcome{}, err
	}
	changes, err := f.changes(ctx, o)
	if err != nil {
		return report.Outcome{}, err
	}
	decide := func(c *change) (*override, error) {
		if !o.Replace {
			if err := c.refuseOther(o.Override.By, now); err != nil {
				return nil, err
			}
		}
		v := *value
		v.ID = newID()
		return &v, nil
	}
	for _, c := range changes { // before the first one is written
		if _, err := decide(c); err != nil {
			return report.Outcome{}, err
		}
	}
	return f.write(ctx, changes, p, decide)
}

// LiftOverride writes the lift record of the overrides of exactly these scopes and keys, and waits as SetOverride does.
func (f *Fleet) LiftOverride(ctx context.Context, o ScopedOverride, p Progress) (report.Outcome, error) {
	changes, err := f.changes(ctx, o)
	if err != nil {
		return report.Outcome{}, err
	}
	now := time.Now()
	outcome, err := f.write(ctx, changes, p, func(c *change) (*override, error) {
		return f.liftRecord(c, o.Override.By, now), nil
	})
	if err != nil {
		return outcome, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout) // ctx may have ended
	defer cancel()
	if outcome.StillDown, err = f.stillDown(ctx, o); err != nil && len(outcome.Missing) == 0 {
		return outcome, err
	}
	return outcome, nil
}

// newOverride returns the value of o without an id.
func newOverride(o ScopedOverride, now time.Time) (*override, error) {
	e := o.Override
	v := &override{
		V: version, ID: "new", State: e.State.String(), Reason: cutText(e.Reason, spool.MaxReason), By: e.By, Created: now.UTC().Round(0),
	}
	if !e.Expires.IsZero() {
		expires := e.Expires.UTC().Round(0)
		v.Expires = &expires
	}
	if err := v.check(); err != nil {
		return nil, &RefusedError{Reason: "the override cannot be set: " + err.Error()}
	}
	return v, nil
}

// changes validates scopes and keys and reads what etcd has for them.
func (f *Fleet) changes(ctx context.Context, o ScopedOverride) ([]*change, error) {
	switch {
	case o.Override.By == "" || len(o.Override.By) > maxBy:
		return nil, &RefusedError{Reason: "an override of several hosts needs the name of the person who sets it"}
	case len(o.Scopes) == 0 || len(o.Keys) == 0:
		return nil, &RefusedError{Reason: "no scope or no service is given"}
	case len(o.Scopes)*len(o.Keys) > maxChanges:
		return nil, &RefusedError{Reason: fmt.Sprintf("more than %d overrides in one command; use a group, or several commands", maxChanges)}
	}
	var list []*change
	seen := map[string]bool{}
	for _, scope := range o.Scopes {
		if err := checkScope(scope); err != nil {
			return nil, &RefusedError{Reason: err.Error()}
		}
		for _, k := range o.Keys {
			if err := k.Check(); err != nil {
				return nil, &RefusedError{Reason: err.Error()}
			}
			if key := scope + "/" + k.Name(); !seen[key] {
				seen[key] = true
				list = append(list, &change{key: key})
			}
		}
	}
	for _, c := range list {
		r, err := f.conn.get(ctx, f.overrideKey(c.key))
		if err != nil {
			return nil, err
		}
		c.read(r.Kvs)
	}
	return list, nil
}

func (f *Fleet) overrideKey(key string) string { return f.o.Prefix + overridesPrefix + key }

// read takes over what etcd has in the key.
func (c *change) read(kvs []*mvccpb.KeyValue) {
	c.old, c.now, c.err = nil, nil, nil
	if len(kvs) > 0 {
		c.old = kvs[0]
		c.now, c.err = parseOverride(c.key, c.old.Value)
	}
}

// refuseOther returns a RefusedError if an override of another person is in force.
func (c *change) refuseOther(by string, now time.Time) error {
	switch {
	case c.err != nil:
		return &RefusedError{Reason: fmt.Sprintf("%s has an override that this hacheck cannot read: %v; --replace replaces it", describe(c.key), c.err)}
	case c.now == nil || !c.now.inForce(now) || c.now.By == by:
		return nil
	}
	text := fmt.Sprintf("%s is %s by %s since %s", describe(c.key), c.now.state().Word(), orNone(c.now.By), c.now.Created.Local().Format("2006-01-02 15:04:05"))
	if c.now.Reason != "" {
		text += ": " + c.now.Reason
	}
	return &RefusedError{Reason: text + "; --replace replaces it"}
}

// liftRecord returns the lift record for what is in force in the key. If etcd has lost the key, it lifts what this host
// knows of it; without that it has a new id, and hosts take any later id of the key as the end of theirs.
func (f *Fleet) liftRecord(c *change, by string, now time.Time) *override {
	v := override{V: version, ID: newID(), State: spool.Down.String(), By: by, Created: now.UTC().Round(0)}
	known := f.applier.override(c.key)
	switch {
	case c.now != nil && (c.now.inForce(now) || known == nil):
		v = *c.now
	case known != nil:
		v = *known
	}
	if v.Lifted == nil {
		v.Lifted = &liftRecord{At: now.UTC().Round(0), By: by}
	}
	return &v
}

// override returns the override that this host obeys for a key, nil if there is none.
func (a *applier) override(key string) *override {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.rules.records[key]; r != nil {
		v := r.Override
		return &v
	}
	return nil
}

// write writes each change and waits for the hosts. value returns what a key gets, or an error that ends the command.
func (f *Fleet) write(ctx context.Context, changes []*change, p Progress, value func(*change) (*override, error)) (report.Outcome, error) {
	// What the hosts have applied is read before the change. etcd has nothing else to do then; after it, all hosts write.
	before, err := f.conn.get(ctx, f.o.Prefix+"applied/", clientv3.WithPrefix())
	if err != nil {
		return report.Outcome{}, err
	}
	revisions := map[string]int64{} // of the last change of each scope
	var hosts []*mvccpb.KeyValue    // present keys, read with the first change
	for i, c := range changes {
		var with []clientv3.Op
		if i == 0 {
			with = append(with, clientv3.OpGet(f.o.Prefix+"present/", clientv3.WithPrefix()))
		}
		r, err := f.writeKey(ctx, c, value, with...)
		if err != nil {
			return report.Outcome{}, withWritten(err, changes[:i])
		}
		scope, _, _ := strings.Cut(c.key, "/")
		revisions[scope] = r.Header.Revision
		if i == 0 {
			hosts = r.Responses[1].GetResponseRange().Kvs
		}
	}
	w := newWaiter(f, revisions, hosts)
	w.start(before)
	return w.wait(ctx, p)
}

// withWritten adds to err which keys were written before it.
func withWritten(err error, written []*change) error {
	if len(written) == 0 {
		return err
	}
	var names []string
	for _, c := range written {
		names = append(names, describe(c.key))
	}
	text := "already done: " + strings.Join(names, ", ")
	var unavailable *UnavailableError
	if errors.As(err, &unavailable) {
		return &UnavailableError{Err: fmt.Errorf("%w (%s)", unavailable.Err, text), Unknown: unavailable.Unknown}
	}
	return fmt.Errorf("%w (%s)", err, text)
}

// writeKey writes one key in a transaction that compares its revision. The operations of with are part of it. If the key
// has changed meanwhile, it decides again.
func (f *Fleet) writeKey(ctx context.Context, c *change, value func(*change) (*override, error), with ...clientv3.Op) (*clientv3.TxnResponse, error) {
	key := f.overrideKey(c.key)
	for {
		v, err := value(c)
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		var mod int64
		if c.old != nil {
			mod = c.old.ModRevision
		}
		r, err := f.conn.commit(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", mod)},
			append([]clientv3.Op{clientv3.OpPut(key, string(text))}, with...),
			[]clientv3.Op{clientv3.OpGet(key)})
		if err != nil {
			return nil, err
		}
		if r.Succeeded {
			return r, nil
		}
		c.read(r.Responses[0].GetResponseRange().Kvs)
	}
}

// stillDown returns the members of the scopes' hosts that another override keeps out after a lift.
func (f *Fleet) stillDown(ctx context.Context, o ScopedOverride) ([]report.HeldDown, error) {
	overrides, err := f.readPrefix(ctx, overridesPrefix)
	if err != nil {
		return nil, err
	}
	states, err := f.readPrefix(ctx, "state/")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	var list []report.HeldDown
	for name, kv := range states {
		service, host, ok := strings.Cut(name, "/")
		var s state
		if !ok || json.Unmarshal(kv.Value, &s) != nil || s.V != version {
			continue
		}
		inScope := slices.ContainsFunc(o.Scopes, func(scope string) bool { return covers(scope, host, s.Groups) })
		about := slices.ContainsFunc(o.Keys, func(k spool.Key) bool { return k.Service == spool.All || k.Service == service })
		if !inScope || !about {
			continue
		}
		if held := heldDown(overrides, service, host, s.Groups, now); held != nil {
			list = append(list, *held)
		} else if s.Scope == "" && isOutWord(s.State) {
			list = append(list, report.HeldDown{Host: host, Service: service, State: s.State, Reason: s.Reason, By: s.By})
		}
	}
	slices.SortFunc(list, func(a, b report.HeldDown) int {
		return strings.Compare(a.Host+"\x00"+a.Service, b.Host+"\x00"+b.Service)
	})
	return list, nil
}

// isOutWord reports whether a state of a member is that of an override that takes it out.
func isOutWord(word string) bool {
	for _, s := range []spool.State{spool.Drain, spool.Down, spool.Maint} {
		if word == s.Word() {
			return true
		}
	}
	return false
}

// heldDown returns the strongest fleet override that takes a whole service of a host out, nil without.
func heldDown(overrides map[string]*mvccpb.KeyValue, service, host string, groups []string, now time.Time) *report.HeldDown {
	var best *override
	var bestScope, bestKey string
	for key, kv := range overrides {
		scope, k, err := splitOverrideKey(key)
		if err != nil || !covers(scope, host, groups) || !k.Covers(spool.Key{Service: service}, true) {
			continue
		}
		v, err := parseOverride(key, kv.Value)
		if err != nil || !v.inForce(now) || !v.state().TakesOut() {
			continue
		}
		if best == nil || v.state() > best.state() || v.state() == best.state() && scope < bestScope {
			best, bestScope, bestKey = v, scope, k.Name()
		}
	}
	if best == nil {
		return nil
	}
	return &report.HeldDown{Host: host, Service: service, Key: bestKey, State: best.state().Word(), Scope: bestScope, Reason: best.Reason, By: best.By}
}

// readPrefix returns the keys below a prefix of Options.Prefix, by what follows it.
func (f *Fleet) readPrefix(ctx context.Context, below string) (map[string]*mvccpb.KeyValue, error) {
	prefix := f.o.Prefix + below
	r, err := f.conn.get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	kvs := make(map[string]*mvccpb.KeyValue, len(r.Kvs))
	for _, kv := range r.Kvs {
		kvs[strings.TrimPrefix(string(kv.Key), prefix)] = kv
	}
	return kvs, nil
}
