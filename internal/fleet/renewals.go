package fleet

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// renewals is one stream of keep-alives. The library's KeepAlive does not say when a renewal was sent, which bounds how
// long the lease lives; its KeepAliveOnce makes a stream for each.
type renewals struct {
	stream  pb.Lease_LeaseKeepAliveClient
	answers chan *pb.LeaseKeepAliveResponse // closed when the stream has ended
	err     error                           // why, after answers is closed
}

// newRenewals opens the stream, which ends with ctx.
func newRenewals(ctx context.Context, client *clientv3.Client) (*renewals, error) {
	stream, err := pb.NewLeaseClient(client.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return nil, err
	}
	r := &renewals{stream: stream, answers: make(chan *pb.LeaseKeepAliveResponse)}
	go func() {
		defer close(r.answers)
		for {
			answer, err := stream.Recv()
			if err != nil {
				r.err = rpctypes.Error(err)
				return
			}
			select {
			case r.answers <- answer:
			case <-ctx.Done():
				r.err = ctx.Err()
				return
			}
		}
	}()
	return r, nil
}

// renew renews lease. alive is false when etcd does not know it any more. After an error the stream is unusable.
func (r *renewals) renew(ctx context.Context, lease clientv3.LeaseID, limit time.Duration) (alive bool, err error) {
	if err := r.stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(lease)}); err != nil {
		return false, rpctypes.Error(err)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case answer, open := <-r.answers:
		if !open {
			return false, r.err
		}
		return answer.TTL > 0 && answer.ID == int64(lease), nil
	case <-timer.C:
		return false, context.DeadlineExceeded
	case <-ctx.Done():
		return false, ctx.Err()
	}
}
