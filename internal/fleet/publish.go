package fleet

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
)

const (
	// overridesEvery and balancersEvery are how often the publisher looks at the overrides and at the balancers.
	overridesEvery = 250 * time.Millisecond
	balancersEvery = time.Second
	// reconcileEvery is how often the publisher compares its keys with etcd's, which an operator may have deleted.
	reconcileEvery = 5 * time.Minute
	// maxOps bounds the operations of a transaction. etcd's own bound is 128.
	maxOps = 50
)

// publisher writes the state keys of this host. Its own goroutine uses it; p.mu guards members.
type publisher struct {
	p *permits

	published    map[string]string // the values in etcd by service
	reconciled   time.Time         // when published was last compared with etcd; zero: it has to be
	report       *balancer.Report
	reportAt     time.Time
	failures     int
	retryAt      time.Time
	remembered   []string  // the services in the file
	isRemembered bool      // the file was read or written
	rememberErr  error     // why the file could not be written
	rememberAt   time.Time // then, not before this
}

// run publishes until ctx ends.
func (u *publisher) run(ctx context.Context) {
	u.restoreFromFile()
	tick := time.NewTicker(overridesEvery)
	defer tick.Stop()
	for {
		u.observe()
		u.publish(ctx)
		select {
		case <-ctx.Done():
			return
		case <-u.p.publishNow:
		case <-tick.C:
		}
	}
}

// observe takes in the balancers and the overrides.
func (u *publisher) observe() {
	p, now := u.p, u.p.now()
	if p.observeNow.Swap(false) || u.report == nil || now.Sub(u.reportAt) >= balancersEvery {
		r := p.balancers()
		u.report, u.reportAt = &r, now
		overrides := p.f.o.Overrides.List()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.members.observe(now, u.report, overrides, p.own.Services)
	}
}

// publish writes what differs from etcd. After a failure it waits longer and longer.
func (u *publisher) publish(ctx context.Context) {
	p, now := u.p, u.p.now()
	s, err := p.conn().registration()
	if err != nil || now.Before(u.retryAt) {
		return
	}
	if p.isStale.Swap(false) || now.Sub(u.reconciled) >= reconcileEvery {
		u.reconciled = time.Time{}
	}
	if u.reconciled.IsZero() {
		if err = u.reconcile(ctx); err == nil {
			u.reconciled = now
		}
	}
	if err == nil {
		err = u.write(ctx, s)
	}
	if err != nil {
		u.failures++
		u.retryAt = now.Add(retryDelay(u.failures))
		return
	}
	u.failures = 0
	u.remember()
}

// reconcile reads the state keys of this host.
func (u *publisher) reconcile(ctx context.Context) error {
	p := u.p
	if !u.isRemembered {
		if err := u.restoreFromEtcd(ctx); err != nil {
			return err
		}
	}
	p.mu.Lock()
	names := slices.Sorted(maps.Keys(p.members.services))
	p.mu.Unlock()
	for _, service := range slices.Sorted(maps.Keys(u.published)) {
		if !slices.Contains(names, service) {
			names = append(names, service)
		}
	}
	published := map[string]string{}
	for chunk := range slices.Chunk(names, maxOps) {
		var ops []clientv3.Op
		for _, service := range chunk {
			ops = append(ops, clientv3.OpGet(p.keys.state(service, p.f.o.Host)))
		}
		r, err := p.conn().commit(ctx, nil, ops, nil)
		if err != nil {
			return err
		}
		for i, service := range chunk {
			if kvs := r.Responses[i].GetResponseRange().GetKvs(); len(kvs) > 0 {
				published[service] = string(kvs[0].Value)
			}
		}
	}
	u.published = published
	p.mu.Lock()
	defer p.mu.Unlock()
	for service, rec := range p.members.services {
		if s, err := decode[state]([]byte(published[service])); err == nil && rec.isMember {
			p.members.restore(service, &s, p.now())
		}
	}
	return nil
}

// write writes the values that differ, each transaction under the present key of this host.
func (u *publisher) write(ctx context.Context, s session) error {
	p := u.p
	states, values := u.currentStates()
	var changed []string
	for service, value := range values {
		if u.published[service] != value {
			changed = append(changed, service)
		}
	}
	for service := range u.published {
		if _, ok := values[service]; !ok {
			changed = append(changed, service)
		}
	}
	slices.Sort(changed)
	for chunk := range slices.Chunk(changed, maxOps) {
		if err := u.writeChunk(ctx, s, chunk, values); err != nil {
			return err
		}
	}
	p.mu.Lock()
	isFirst := p.published == nil
	p.published = states
	p.mu.Unlock()
	if isFirst || len(changed) > 0 {
		wake(p.cleanUpNow) // it may return a permit
	}
	return nil
}

