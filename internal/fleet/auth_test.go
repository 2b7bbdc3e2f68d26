package fleet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hacheck/test/servertest"
)

// withPassword enables authentication on etcd for a user hacheck who may touch the prefix only.
func withPassword(t *testing.T, etcd *servertest.EtcdServer) {
	t.Helper()
	etcd.Ctl("user", "add", "root:rootpw")
	etcd.Ctl("user", "grant-role", "root", "root")
	etcd.Ctl("role", "add", "hacheck")
	etcd.Ctl("role", "grant-permission", "hacheck", "--prefix=true", "readwrite", "/hacheck/")
	etcd.Ctl("user", "add", "hacheck:secret")
	etcd.Ctl("user", "grant-role", "hacheck", "hacheck")
	etcd.Ctl("auth", "enable")
}

func password(user, password string) func(*Options) {
	return func(o *Options) {
		o.Credentials = func() (Credentials, error) { return Credentials{Username: user, Password: password}, nil }
	}
}

// TestTokensExpire: with tokens of 2 s, a host sets and obeys overrides after it has been idle and after a cut.
func TestTokensExpire(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t, servertest.EtcdArgs("--auth-token-ttl", "2"))
	withPassword(t, etcd)
	between := newRelay(t, etcd.Addr())
	login := password("hacheck", "secret")
	a := newHost(t, etcd, "a", login, func(o *Options) { o.Endpoints = []string{"http://" + between.addr()} })
	b := newHost(t, etcd, "b", login)
	waitRegistered(t, a, b)
	for i := range 2 {
		idle(t, 4*time.Second)
		a.set(webDown("all", fmt.Sprintf("idle %d", i), "jane"))
		if e := b.index.has("all", "web"); e == nil || e.Reason != fmt.Sprintf("idle %d", i) {
			t.Fatalf("idle %d: b has %+v", i, e)
		}
		idle(t, 3*time.Second)
		between.cut()
		reason := fmt.Sprintf("cut %d", i)
		b.set(webDown("group:none", "", "jane"))
		waitFor(t, "a is connected", func() bool { return a.Status().Connected && a.Status().Error == "" })
		b.set(webDown("all", reason, "jane"))
		if e := a.index.has("all", "web"); e == nil || e.Reason != reason {
			t.Fatalf("cut %d: a has %+v", i, e)
		}
	}
}

// TestWrongPassword: the status says so, without the password.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	withPassword(t, etcd)
	h := newHost(t, etcd, "a", password("hacheck", "wrong-secret"), func(o *Options) { writeCopyFor(t, o.StateDir); o.StartWait = 100 * time.Millisecond })
	waitFor(t, "the status says why", func() bool { return strings.Contains(h.Status().Error, "password") })
	if strings.Contains(h.Status().Error, "wrong-secret") || h.log.count("wrong-secret") != 0 {
		t.Error("the password is shown")
	}
}

// TestDeniedPrefix: a role that may not touch the prefix is an error that names the documentation.
func TestDeniedPrefix(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	withPassword(t, etcd)
	h := newHost(t, etcd, "a", password("hacheck", "secret"), func(o *Options) {
		o.Prefix = "/elsewhere/"
		o.StartWait = 100 * time.Millisecond
		writeCopyFor(t, o.StateDir)
	})
	waitFor(t, "the status says why", func() bool { return strings.Contains(h.Status().Error, "docs/security.md") })
}

// idle waits for d: the behaviour under test begins after a time without calls.
func idle(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// relay is a TCP relay whose connections a test cuts.
type relay struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	conns []net.Conn
	wg    sync.WaitGroup
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, to: to}
	r.wg.Go(func() { r.accept(l) })
	t.Cleanup(func() {
		r.close()
		r.wg.Wait()
	})
	return r
}

func (r *relay) addr() string { return r.listener.Addr().String() }

func (r *relay) accept(l net.Listener) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := new(net.Dialer).DialContext(context.Background(), "tcp", r.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, in, out)
		r.mu.Unlock()
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			r.wg.Go(func() {
				_, _ = io.Copy(pair[0], pair[1])
				_ = pair[0].Close()
				_ = pair[1].Close()
			})
		}
	}
}

// cut closes all connections.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

// TestClientCertificates: a host logs in with a client certificate. Without one the status says why.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	etcd := servertest.Etcd(t, servertest.EtcdTLS(ca.issue(t), ca.certificate))
	roots := x509.NewCertPool()
	roots.AddCert(ca.certificate)
	config := func(certificates ...tls.Certificate) func(*Options) {
		return func(o *Options) {
			o.Credentials = func() (Credentials, error) {
				return Credentials{TLS: &tls.Config{RootCAs: roots, Certificates: certificates, MinVersion: tls.VersionTLS12}}, nil
			}
		}
	}
	h := newHost(t, etcd, "a", config(ca.issue(t)))
	waitRegistered(t, h)
	h.set(webDown("all", "", "jane"))

	without := newHost(t, etcd, "b", config(), func(o *Options) { writeCopyFor(t, o.StateDir); o.StartWait = 100 * time.Millisecond })
	waitFor(t, "the status says why", func() bool { return strings.Contains(without.Status().Error, "certificate") })
}

// TestRenewedClientCertificate: a host whose client certificate has expired says so. It is back without a restart when
// the certificate is renewed.
func TestRenewedClientCertificate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	etcd := servertest.Etcd(t, servertest.EtcdTLS(ca.issue(t), ca.certificate))
	roots := x509.NewCertPool()
	roots.AddCert(ca.certificate)
	var file atomic.Pointer[tls.Certificate]
	install := func(c tls.Certificate) { file.Store(&c) }
	install(ca.issue(t))
	h := newHost(t, etcd, "a", func(o *Options) {
		o.Credentials = func() (Credentials, error) {
			return Credentials{TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{*file.Load()}, MinVersion: tls.VersionTLS12}}, nil
		}
	})
	waitRegistered(t, h)
	h.set(webDown("all", "", "jane"))

	install(ca.issueUntil(t, time.Now().Add(-time.Minute)))
	etcd.Restart()
	waitFor(t, "the status says that it has expired", func() bool {
		s := h.Status()
		return !s.Connected && strings.Contains(s.Error, "the client certificate (cert_file) has expired at ")
	})
	if h.index.has("all", "web") == nil {
		t.Error("the override has ended")
	}
	install(ca.issue(t))
	waitRegistered(t, h)
	h.lift(webDown("all", "", "jane"))
}

// authority signs certificates for tests.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	made := a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	})
	a.certificate, a.key = made.Leaf, made.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// issue returns a certificate for servers on 127.0.0.1 and for clients.
func (a *authority) issue(t *testing.T) tls.Certificate {
	t.Helper()
	return a.issueUntil(t, time.Now().Add(time.Hour))
}

func (a *authority) issueUntil(t *testing.T, end time.Time) tls.Certificate {
	t.Helper()
	return a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "hacheck"}, NotAfter: end,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

func (a *authority) sign(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
