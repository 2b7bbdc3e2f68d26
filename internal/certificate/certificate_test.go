package certificate_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hacheck/internal/certificate"
	"hacheck/test/servertest"
)

// interval is how often the tests have Watch look at the files.
const interval = 5 * time.Millisecond

// files are the files of a certificate in a directory of the test.
type files struct {
	certificate.Files
	t   *testing.T
	dir string
}

func newFiles(t *testing.T) files {
	dir := t.TempDir()
	f := files{certificate.Files{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}, t, dir}
	cert, key := issue(t, "one")
	f.replace(f.Cert, cert)
	f.replace(f.Key, key)
	return f
}

// issue returns a new certificate and its key in PEM.
func issue(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	certFile, keyFile := servertest.NewAuthority(t).Issue(t, name)
	return readFile(t, certFile), readFile(t, keyFile)
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// replace replaces a file as programs do that write a new one and rename it.
func (f files) replace(path string, content []byte) {
	f.t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		f.t.Fatal(err)
	}
}

// read returns the pair of the files, which must be usable.
func (f files) read() *certificate.Pair {
	f.t.Helper()
	p, err := certificate.Read(f.Files)
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

// watch has a store follow the files. It returns the store and what Watch reports.
func (f files) watch() (*certificate.Store, <-chan error) {
	s, stop, ended, changes := &certificate.Store{}, make(chan struct{}), make(chan struct{}), make(chan error, 100)
	s.Use(f.read())
	go func() {
		defer close(ended)
		s.Watch(stop, interval, func(err error) { changes <- err })
	}()
	f.t.Cleanup(func() {
		close(stop)
		<-ended
	})
	return s, changes
}

// shown returns the certificate that a client of the store gets.
func shown(t *testing.T, s *certificate.Store) *x509.Certificate {
	t.Helper()
	client, server := net.Pipe()
	defer func() { _, _ = client.Close(), server.Close() }()
	go func() {
		c := tls.Server(server, s.Config())
		_ = c.Handshake() // the client's error says what is wrong
		_, _ = io.Copy(io.Discard, c)
	}()
	c := tls.Client(client, &tls.Config{InsecureSkipVerify: true}) //#nosec G402 -- the test compares the certificate
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState().PeerCertificates[0]
}

func next(t *testing.T, changes <-chan error) error {
	t.Helper()
	select {
	case err := <-changes:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("Watch has reported nothing for 10 s")
		return nil
	}
}

// TestWatch: each way in which programs replace the files puts the new certificate in force.
func TestWatch(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(f files, cert, key []byte){
		"renamed": func(f files, cert, key []byte) {
			f.replace(f.Cert, cert)
			f.replace(f.Key, key)
		},
		"the key first": func(f files, cert, key []byte) {
			f.replace(f.Key, key)
			f.replace(f.Cert, cert)
		},
		"written in place": func(f files, cert, key []byte) {
			for path, content := range map[string][]byte{f.Cert: cert, f.Key: key} {
				if err := os.WriteFile(path, content, 0o600); err != nil {
					f.t.Fatal(err)
				}
			}
		},
		"a link to another directory": func(f files, cert, key []byte) { // as Kubernetes and certbot do
			dir := f.t.TempDir()
			f.replace(filepath.Join(dir, "cert.pem"), cert)
			f.replace(filepath.Join(dir, "key.pem"), key)
			for _, path := range []string{f.Cert, f.Key} {
				if err := os.Symlink(filepath.Join(dir, filepath.Base(path)), path+".new"); err != nil {
					f.t.Fatal(err)
				}
				if err := os.Rename(path+".new", path); err != nil {
					f.t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFiles(t)
			s, changes := f.watch()
			if name := shown(t, s).Subject.CommonName; name != "one" {
				t.Fatalf("clients see %q at first", name)
			}
			cert, key := issue(t, "two")
			change(f, cert, key)
			for shown(t, s).Subject.CommonName != "two" { // a change in the middle of the two writes is an error
				_ = next(t, changes)
			}
			if s.Status().Err != nil {
				t.Errorf("afterwards: %v", s.Status().Err)
			}
		})
	}
}

// TestBrokenFiles: files that cannot be used are an error that names them and shows nothing of them, and the certificate
// in force stays. It ends when they can be used again.
func TestBrokenFiles(t *testing.T) {
	t.Parallel()
	_, otherKey := issue(t, "other")
	for name, c := range map[string]struct {
		breakFiles func(f files)
		want       string
	}{
		"key of another certificate": {func(f files) { f.replace(f.Key, otherKey) }, "tls_key_file "},
		"not PEM":                    {func(f files) { f.replace(f.Cert, []byte("secret")) }, "tls_cert_file "},
		"empty":                      {func(f files) { f.replace(f.Key, nil) }, "tls_key_file "},
		"a chain that is cut off": {func(f files) {
			cert := readFile(f.t, f.Cert)
			f.replace(f.Cert, slices.Concat(cert, cert[:len(cert)/2]))
		}, "tls_cert_file: "},
		"too long": {func(f files) { f.replace(f.Cert, make([]byte, 1<<20+1)) }, "larger than 1048576 bytes"},
		"no file": {func(f files) {
			if err := os.Remove(f.Cert); err != nil {
				f.t.Fatal(err)
			}
		}, "no such file"},
		"pipe": {func(f files) {
			if err := syscall.Mkfifo(f.Key+".new", 0o600); err != nil {
				f.t.Fatal(err)
			}
			if err := os.Rename(f.Key+".new", f.Key); err != nil {
				f.t.Fatal(err)
			}
		}, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFiles(t)
			cert, key := readFile(t, f.Cert), readFile(t, f.Key)
			s, changes := f.watch()
			c.breakFiles(f)
			err := next(t, changes)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), f.dir) {
				t.Fatalf("reported %v, want %q with the path", err, c.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows the content: %v", err)
			}
			if s.Status().Err == nil || s.Status().Expires.IsZero() || shown(t, s).Subject.CommonName != "one" {
				t.Errorf("the certificate in force has not stayed: %+v", s.Status())
			}
			if p, err := s.ReadAgain(f.Files); err == nil || p == nil {
				t.Errorf("a reload returned %v, %v; want the certificate in force and the error", p, err)
			}
			f.replace(f.Cert, cert)
			f.replace(f.Key, key)
			for s.Status().Err != nil {
				_ = next(t, changes)
			}
			if len(changes) > 2 {
				t.Errorf("%d more reports of one change", len(changes))
			}
		})
	}
}

