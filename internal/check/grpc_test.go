package check_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"hacheck/internal/check"
	"hacheck/test/checktest"
)

// grpcServer starts a server of google.golang.org/grpc. It calls register before it serves.
func grpcServer(t testing.TB, register func(*grpc.Server), options ...grpc.ServerOption) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(options...)
	register(s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// failingHealth is a health service that answers with an error.
type failingHealth struct {
	grpc_health_v1.UnimplementedHealthServer
}

func (failingHealth) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return nil, status.Error(codes.Unavailable, "the disk is full: 100 %\nreally")
}

func TestGRPC(t *testing.T) {
	a := newAuthority(t)
	state := health.NewServer()
	state.SetServingStatus("shop.Cart", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	state.SetServingStatus("shop.Till", grpc_health_v1.HealthCheckResponse_SERVING)
	state.SetServingStatus("shop.Odd", 77)
	healthy := func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, state) }
	plain := grpcServer(t, healthy)
	secret := issue(t, loopback(), a)
	secure := grpcServer(t, healthy, grpc.Creds(credentials.NewServerTLSFromCert(&secret)))
	mutual := grpcServer(t, healthy, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{secret}, ClientCAs: a.pool(), ClientAuth: tls.RequireAndVerifyClientCert,
	})))
	cert, key := a.writeClientCertificate(t, "hacheck")
	none := grpcServer(t, func(*grpc.Server) {})
	failing := grpcServer(t, func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, failingHealth{}) })
	noHTTP2 := tlsServer(t, secret).Port
	trusting := check.Defaults{Options: check.Options{TLSRoots: a.pool()}}
	for name, c := range map[string]struct {
		port     uint16
		defaults check.Defaults
		options  map[string]any
		code     int
		reason   check.Reason
		want     string
	}{
		"the server":       {plain, trusting, nil, 200, check.ReasonAnswered, "SERVING, said in 0."},
		"a service":        {plain, trusting, map[string]any{"service": "shop.Till"}, 200, check.ReasonAnswered, "SERVING, said in 0."},
		"not serving":      {plain, trusting, map[string]any{"service": "shop.Cart"}, 503, check.ReasonFailed, "AT says that it is NOT_SERVING"},
		"an odd status":    {plain, trusting, map[string]any{"service": "shop.Odd"}, 503, check.ReasonFailed, "AT says that it is 77"},
		"unknown service":  {plain, trusting, map[string]any{"service": "shop.No"}, 503, check.ReasonFailed, `AT does not know the service "shop.No"`},
		"no health":        {none, trusting, nil, 503, check.ReasonFailed, "AT has no health service (grpc.health.v1.Health)"},
		"an error":         {failing, trusting, nil, 503, check.ReasonFailed, "AT answers with gRPC status 14: the disk is full: 100 % really"},
		"TLS":              {secure, trusting, map[string]any{"use_tls": true}, 200, check.ReasonAnswered, "SERVING, said in 0."},
		"TLS, not trusted": {secure, check.Defaults{}, map[string]any{"use_tls": true}, 503, check.ReasonFailed, "The certificate of AT was not accepted: x509: "},
		"TLS, any":         {secure, check.Defaults{}, map[string]any{"use_tls": true, "disable_tls_verification": true}, 200, check.ReasonAnswered, "SERVING, said in 0."},
		"mutual TLS":       {mutual, trusting, map[string]any{"use_tls": true, "cert_file": cert, "key_file": key}, 200, check.ReasonAnswered, "SERVING, said in 0."},
		"no certificate":   {mutual, trusting, map[string]any{"use_tls": true}, 503, check.ReasonProtocol, "Connection failed (waiting for an answer from AT): tls: certificate required"},
		"a CA file":        {secure, check.Defaults{}, map[string]any{"use_tls": true, "ca_file": writePEM(t, "CERTIFICATE", a.cert.Raw)}, 200, check.ReasonAnswered, "SERVING, said in 0."},
		"another name":     {secure, trusting, map[string]any{"use_tls": true, "server_name": "other.example"}, 503, check.ReasonFailed, "The certificate of AT was not accepted: x509: "},
		"plain to TLS":     {secure, trusting, nil, 503, check.ReasonProtocol, ""},
		"TLS to plain":     {plain, trusting, map[string]any{"use_tls": true}, 503, check.ReasonProtocol, ""},
		"no HTTP/2":        {noHTTP2, trusting, map[string]any{"use_tls": true}, 503, check.ReasonProtocol, "AT does not speak HTTP/2 over TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			options := map[string]any{"host": "127.0.0.1", "port": int(c.port)}
			for name, v := range c.options {
				options[name] = v
			}
			configured := build(t, c.defaults, "grpc", options)
			at := strings.TrimPrefix(configured.Name, "grpc:")
			want := []string{"tcp:" + at, "grpc:" + at}
			if options["use_tls"] != nil {
				want = []string{"tcp:" + at, "tls:" + at, "grpc:" + at}
			}
			if diff := cmp.Diff(want, stepNames(configured)); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			r := configured.Check(t.Context(), check.Target{})
			if r.Code != c.code || r.Reason != c.reason || !strings.HasPrefix(string(r.Body), strings.ReplaceAll(c.want, "AT", at)) {
				t.Errorf("%d %s %s (%v)", r.Code, r.Reason, r.Body, r.Err)
			}
			if all := configured.Check(t.Context(), check.Target{}); all.Code != c.code {
				t.Errorf("all steps: %d %s", all.Code, all.Body)
			}
		})
	}
	// A URL has no options, or those configured for the service.
	cart := build(t, check.Defaults{}, "grpc", map[string]any{"host": "192.0.2.1", "port": 1, "service": "shop.Cart"})
	if r := askService(t, "grpc", plain); r.Code != 200 {
		t.Errorf("by URL: %d %s", r.Code, r.Body)
	}
	if r := askService(t, "grpc", plain, cart); r.Code != 503 || !strings.Contains(string(r.Body), "NOT_SERVING") {
		t.Errorf("by URL, configured: %d %s", r.Code, r.Body)
	}
}