// currentStates returns, by service, the states of this host and the values of their keys.
func (u *publisher) currentStates() (states map[string]state, values map[string]string) {
	p := u.p
	overrides := p.f.o.Overrides.List()
	states, values = map[string]state{}, map[string]string{}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, service := range p.members.names() {
		var previous *state
		if v, err := decode[state]([]byte(u.published[service])); err == nil {
			previous = &v
		}
		states[service] = p.members.stateOf(service, overrides, p.f.o.Groups, previous, p.now())
		values[service] = encode(states[service])
	}
	return states, values
}

// writeChunk writes the values of at most maxOps services in one transaction. It deletes the key of a service that has
// no value.
func (u *publisher) writeChunk(ctx context.Context, s session, services []string, values map[string]string) error {
	p := u.p
	var ops []clientv3.Op
	for _, service := range services {
		key := p.keys.state(service, p.f.o.Host)
		if value, ok := values[service]; ok {
			ops = append(ops, clientv3.OpPut(key, value))
		} else {
			ops = append(ops, clientv3.OpDelete(key))
		}
	}
	r, err := p.conn().commit(ctx, []clientv3.Cmp{p.isRegistered(s)}, ops, nil)
	if err == nil && !r.Succeeded {
		err = errNotPresent
	}
	if err != nil {
		u.reconciled = time.Time{} // the outcome may be unknown
		return err
	}
	for _, service := range services {
		if value, ok := values[service]; ok {
			u.published[service] = value
		} else {
			delete(u.published, service)
		}
	}
	return nil
}

// membersFile is the file in the state directory with the services of which this host is a member. A restarted daemon
// would have to read the states of all hosts otherwise.
const membersFile = "members"

func (u *publisher) restoreFromFile() {
	content, err := os.ReadFile(filepath.Join(u.p.f.o.StateDir, membersFile))
	var names []string
	if err != nil || json.Unmarshal(content, &names) != nil {
		return
	}
	u.remembered, u.isRemembered = names, true
	u.restore(names)
}

func (u *publisher) restore(names []string) {
	p := u.p
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range names[:min(len(names), maxMembers)] {
		if isService(name) {
			p.members.restore(name, nil, p.now())
		}
	}
}

// restoreFromEtcd finds the services of this host among the state keys of all hosts.
func (u *publisher) restoreFromEtcd(ctx context.Context) error {
	p := u.p
	prefix := string(p.keys) + "state/"
	r, err := p.conn().get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	var names []string
	for _, kv := range r.Kvs {
		service, host, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), prefix), "/")
		if host == p.f.o.Host {
			names = append(names, service)
		}
	}
	u.restore(names)
	u.isRemembered = true
	return nil
}

// remember writes the services with a state key to the file. After a failure it tries again every dirEvery.
func (u *publisher) remember() {
	names, now := slices.Sorted(maps.Keys(u.published)), u.p.now()
	isSame := slices.Equal(names, u.remembered) && u.isRemembered && u.rememberErr == nil
	if isSame || u.rememberErr != nil && now.Before(u.rememberAt) {
		return
	}
	path := filepath.Join(u.p.f.o.StateDir, membersFile)
	content, _ := json.Marshal(names) // strings cannot fail
	err := os.WriteFile(path+".new", content, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	switch {
	case err == nil && u.rememberErr != nil:
		u.p.f.o.Log.Info("the services of this host are remembered again", "file", path)
	case err != nil && u.rememberErr == nil:
		u.p.f.o.Log.Warn("the services of this host cannot be remembered; mend state_dir", "file", path, "error", err.Error())
	}
	u.remembered, u.rememberErr, u.rememberAt = names, err, now.Add(dirEvery)
}

// overridden returns the services, of those given, that an override takes out.
func (m *members) overridden(services []string, overrides []spool.Entry) []string {
	var list []string
	for _, s := range services {
		if _, isOut := m.override(s, overrides); isOut {
			list = append(list, s)
		}
	}
	return list
}
