package fleet

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"hacheck/test/servertest"
)

// busyEtcd is a gRPC server that answers every read as etcd does while more than 5,000 requests wait in it.
type busyEtcd struct {
	pb.UnimplementedKVServer
	pb.UnimplementedMaintenanceServer
	reads atomic.Int64
}

func (b *busyEtcd) Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
	b.reads.Add(1)
	return nil, rpctypes.ErrGRPCRequestTooManyRequests
}

func (b *busyEtcd) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{Header: &pb.ResponseHeader{ClusterId: 1}}, nil
}

// TestTooManyRequests: a host says that etcd has too many requests, keeps what it has, and asks less and less often.
func TestTooManyRequests(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	h := newHost(t, etcd, "a", startWait(0))
	waitRegistered(t, h)
	h.set(webDown("all", "", "jane"))
	h.close()

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	busy, server := &busyEtcd{}, grpc.NewServer()
	pb.RegisterKVServer(server, busy)
	pb.RegisterMaintenanceServer(server, busy)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	t.Cleanup(func() {
		server.Stop()
		<-ended
	})
	endpoints := h.o.Endpoints
	h.o.Endpoints = []string{"http://" + ln.Addr().String()}
	h.o.StateDir = t.TempDir()
	writeCopyFor(t, h.o.StateDir)
	h.open()
	waitFor(t, "the status says why", func() bool { return strings.Contains(h.Status().Error, "etcd has too many requests") })
	sleep(t.Context(), 5*time.Second)
	if n := busy.reads.Load(); n < 3 || n > 10 { // 100 ms, 200 ms and so on between two reads
		t.Errorf("%d reads in 5s", n)
	}
	h.close()
	h.o.Endpoints = endpoints
	h.o.StateDir = t.TempDir()
	h.open()
	waitRegistered(t, h)
}
