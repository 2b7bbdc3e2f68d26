package check_test

import (
	"crypto/md5"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hacheck/internal/check"
	"hacheck/test/servertest"
)

// TestDigestConnections logs in to a real Apache. Both requests use one connection, unless the server closes it.
func TestDigestConnections(t *testing.T) {
	for name, c := range map[string]struct {
		config      string
		connections int
	}{
		"kept open":           {"KeepAlive On", 1},
		"closed after each":   {"KeepAlive Off", 2},
		"a longer error page": {"ErrorDocument 401 \"" + strings.Repeat("no", 3000) + "\"", 1},
	} {
		t.Run(name, func(t *testing.T) {
			hash := md5.Sum([]byte("operator:status pages:s3cret"))
			s := servertest.ApacheDigest(t, fmt.Sprintf("operator:status pages:%x", hash), c.config)
			file := filepath.Join(s.Dir, "requests")
			requests := func() []string {
				text, _ := os.ReadFile(file)
				return strings.Fields(strings.TrimSpace(string(text)))
			}
			for password, code := range map[string]int{"s3cret": 200, "wr0ng": 503} {
				before := len(requests())
				r := httpCheck(t, check.Defaults{}, "http://"+s.Addr()+"/index.html", map[string]any{"digest_auth": []any{"operator", password}}).
					Check(t.Context(), check.Target{})
				if r.Code != code || strings.Contains(string(r.Body), password) {
					t.Errorf("%s: %d %s", password, r.Code, r.Body)
				}
				eventually(t, "two requests in the log", func() bool { return len(requests()) >= before+4 })
				all := requests()[before:]
				ports := []string{all[0], all[2]}
				if got := len(slices.Compact(ports)); got != c.connections || len(all) != 4 {
					t.Errorf("%s: %d connections in %q, want %d", password, got, all, c.connections)
				}
			}
		})
	}
}
