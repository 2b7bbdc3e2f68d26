package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// keySpace makes the keys of a fleet. Its value is the prefix.
type keySpace string

func (k keySpace) presence(host string) string       { return string(k) + "present/" + host }
func (k keySpace) applied(host string) string        { return string(k) + "applied/" + host }
func (k keySpace) permit(host string) string         { return string(k) + "permits/" + host }
func (k keySpace) budget(service string) string      { return string(k) + "budgets/" + service }
func (k keySpace) queue(claim string) string         { return string(k) + "queue/" + claim }
func (k keySpace) states(service string) string      { return string(k) + "state/" + service + "/" }
func (k keySpace) state(service, host string) string { return k.states(service) + host }
func (k keySpace) guard() string                     { return string(k) + "guard" }

// queueOf returns the prefix of the claims of a host. It may be the prefix of another host's claims too, if that host's
// name begins with this one's and a dot.
func (k keySpace) queueOf(host string) string { return k.queue(host + ".") }

// decode reads a value. It returns an error for a value that is no JSON object, is too long or has a newer version.
func decode[T any](value []byte) (v T, err error) {
	if len(value) > maxValue {
		return v, fmt.Errorf("a value of %d bytes is longer than %d", len(value), maxValue)
	}
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(value, &head); err != nil {
		return v, err
	}
	if head.V < 1 || head.V > version {
		return v, fmt.Errorf("version %d is not between 1 and %d", head.V, version)
	}
	err = json.Unmarshal(value, &v)
	return v, err
}

// encode returns the value of v, which has no types that JSON does not know.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // a mistake in model.go
	}
	return string(b)
}

// snapshot is what etcd has at one revision: of the whole fleet, or what a decision about some services needs.
type snapshot struct {
	revision int64
	guard    int64 // mod revision of the guard; 0: there is none
	present  map[string]presentHost
	states   map[string]map[string]state // by service and host: the members
	budgets  map[string]budget           // by service; "*" for the others
	permits  map[string]heldPermit       // by host
	queue    []queuedClaim               // in the order of their creation
	// absentSince is when hosts went absent, as far as this daemon knows it.
	absentSince map[string]time.Time

	// Only of the whole fleet.
	applied   map[string]applied
	overrides []scopedOverride
}

// presentHost is a present key.
type presentHost struct {
	presence // zero if it cannot be read; the host is present all the same
	created  int64
	lease    clientv3.LeaseID
}

// heldPermit is a permit key.
type heldPermit struct {
	permit
	modified   int64 // mod revision
	unreadable bool  // it counts as a permit for every service
}

// covers reports whether the permit is for a service.
func (h heldPermit) covers(service string) bool {
	return h.unreadable || slices.Contains(h.Services, service)
}

// queuedClaim is a queue entry.
type queuedClaim struct {
	queueEntry
	key     string
	created int64 // create revision: the order of the queue
}

// scopedOverride is an override key.
type scopedOverride struct {
	scope, service string
	override
}

// stateUnreadable is the state of a member whose value cannot be read. It counts as out.
const stateUnreadable = "unreadable"

// maxServiceRanges is how many services are read one by one. For more of them the states of all services are read.
const maxServiceRanges = 20

// readSnapshot reads what a decision about services needs, in one linearizable transaction. Without services
// it reads the whole fleet, with the overrides and the hosts' own reports.
func (p *permits) readSnapshot(ctx context.Context, services []string) (*snapshot, error) {
	prefix := func(key string) clientv3.Op { return clientv3.OpGet(key, clientv3.WithPrefix()) }
	ops := []clientv3.Op{
		clientv3.OpGet(p.keys.guard()), prefix(p.keys.presence("")), prefix(p.keys.permit("")),
		prefix(p.keys.budget("")), prefix(p.keys.queue("")),
	}
	switch {
	case len(services) == 0:
		ops = append(ops, prefix(string(p.keys)+"state/"), prefix(p.keys.applied("")), prefix(string(p.keys)+"overrides/"))
	case len(services) > maxServiceRanges:
		ops = append(ops, prefix(string(p.keys)+"state/"))
	default:
		for _, s := range services {
			ops = append(ops, prefix(p.keys.states(s)))
		}
	}
	r, err := p.conn().commit(ctx, nil, ops, nil)
	if err != nil {
		return nil, readError(err)
	}
	snap := p.parse(r)
	snap.absentSince = p.absences.observe(snap, p.now())
	return snap, nil
}

// parse returns the snapshot of the ranges that a transaction has read.
func (p *permits) parse(r *clientv3.TxnResponse) *snapshot {
	snap := &snapshot{
		revision: r.Header.Revision, present: map[string]presentHost{}, states: map[string]map[string]state{},
		budgets: map[string]budget{}, permits: map[string]heldPermit{}, applied: map[string]applied{},
	}
	for _, part := range r.Responses {
		for _, kv := range part.GetResponseRange().GetKvs() {
			snap.add(strings.TrimPrefix(string(kv.Key), string(p.keys)), kv)
		}
	}
	slices.SortFunc(snap.queue, func(a, b queuedClaim) int { return cmp.Compare(a.created, b.created) })
	return snap
}

