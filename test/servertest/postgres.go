package servertest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// unprivileged is a user of every system that owns no files. Some servers refuse to run as root.
const unprivileged = "nobody"

// Postgres starts a PostgreSQL server after executing the statements of sql, one per line. hba is its pg_hba.conf. Its
// Unix socket is in Dir. With a certificate it offers TLS.
func Postgres(t testing.TB, sql, hba string, certificate *tls.Certificate) *Server {
	t.Helper()
	postgres := findPostgres(t, "postgres")
	initdb := findPostgres(t, "initdb")
	return Start(t, Spec{
		Binary: postgres, Package: "postgresql", User: unprivileged,
		Args: func(port uint16, dir string) ([]string, error) {
			data := filepath.Join(dir, "data")
			args := []string{
				"-D", data, "-p", fmt.Sprint(port), "-k", dir, "-c", "listen_addresses=" + Host,
				"-c", "fsync=off", "-c", "shared_buffers=1MB", "-c", "max_connections=20", "-c", "dynamic_shared_memory_type=mmap",
			}
			if certificate != nil {
				cert, key, err := writeCertificate(dir, *certificate)
				if err != nil {
					return nil, err
				}
				args = append(args, "-c", "ssl=on", "-c", "ssl_cert_file="+cert, "-c", "ssl_key_file="+key)
			}
			if err := runPostgres("", initdb, "-D", data, "-U", "admin", "--auth=trust", "--no-sync", "--no-locale", "--encoding=UTF8"); err != nil {
				return nil, err
			}
			if err := runPostgres(sql, postgres, "--single", "-F", "-D", data, "postgres"); err != nil {
				return nil, err
			}
			return args, os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(hba), 0o644)
		},
		Ready: func(s *Server) error {
			if !strings.Contains(s.Log(), "database system is ready to accept connections") {
				return errors.New("it does not say that it is ready")
			}
			return acceptsConnections(s)
		},
	})
}

// runPostgres runs a program of PostgreSQL and waits for its end.
func runPostgres(stdin string, argv ...string) error {
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:gosec // found by name
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Dir, cmd.Env = os.TempDir(), environment(os.TempDir())
	as, err := credential(unprivileged)
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	out, err := cmd.CombinedOutput()
	// In single-user mode a failed statement is reported only on the output.
	if err != nil || strings.Contains(string(out), "ERROR:") {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(argv[0]), err, out)
	}
	return nil
}

// findPostgres returns the path of a program of PostgreSQL, of the newest version that Debian has installed.
func findPostgres(t testing.TB, name string) string {
	t.Helper()
	paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(paths) == 0 {
		return Find(t, name, "postgresql")
	}
	return slices.Max(paths)
}
