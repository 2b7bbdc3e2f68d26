package servertest

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// Memcached starts a memcached server. options are added to its command line.
func Memcached(t testing.TB, options ...string) *Server {
	t.Helper()
	return startMemcached(t, func(string) ([]string, error) { return options, nil }, nil)
}

// MemcachedTLS starts a memcached server that speaks only TLS.
func MemcachedTLS(t testing.TB, certificate tls.Certificate, options ...string) *Server {
	t.Helper()
	return startMemcached(t, func(dir string) ([]string, error) {
		cert, key, err := writeCertificate(dir, certificate)
		return append([]string{"-Z", "-o", "ssl_chain_cert=" + cert + ",ssl_key=" + key}, options...), err
	}, nil)
}

// MemcachedLogin starts a memcached server with a password file, of lines user:password.
func MemcachedLogin(t testing.TB, passwords string) *Server {
	t.Helper()
	return startMemcached(t, func(dir string) ([]string, error) {
		file := filepath.Join(dir, "passwords")
		return []string{"-Y", file}, os.WriteFile(file, []byte(passwords), 0o644)
	}, nil)
}

// MemcachedUnix starts a memcached server that listens on the Unix socket sock in Dir alone.
func MemcachedUnix(t testing.TB) *Server {
	t.Helper()
	return startMemcached(t, func(dir string) ([]string, error) { return []string{"-s", filepath.Join(dir, "sock")}, nil }, func(s *Server) error {
		conn, err := net.Dial("unix", filepath.Join(s.Dir, "sock"))
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func startMemcached(t testing.TB, options func(dir string) ([]string, error), ready func(*Server) error) *Server {
	t.Helper()
	return Start(t, Spec{
		Binary: "memcached", Package: "memcached",
		Args: func(port uint16, dir string) ([]string, error) {
			more, err := options(dir)
			return append([]string{"-l", Host, "-p", fmt.Sprint(port), "-U", "0", "-u", unprivileged, "-m", "8", "-t", "1"}, more...), err
		},
		Ready: ready,
	})
}
