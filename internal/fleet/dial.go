package fleet

import (
	"context"
	"net"
	"slices"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// dial returns a client of one endpoint. With a password it logs in, once: the client then forgets the password, because
// the library would log in again for each stream, which costs etcd 50 ms of CPU each. It sets accepted when a TCP
// connection is open.
func dial(ctx context.Context, endpoint string, credentials Credentials, accepted *atomic.Bool) (*clientv3.Client, error) {
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
		DialOptions:          append(failFast(), grpc.WithContextDialer(tcpDialer(accepted))),
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

// tcpDialer returns a function that opens TCP connections, without the proxy of the environment, and sets accepted when
// one is open. Each address has dialTimeout, because a network that drops packets would block an attempt for callTimeout.
// The resolution of a name has the time of ctx: a resolver whose first server is down needs seconds.
func tcpDialer(accepted *atomic.Bool) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		ips, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			return nil, err
		}
		dialer := net.Dialer{Timeout: dialTimeout}
		for _, ip := range ips {
			var tcp net.Conn
			if tcp, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(ip, port)); err == nil {
				accepted.Store(true)
				return tcp, nil
			}
		}
		return nil, err
	}
}
