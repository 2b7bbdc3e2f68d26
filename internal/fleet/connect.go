package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"
)

// probeLimit is how long a new connection waits for the cluster ids of the other endpoints. One that is silent for so
// long is left out.
const probeLimit = 500 * time.Millisecond

// probeEvery is how often the endpoints are compared. Between that the cluster id in every answer of the endpoint in use
// is enough.
const probeEvery = time.Minute

// errCut is why a connection ends whose TCP connection has ended.
var errCut = errors.New("the connection to etcd was cut")

// run connects to one endpoint after another until ctx ends, and then gives the lease back.
func (c *conn) run(ctx context.Context) {
	endpoints := append([]string(nil), c.o.Endpoints...)
	rand.Shuffle(len(endpoints), func(i, j int) { endpoints[i], endpoints[j] = endpoints[j], endpoints[i] })
	backoff, failures := minBackoff, 0
	limit := awayBackoff // of backoff, in this round over the endpoints
	for i := 0; ctx.Err() == nil; i++ {
		began := bootTime()
		var accepted atomic.Bool
		established, err := c.connection(ctx, endpoints[i%len(endpoints)], &accepted)
		if ctx.Err() != nil {
			return
		}
		c.disconnected(err)
		if established {
			backoff, failures = minBackoff, 0
		} else {
			failures++
		}
		limit = max(limit, backoffLimit(err, accepted.Load()))
		switch {
		case isTokenExpired(err) && bootTime()-began > time.Second:
			continue // a new login is all that is missing
		case failures%len(endpoints) != 0:
			sleepJittered(ctx, minBackoff)
		default:
			backoff = min(backoff, limit)
			sleepJittered(ctx, backoff)
			backoff, limit = 2*backoff, awayBackoff
		}
	}
}

// backoffLimit returns the longest pause after a connection that has ended with err. An endpoint that accepted no TCP
// connection, or that did not answer in time, costs etcd next to nothing, so it is tried again soon.
func backoffLimit(err error, accepted bool) time.Duration {
	switch {
	case errors.Is(err, rpctypes.ErrTooManyRequests):
		return busyBackoff
	case accepted && !isLate(err):
		return maxBackoff
	default:
		return awayBackoff
	}
}

// sleepJittered waits for a random time between a half and the whole of d, or until ctx ends.
func sleepJittered(ctx context.Context, d time.Duration) { sleep(ctx, d/2+rand.N(d/2+1)) }

