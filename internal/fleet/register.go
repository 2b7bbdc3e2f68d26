package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// revokeLimit bounds how long the end of the daemon waits for etcd.
const revokeLimit = time.Second

// nameTakenError says that another instance of the daemon has the name of this host.
type nameTakenError struct {
	host  string
	other presence
	lease bool // it has the instance id of this daemon: the state directory was copied
}

func (e *nameTakenError) Error() string {
	why := "give this host another name (fleet: host), or stop the other daemon; this one takes the name when the other lease ends"
	if e.lease {
		why = "both have the same instance id: the state directory was copied; remove the file instance in state_dir on one of them and restart it"
	}
	return fmt.Sprintf("another daemon has the name %s: instance %s, boot %s, hacheck %s, started %s; %s",
		e.host, orNone(e.other.Instance), orNone(e.other.Boot), orNone(e.other.Version), e.other.Started.UTC().Format(time.RFC3339), why)
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// errRegisterAgain says that the present key has changed during a registration.
var errRegisterAgain = errors.New("the present key has changed; registering again")

func (c *conn) presentKey() string { return c.o.Prefix + "present/" + c.o.Host }

// readPresent reads the present key of this host.
func (c *conn) readPresent(ctx context.Context, client *clientv3.Client) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := client.Get(ctx, c.presentKey())
	if err != nil {
		return nil, err
	}
	return r, c.cluster.check(r.Header)
}

// serve registers this host and renews its lease until the connection fails. The error says why.
func (c *conn) serve(ctx context.Context, client *clientv3.Client) error {
	renewals, err := newRenewals(ctx, client)
	if err != nil {
		return err
	}
	present := client.Watch(clientv3.WithRequireLeader(ctx), c.presentKey())
	tick := time.NewTicker(c.o.Lease / confirmEvery)
	defer tick.Stop()
	again := time.NewTimer(0)
	defer again.Stop()
	backoff := minBackoff
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
			err := c.register(ctx, client, renewals)
			if err == nil {
				backoff = minBackoff
				continue
			}
			if !c.mayRegisterLater(err) {
				return err
			}
			again.Reset(backoff/2 + rand.N(backoff/2))
			backoff = min(2*backoff, c.o.Lease/confirmEvery, maxBackoff)
			continue
		case r, open := <-present:
			if !open || r.Err() != nil {
				return errors.Join(errors.New("the watch on the present key has ended"), r.Err())
			}
			if !c.hasChanged(r.Events) {
				continue
			}
		case <-c.verify:
			if c.hasExpired(client) {
				return rpctypes.ErrInvalidAuthToken
			}
		case <-tick.C:
		}
		if err := c.renewLease(ctx, client, renewals); err != nil {
			return err
		}
		if c.lostSession() {
			again.Reset(rand.N(minBackoff))
		}
	}
}

func (c *conn) hasExpired(client *clientv3.Client) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.expired == client
}

func (c *conn) lostSession() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session.lease == 0
}

// mayRegisterLater reports whether err is about this registration and not about the connection. It records such an
// error.
func (c *conn) mayRegisterLater(err error) bool {
	var taken *nameTakenError
	switch {
	case errors.As(err, &taken), errors.Is(err, errRegisterAgain):
	case errors.Is(err, rpctypes.ErrNoSpace), errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrTooManyRequests):
		c.errors.Add(1)
	default:
		return false
	}
	c.mu.Lock()
	before := c.refused
	c.refused = taken != nil || before && errors.Is(err, errRegisterAgain)
	first := c.problem == nil || before != c.refused
	c.setProblem(explain(err))
	c.mu.Unlock()
	if first {
		c.onSession()
	}
	return true
}

// hasChanged reports whether one of the events is not a registration of this session.
func (c *conn) hasChanged(events []*clientv3.Event) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range events {
		if e.Type != clientv3.EventTypePut || clientv3.LeaseID(e.Kv.Lease) != c.lease {
			c.session = session{}
			c.broadcast()
			return true
		}
	}
	return false
}

// renewLease renews the lease, if there is one, or reads: either confirms the connection.
func (c *conn) renewLease(ctx context.Context, client *clientv3.Client, renewals *renewals) error {
	c.mu.Lock()
	lease := c.lease
	c.mu.Unlock()
	if lease == 0 {
		_, err := c.readPresent(ctx, client)
		if err == nil {
			c.mu.Lock()
			c.answered = time.Now()
			c.mu.Unlock()
		}
		return err
	}
	sent := bootTime()
	alive, err := renewals.renew(ctx, lease, min(keepAlive, c.o.Lease/confirmLimit))
	if err != nil {
		return err
	}
	if !alive {
		c.mu.Lock()
		c.lease, c.session = 0, session{}
		c.broadcast()
		c.mu.Unlock()
		return nil
	}
	c.confirm(sent)
	return nil
}