// readError returns the error of a transaction that changes nothing: its outcome is not unknown.
func readError(err error) error {
	var u *UnavailableError
	if errors.As(err, &u) {
		return &UnavailableError{Err: u.Err}
	}
	return err
}

// add takes in one key. name is the key without the prefix.
func (snap *snapshot) add(name string, kv *mvccpb.KeyValue) {
	kind, rest, _ := strings.Cut(name, "/")
	switch kind {
	case "guard":
		snap.guard = kv.ModRevision
	case "present":
		v, _ := decode[presence](kv.Value)
		snap.present[rest] = presentHost{v, kv.CreateRevision, clientv3.LeaseID(kv.Lease)}
	case "permits":
		v, err := decode[permit](kv.Value)
		v.Host = rest
		snap.permits[rest] = heldPermit{v, kv.ModRevision, err != nil}
	case "budgets":
		if v, err := decode[budget](kv.Value); err == nil {
			snap.budgets[rest] = v
		} else {
			snap.budgets[rest] = budget{Hosts: 1} // as if there were none, and not the budget of the other services
		}
	case "queue":
		// An entry that cannot be read is passed over: the order is a courtesy, and the transaction counts anyway.
		if v, err := decode[queueEntry](kv.Value); err == nil {
			snap.queue = append(snap.queue, queuedClaim{v, string(kv.Key), kv.CreateRevision})
		}
	case "state":
		snap.addState(rest, kv.Value)
	case "applied":
		v, err := decode[applied](kv.Value)
		if err != nil {
			v.Error = "applied/" + rest + " cannot be read: " + err.Error()
		}
		snap.applied[rest] = v
	case "overrides":
		scope, service, ok := strings.Cut(rest, "/")
		if v, err := decode[override](kv.Value); err == nil && ok {
			snap.overrides = append(snap.overrides, scopedOverride{scope, service, v})
		}
	}
}

func (snap *snapshot) addState(name string, value []byte) {
	service, host, ok := strings.Cut(name, "/")
	if !ok {
		return
	}
	v, err := decode[state](value)
	if err != nil {
		v = state{State: stateUnreadable, Reason: err.Error()}
	}
	if snap.states[service] == nil {
		snap.states[service] = map[string]state{}
	}
	snap.states[service][host] = v
}

// isOut reports whether a state takes its member out, absence and permits aside.
func (s *state) isOut() bool { return s.State != stateUp && s.State != "force-up" }

// isPresent reports whether a host is present.
func (snap *snapshot) isPresent(host string) bool {
	_, ok := snap.present[host]
	return ok
}

// outMember is a member that counts as out.
type outMember struct {
	host   string
	why    outReason
	state  state
	permit permit
	absent time.Time // since when; zero: not absent, or not known
}

// outReason is why a member is out. Of several reasons the first counts.
type outReason int

const (
	outByState outReason = iota
	outAbsent
	outByPermit // it holds a permit, and no override takes it out yet
)

// outOf returns the members of a service that are out, by host, without the host except. A host with a permit for the
// service counts even if it is no member.
func (snap *snapshot) outOf(service, except string) []outMember {
	var list []outMember
	members := snap.states[service]
	for host, s := range members {
		h, hasPermit := snap.permits[host]
		o := outMember{host: host, state: s, permit: h.permit, absent: snap.absentSince[host]}
		switch {
		case host == except:
			continue
		case !snap.isPresent(host):
			o.why = outAbsent
		case s.isOut():
			o.why = outByState
		case hasPermit && h.covers(service):
			o.why = outByPermit
		default:
			continue
		}
		list = append(list, o)
	}
	for host, h := range snap.permits {
		if _, isMember := members[host]; !isMember && host != except && h.covers(service) && !h.unreadable {
			list = append(list, outMember{host: host, why: outByPermit, permit: h.permit})
		}
	}
	slices.SortFunc(list, func(a, b outMember) int { return strings.Compare(a.host, b.host) })
	return list
}

// blockers returns the queue entries of other claims that were created before that revision, want one of the services and
// do not let others pass.
func (snap *snapshot) blockers(services []string, claim string, created int64) []queuedClaim {
	var list []queuedClaim
	for _, q := range snap.queue {
		if q.Claim != claim && q.created < created && q.Waiting == "" && slices.ContainsFunc(q.Services, func(s string) bool { return slices.Contains(services, s) }) {
			list = append(list, q)
		}
	}
	return list
}

// since returns when the member went out as far as etcd knows; zero if it does not.
func (o outMember) since() time.Time {
	if o.why == outByPermit {
		return o.permit.At
	}
	return o.state.Since
}