// retryDelay returns after what time to try again that has failed a number of times: longer and longer, and not all hosts
// in the same moment.
func retryDelay(failures int) time.Duration {
	d := min(minBackoff<<min(failures, 10), busyBackoff)
	return d/2 + rand.N(d/2+1)
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// connection makes a client of one endpoint and serves it until it fails. established reports whether etcd has answered.
// It sets accepted when the endpoint, or another one that it probes, has accepted a TCP connection.
func (c *conn) connection(parent context.Context, endpoint string, accepted *atomic.Bool) (established bool, err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	credentials, err := c.o.Credentials()
	if err != nil {
		return false, err
	}
	defer func() { err = noteExpiry(err, credentials.TLS) }()
	client, err := dial(ctx, endpoint, credentials, accepted)
	if err != nil {
		return false, err
	}
	defer func() { _ = client.Close() }()

	if err := c.accept(ctx, client, endpoint); err != nil {
		return false, err
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		watchConnection(ctx, cancel, client)
	}()
	defer func() {
		cancel(nil)
		<-watched
	}()
	c.connected(client)
	defer func() {
		if parent.Err() != nil {
			c.revoke(client)
		}
	}()
	err = c.serve(ctx, client)
	if cause := context.Cause(ctx); cause != nil && parent.Err() == nil {
		err = cause
	}
	return true, err
}

// accept returns nil if the member that client is connected to belongs to the cluster of this host, has a leader and
// answers, and if no other endpoint belongs to another cluster. If the cluster id is known, it compares the
// endpoints last and not each time: a host that connects again because etcd is slow opens one connection, not one more to
// each member.
func (c *conn) accept(ctx context.Context, client *clientv3.Client, endpoint string) error {
	isKnown := c.cluster.id.Load() != 0
	if isKnown {
		if _, err := c.readPresent(ctx, client); err != nil { // a linearizable read, whose answer has the cluster id
			return err
		}
	}
	if !isKnown || c.probedAt.IsZero() || time.Since(c.probedAt) >= probeEvery {
		if err := c.checkEndpoints(ctx, client, endpoint); err != nil {
			return err
		}
		c.probedAt = time.Now()
	}
	if isKnown {
		return nil
	}
	_, err := c.readPresent(ctx, client)
	return err
}

// watchConnection cancels ctx with errCut when the TCP connection of client has ended.
func watchConnection(ctx context.Context, cancel context.CancelCauseFunc, client *clientv3.Client) {
	tcp := client.ActiveConnection()
	for {
		state := tcp.GetState()
		if state != connectivity.Ready {
			cancel(errCut)
			return
		}
		if !tcp.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// checkEndpoints returns an error if the endpoints that answer belong to different clusters, or to another one than
// before.
func (c *conn) checkEndpoints(ctx context.Context, client *clientv3.Client, endpoint string) error {
	type answer struct {
		endpoint string
		id       uint64
		err      error
	}
	answers := make(chan answer, len(c.o.Endpoints)) // id 0: none
	for _, e := range c.o.Endpoints {
		go func() {
			limit := probeLimit
			if e == endpoint {
				limit = callTimeout
			}
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			r, err := client.Status(ctx, e)
			if err != nil || r.Header == nil {
				answers <- answer{endpoint: e, err: err}
				return
			}
			answers <- answer{endpoint: e, id: r.Header.ClusterId}
		}()
	}
	var first answer
	for range c.o.Endpoints {
		a := <-answers
		switch {
		case a.endpoint == endpoint && a.err != nil && !isDefinite(a.err):
			return a.err
		case a.id == 0:
		case first.id == 0:
			first = a
		case a.id != first.id:
			return fmt.Errorf("%s has the cluster id %x and %s has %x: the endpoints belong to two clusters, and nothing is "+
				"taken from either; correct the list of endpoints", first.endpoint, first.id, a.endpoint, a.id)
		}
	}
	if want := c.cluster.id.Load(); want != 0 && first.id != 0 && first.id != want {
		return &errOtherCluster{want, first.id}
	}
	return nil
}

// connected publishes client, which etcd has answered.
func (c *conn) connected(client *clientv3.Client) {
	c.mu.Lock()
	c.client, c.isRenewingLogin = client, false
	c.answered = time.Now()
	if c.problem != nil {
		c.problem, c.since = nil, time.Now()
	}
	c.broadcast()
	c.mu.Unlock()
}

// disconnected withdraws the client. The lease is kept: it may still be alive at the next connection.
func (c *conn) disconnected(err error) {
	if err == nil {
		err = errCut
	}
	c.mu.Lock()
	c.client, c.session, c.expired = nil, session{}, nil
	c.isRenewingLogin = isTokenExpired(err)
	if !c.isRenewingLogin { // else a new login follows at once
		c.errors.Add(1)
		c.setProblem(explain(err))
	}
	c.broadcast()
	c.mu.Unlock()
	c.onSession()
}

// setProblem records and logs why there is no client or no session. The caller holds c.mu.
func (c *conn) setProblem(err error) {
	if c.problem == nil || c.problem.Error() != err.Error() {
		c.o.Log.Warn("fleet: no registration in etcd", slog.String("error", err.Error()))
	}
	if c.problem == nil {
		c.since = time.Now()
	}
	c.problem, c.isProblemLogged = err, true
}

// confirm records that etcd has renewed the lease in a call that began at sent.
func (c *conn) confirm(sent time.Duration) {
	c.mu.Lock()
	c.confirmed, c.answered = sent, time.Now()
	c.mu.Unlock()
}