// TestExpires: of the certificates in the file, the one that ends first counts.
func TestExpires(t *testing.T) {
	t.Parallel()
	f := newFiles(t)
	leaf := f.read().Expires()
	f.replace(f.Cert, append(readFile(t, f.Cert), readFile(t, servertest.NewAuthority(t).File)...))
	if got := f.read().Expires(); got.After(leaf) {
		t.Errorf("expires %v, after the leaf's %v", got, leaf)
	}
	if left := time.Until(leaf); left < time.Hour || left > 48*time.Hour {
		t.Errorf("the leaf expires in %v", left)
	}
}

// TestPartOfClientCA: authorities of which one is cut off or damaged are an error. Without it, clients of that authority
// would be refused.
func TestPartOfClientCA(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]func(ca string) string{
		"cut off":               func(ca string) string { return ca + ca[:len(ca)/2] },
		"cut off in its header": func(ca string) string { return ca + ca[:15] },
		"cut off, not the last": func(ca string) string { return ca[:len(ca)/2] + "\n" + ca },
		"damaged":               func(ca string) string { return ca + strings.ReplaceAll(ca, "M", "!") },
	} {
		f := newFiles(t)
		f.ClientCA = filepath.Join(f.dir, "ca.pem")
		f.replace(f.ClientCA, []byte(part(string(readFile(t, f.Cert)))))
		if _, err := certificate.Read(f.Files); err == nil || !strings.Contains(err.Error(), "tls_client_ca_file: ") ||
			!strings.Contains(err.Error(), f.ClientCA) {
			t.Errorf("%s: %v, want an error with the file", name, err)
		}
	}
}

// TestClientCA: with authorities for clients, a client without a certificate is refused.
func TestClientCA(t *testing.T) {
	t.Parallel()
	f := newFiles(t)
	f.ClientCA = f.Cert
	s := &certificate.Store{}
	s.Use(f.read())
	client, server := net.Pipe()
	defer func() { _ = client.Close() }()
	refused := make(chan error, 1)
	go func() {
		defer func() { _ = server.Close() }()
		refused <- tls.Server(server, s.Config()).Handshake()
	}()
	_ = tls.Client(client, &tls.Config{InsecureSkipVerify: true}).Handshake() //#nosec G402 -- the server decides here
	_, _ = io.Copy(io.Discard, client)
	if err := <-refused; err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("the server's handshake ended with %v", err)
	}
	f.ClientCA = f.Key
	if _, err := certificate.Read(f.Files); err == nil || !strings.Contains(err.Error(), "tls_client_ca_file") {
		t.Errorf("authorities without a certificate: %v", err)
	}
}