// TestGRPCAuthority: a server or proxy that answers by name gets server_name, as from other clients, else the address.
func TestGRPCAuthority(t *testing.T) {
	names := make(chan string, 1)
	certificate := issue(t, loopback(), nil)
	port := grpcServer(t, func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, health.NewServer()) },
		grpc.Creds(credentials.NewServerTLSFromCert(&certificate)),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			names <- strings.Join(md[":authority"], ",")
			return handler(ctx, req)
		}))
	for name, want := range map[string]string{"shop.example": "shop.example", "": fmt.Sprint("127.0.0.1:", port)} {
		c := buildAt(t, check.Defaults{}, "grpc", "127.0.0.1", port, "use_tls", true, "disable_tls_verification", true, "server_name", name)
		if r := c.Check(t.Context(), check.Target{}); r.Code != 200 {
			t.Errorf("%d %s", r.Code, r.Body)
		} else if got := <-names; got != want {
			t.Errorf("server_name %q: authority %q, want %q", name, got, want)
		}
	}
}

// grpcFrames returns a server that reads a request and sends the given frames.
func grpcFrames(write func(f *http2.Framer)) func(net.Conn) {
	return func(conn net.Conn) {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(conn, preface); err != nil || string(preface) != http2.ClientPreface {
			return
		}
		f := http2.NewFramer(conn, conn)
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if data, ok := frame.(*http2.DataFrame); ok && data.StreamEnded() {
				write(f)
				return
			}
		}
	}
}

// grpcHead encodes a block of header fields.
func grpcHead(end bool, fields ...string) http2.HeadersFrameParam {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return http2.HeadersFrameParam{StreamID: 1, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: end}
}

var healthyGRPC = grpcFrames(func(f *http2.Framer) {
	_ = f.WriteSettings()
	_ = f.WriteHeaders(grpcHead(false, ":status", "200", "content-type", "application/grpc"))
	_ = f.WriteData(1, false, []byte{0, 0, 0, 0, 2, 8, 1})
	_ = f.WriteHeaders(grpcHead(true, "grpc-status", "0"))
})

