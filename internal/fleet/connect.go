package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
)

// probeLimit is how long a new connection waits for the cluster ids of the other endpoints. One that is silent for so
// long is left out.
const probeLimit = 500 * time.Millisecond

// errCut is why a connection ends whose TCP connection has ended.
var errCut = errors.New("the connection to etcd was cut")

// run connects to one endpoint after another until ctx ends, and then gives the lease back.
func (c *conn) run(ctx context.Context) {
	endpoints := append([]string(nil), c.o.Endpoints...)
	rand.Shuffle(len(endpoints), func(i, j int) { endpoints[i], endpoints[j] = endpoints[j], endpoints[i] })
	backoff, failures := minBackoff, 0
	for i := 0; ctx.Err() == nil; i++ {
		began := bootTime()
		established, err := c.connection(ctx, endpoints[i%len(endpoints)])
		if ctx.Err() != nil {
			return
		}
		c.disconnected(err)
		if established {
			backoff, failures = minBackoff, 0
		} else {
			failures++
		}
		limit := maxBackoff
		if errors.Is(err, rpctypes.ErrTooManyRequests) {
			limit = busyBackoff
		}
		switch {
		case isTokenExpired(err) && bootTime()-began > time.Second:
			continue // a new login is all that is missing
		case failures%len(endpoints) != 0:
			pause(ctx, minBackoff)
		default:
			pause(ctx, backoff)
			backoff = min(2*backoff, limit)
		}
	}
}

// pause waits for a random time between a half and the whole of d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// connection makes a client of one endpoint and serves it until it fails. established reports whether etcd has answered.
func (c *conn) connection(parent context.Context, endpoint string) (established bool, err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	credentials, err := c.o.Credentials()
	if err != nil {
		return false, err
	}
	defer func() { err = noteExpiry(err, credentials.TLS) }()
	client, err := dial(ctx, endpoint, credentials)
	if err != nil {
		return false, err
	}
	defer func() { _ = client.Close() }()

	if err := c.checkEndpoints(ctx, client, endpoint); err != nil {
		return false, err
	}
	if _, err := c.readPresent(ctx, client); err != nil { // a linearizable read: the member has a leader and may answer
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

// dial returns a client of one endpoint. With a password it logs in, once: the client then forgets the password, because
// the library would log in again for each stream, which costs etcd 50 ms of CPU each.
func dial(ctx context.Context, endpoint string, credentials Credentials) (*clientv3.Client, error) {
	client, err := clientv3.New(clientv3.Config{
		Context:              ctx,
		Endpoints:            []string{endpoint},
		DialTimeout:          callTimeout,
		DialKeepAliveTime:    keepAlive,
		DialKeepAliveTimeout: callTimeout,
		PermitWithoutStream:  true,
		TLS:                  credentials.TLS,
		Username:             credentials.Username,
		Password:             credentials.Password,
		Logger:               zap.NewNop(),
		MaxUnaryRetries:      1,
		DialOptions:          failFast(),
	})
	if err != nil {
		return nil, err
	}
	client.Password = ""
	return client, nil
}

// failFast makes every call fail when the endpoint cannot be reached, with the reason. The library would wait until the
// end of the call's time, and another endpoint would be tried that much later.
func failFast() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(ctx, method, req, reply, cc, append(slices.Clip(opts), grpc.WaitForReady(false))...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(ctx, desc, cc, method, append(slices.Clip(opts), grpc.WaitForReady(false))...)
		}),
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
	c.client, c.renewing = client, false
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
	c.renewing = isTokenExpired(err)
	if !c.renewing { // else a new login follows at once
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
	c.problem, c.troubled = err, true
}

// confirm records that etcd has renewed the lease in a call that began at sent.
func (c *conn) confirm(sent time.Duration) {
	c.mu.Lock()
	c.confirmed, c.answered = sent, time.Now()
	c.mu.Unlock()
}
