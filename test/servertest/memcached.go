package servertest

import (
	"fmt"
	"testing"
)

// Memcached starts a memcached server.
func Memcached(t testing.TB) *Server {
	t.Helper()
	return Start(t, Spec{
		Binary: "memcached", Package: "memcached",
		Args: func(port uint16, _ string) ([]string, error) {
			return []string{"-l", Host, "-p", fmt.Sprint(port), "-U", "0", "-u", unprivileged, "-m", "8", "-t", "1"}, nil
		},
	})
}
