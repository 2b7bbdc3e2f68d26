package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// isTokenExpired reports whether etcd has refused the token of the client. A new client has a new token.
func isTokenExpired(err error) bool {
	return errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision) ||
		errors.Is(err, rpctypes.ErrUserEmpty)
}

// isDefinite reports whether err says that etcd did not apply the request.
func isDefinite(err error) bool {
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace), errors.Is(err, rpctypes.ErrPermissionDenied),
		errors.Is(err, rpctypes.ErrTooManyRequests),
		errors.Is(err, rpctypes.ErrLeaseNotFound), errors.Is(err, rpctypes.ErrAuthFailed), isTokenExpired(err):
		return true
	}
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.NotFound, codes.OutOfRange:
		return true
	default:
		return false
	}
}

// isLate reports whether etcd has not answered in time, or has no leader.
func isLate(err error) bool {
	switch {
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.DeadlineExceeded,
		errors.Is(err, rpctypes.ErrNoLeader), errors.Is(err, rpctypes.ErrTimeout):
		return true
	default:
		return false
	}
}

// explain returns err in the words of etcd's own message, with what to do where that is known.
func explain(err error) error {
	if expired, ok := errors.AsType[*expiredCertificateError](err); ok {
		return expired
	}
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		return errors.New("etcd is full (NOSPACE); compact and defragment it, then disarm the alarm (etcdctl alarm disarm)")
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return errors.New("etcd denies access below the prefix; docs/security.md has the role that hacheck needs")
	case errors.Is(err, rpctypes.ErrAuthFailed):
		return errors.New("etcd refuses the user name or the password; see username and password_file")
	case errors.Is(err, rpctypes.ErrTooManyRequests):
		return errors.New("etcd has too many requests")
	case isTokenExpired(err):
		return errors.New("the login at etcd has expired")
	case errors.Is(err, rpctypes.ErrNoLeader):
		return errors.New("etcd has no leader")
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.DeadlineExceeded:
		return fmt.Errorf("etcd did not answer within %v", callTimeout)
	case status.Code(err) == codes.Canceled:
		return errors.New("the connection to etcd was closed")
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
		return errors.New(s.Message())
	}
	return err
}

// expiredCertificateError is the error of a connection with a client certificate that has expired. etcd's own error is
// "bad certificate", or that the connection is broken.
type expiredCertificateError struct {
	at  time.Time
	err error
}

func (e *expiredCertificateError) Error() string {
	return fmt.Sprintf("the client certificate (cert_file) has expired at %s; renew it: %v", e.at.UTC().Format(time.RFC3339), explain(e.err))
}

func (e *expiredCertificateError) Unwrap() error { return e.err }

// noteExpiry adds to err that the client certificate of c has expired, if it has.
func noteExpiry(err error, c *tls.Config) error {
	if err == nil || c == nil || len(c.Certificates) == 0 || c.Certificates[0].Leaf == nil {
		return err
	}
	if at := c.Certificates[0].Leaf.NotAfter; time.Now().After(at) {
		return &expiredCertificateError{at, err}
	}
	return err
}

// failedCall is the error of a call that was sent to etcd. It reads as explain says and unwraps to the library's error.
type failedCall struct{ err error }

func (e *failedCall) Error() string { return explain(e.err).Error() }
func (e *failedCall) Unwrap() error { return e.err }

// clusterID remembers the cluster that every response has to come from.
type clusterID struct {
	id atomic.Uint64 // 0: not known yet
}

// errOtherCluster is the error of a response from another cluster than before.
type errOtherCluster struct{ want, got uint64 }

func (e *errOtherCluster) Error() string {
	return fmt.Sprintf("etcd answers with the cluster id %x, this host knows %x; nothing is taken from either. If the cluster was "+
		"replaced on purpose, stop hacheck and remove overrides.* in state_dir on every host", e.got, e.want)
}

func (c *clusterID) check(h *pb.ResponseHeader) error {
	if h == nil {
		return errors.New("etcd's answer has no header")
	}
	if c.id.CompareAndSwap(0, h.ClusterId) {
		return nil
	}
	if want := c.id.Load(); want != h.ClusterId {
		return &errOtherCluster{want, h.ClusterId}
	}
	return nil
}