// register makes the present key with a lease, or takes it over from an earlier process of the same instance.
func (c *conn) register(ctx context.Context, client *clientv3.Client, renewals *renewals) error {
	if err := c.renewLease(ctx, client, renewals); err != nil {
		return err
	}
	c.mu.Lock()
	lease, before := c.lease, c.wasRegistered
	c.mu.Unlock()
	r, err := c.readPresent(ctx, client)
	if err != nil {
		return err
	}
	var old *mvccpb.KeyValue
	if len(r.Kvs) > 0 {
		old = r.Kvs[0]
		if clientv3.LeaseID(old.Lease) == lease && lease != 0 {
			c.registered(session{lease, old.CreateRevision})
			return nil
		}
		if err := c.mayTakeOver(old, before); err != nil {
			return err
		}
	} else if before && lease != 0 {
		c.onLoss("the key " + c.presentKey() + " was deleted")
	}
	if lease == 0 {
		if lease, err = c.grant(ctx, client); err != nil {
			return err
		}
	}
	created, err := c.putPresent(ctx, client, lease, old)
	if err != nil {
		return err
	}
	c.registered(session{lease, created})
	if old != nil && old.Lease != 0 { // ends the queue entries of the earlier process
		ctx, cancel := context.WithTimeout(ctx, revokeLimit)
		defer cancel()
		_, _ = client.Revoke(ctx, clientv3.LeaseID(old.Lease)) // it may have ended
	}
	return nil
}

// mayTakeOver returns an error if the present key belongs to another daemon. An earlier process of the same instance
// cannot run any more, because the state directory is locked. But if this process has registered before, a key of the
// same instance with another lease belongs to a copy of the state directory.
func (c *conn) mayTakeOver(kv *mvccpb.KeyValue, registeredBefore bool) error {
	var other presence
	if len(kv.Value) > maxValue || json.Unmarshal(kv.Value, &other) != nil || other.Instance != c.identity.Instance {
		return &nameTakenError{host: c.o.Host, other: other}
	}
	sameProcess := other.Boot == c.identity.Boot && other.Started.Equal(c.started)
	if registeredBefore && !sameProcess {
		return &nameTakenError{host: c.o.Host, other: other, lease: true}
	}
	return nil
}

// grant returns a new lease, which is kept over connections.
func (c *conn) grant(ctx context.Context, client *clientv3.Client) (clientv3.LeaseID, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	sent := bootTime()
	r, err := client.Grant(ctx, int64((c.o.Lease+time.Second-1)/time.Second))
	if err != nil {
		return 0, err
	}
	if err := c.cluster.check(r.ResponseHeader); err != nil {
		return 0, err
	}
	c.mu.Lock()
	c.lease = r.ID
	c.mu.Unlock()
	c.confirm(sent)
	return r.ID, nil
}

// putPresent writes the present key if it still is old, and returns its create revision.
func (c *conn) putPresent(ctx context.Context, client *clientv3.Client, lease clientv3.LeaseID, old *mvccpb.KeyValue) (int64, error) {
	value, err := json.Marshal(presence{
		V: version, Instance: c.identity.Instance, Boot: c.identity.Boot, Started: c.started, Version: c.o.Version, Groups: c.o.Groups,
	})
	if err != nil {
		return 0, err
	}
	var mod int64
	if old != nil {
		mod = old.ModRevision
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	key := c.presentKey()
	r, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", mod)).
		Then(clientv3.OpPut(key, string(value), clientv3.WithLease(lease))).Commit()
	if err == nil {
		err = c.cluster.check(r.Header)
	}
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		c.mu.Lock()
		c.lease = 0
		c.mu.Unlock()
		return 0, errRegisterAgain
	case err != nil:
		return 0, err
	case !r.Succeeded:
		return 0, errRegisterAgain
	case old != nil:
		return old.CreateRevision, nil
	}
	return r.Header.Revision, nil
}

// registered publishes s.
func (c *conn) registered(s session) {
	c.mu.Lock()
	if c.problem != nil {
		c.since = time.Now()
	}
	news := c.isProblemLogged || !c.wasRegistered
	c.session, c.wasRegistered, c.refused, c.problem, c.isProblemLogged = s, true, false, nil, false
	c.broadcast()
	c.mu.Unlock()
	if news {
		c.o.Log.Info("fleet: registered in etcd", slog.String("host", c.o.Host))
	}
	c.onSession()
}

// revoke gives the lease back at the end of the daemon: the host is absent at once.
func (c *conn) revoke(client *clientv3.Client) {
	c.mu.Lock()
	lease := c.lease
	c.lease, c.session = 0, session{}
	c.mu.Unlock()
	if lease == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), revokeLimit)
	defer cancel()
	_, _ = client.Revoke(ctx, lease) // else it ends by itself
}