// TestGRPCBrokenServers checks servers that speak HTTP/2 but violate gRPC.
func TestGRPCBrokenServers(t *testing.T) {
	head := grpcHead(false, ":status", "200")
	for name, c := range map[string]struct {
		write  func(f *http2.Framer)
		reason check.Reason
		want   string
	}{
		"no settings": {func(f *http2.Framer) { _ = f.WritePing(false, [8]byte{}) }, check.ReasonProtocol, "it begins with a frame PING"},
		"404":         {func(f *http2.Framer) { _ = f.WriteHeaders(grpcHead(true, ":status", "404")) }, check.ReasonProtocol, `with the HTTP status "404"`},
		"no status":   {func(f *http2.Framer) { _ = f.WriteHeaders(grpcHead(true, ":status", "200")) }, check.ReasonProtocol, "has no gRPC status"},
		"status before the end": {func(f *http2.Framer) {
			_ = f.WriteHeaders(grpcHead(false, ":status", "200", "grpc-status", "0"))
			_ = f.WriteData(1, true, []byte{0, 0, 0, 0, 2, 8, 1})
		}, check.ReasonProtocol, "has no gRPC status"},
		"no protobuf": {func(f *http2.Framer) {
			_ = f.WriteHeaders(head)
			_ = f.WriteData(1, false, []byte{0, 0, 0, 0, 2, 0x0b, 1})
			_ = f.WriteHeaders(grpcHead(true, "grpc-status", "0"))
		}, check.ReasonProtocol, "is not a HealthCheckResponse: it is no message in protocol buffers"},
		"no message":     {func(f *http2.Framer) { _ = f.WriteHeaders(grpcHead(true, ":status", "200", "grpc-status", "0")) }, check.ReasonProtocol, "is not a HealthCheckResponse"},
		"refused":        {func(f *http2.Framer) { _ = f.WriteRSTStream(1, http2.ErrCodeRefusedStream) }, check.ReasonFailed, "refuses the request: REFUSED_STREAM"},
		"goes away":      {func(f *http2.Framer) { _ = f.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, nil) }, check.ReasonFailed, "closes the connection: ENHANCE_YOUR_CALM"},
		"a long message": {func(f *http2.Framer) { _ = f.WriteHeaders(head); _ = f.WriteData(1, false, make([]byte, 8000)) }, check.ReasonProtocol, "has a message of more than 4096 bytes"},
		"long headers": {func(f *http2.Framer) {
			_ = f.WriteHeaders(grpcHead(true, ":status", "200", "x", strings.Repeat("a", 9000), "y", strings.Repeat("a", 9000)))
		}, check.ReasonProtocol, "has headers of more than 16384 bytes"},
		"another stream": {func(f *http2.Framer) { _ = f.WriteHeaders(head); _ = f.WriteData(2, true, nil) }, check.ReasonProtocol, "a stream that was not opened"},
		"settings for ever": {func(f *http2.Framer) {
			for f.WriteSettings(make([]http2.Setting, 1000)...) == nil { // until the client closes the connection
			}
		}, check.ReasonProtocol, "has more than 262144 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, grpcFrames(func(f *http2.Framer) {
				if name != "no settings" {
					_ = f.WriteSettings()
				}
				c.write(f)
			}))
			options := map[string]any{"host": s.Host, "port": int(s.Port), "timeout": 20}
			r := build(t, check.Defaults{}, "grpc", options).Check(t.Context(), check.Target{})
			if r.Code != 503 || r.Reason != c.reason || !strings.Contains(string(r.Body), c.want) {
				t.Errorf("%d %s %s (%v)", r.Code, r.Reason, r.Body, r.Err)
			}
		})
	}
}

// FuzzGRPCAnswer: whatever a server sends, the check neither panics nor waits.
func FuzzGRPCAnswer(f *testing.F) {
	var b bytes.Buffer
	framer := http2.NewFramer(&b, nil)
	_ = framer.WriteSettings()
	_ = framer.WriteHeaders(grpcHead(false, ":status", "200", "content-type", "application/grpc"))
	_ = framer.WriteData(1, false, []byte{0, 0, 0, 0, 2, 8, 2})
	_ = framer.WriteHeaders(grpcHead(true, "grpc-status", "0"))
	f.Add(b.Bytes())
	fuzzConfigured(f, "grpc", nil)
}

// secureGRPC returns the TLS configuration of a gRPC server for the suite.
func secureGRPC(certificate tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}}
}
