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
// Unix socket is in Dir. With a certificate it offers TLS. options are further settings ("wal_receiver_timeout=10s").
func Postgres(t testing.TB, sql, hba string, certificate *tls.Certificate, options ...string) *Server {
	t.Helper()
	postgres := findPostgres(t, "postgres")
	initdb := findPostgres(t, "initdb")
	return Start(t, Spec{
		Binary: postgres, Package: "postgresql", User: unprivileged,
		Args: func(port uint16, dir string) ([]string, error) {
			data := filepath.Join(dir, "data")
			args := postgresArgs(port, dir, options)
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
		Ready: saysReady("database system is ready to accept connections"),
	})
}

// PostgresReplica starts a replica of a primary, which it copies and then follows on the port source. That of a relay can
// be frozen. The primary's pg_hba.conf must let the user admin replicate.
func PostgresReplica(t testing.TB, primary *Server, source uint16, options ...string) *Server {
	t.Helper()
	copyData := findPostgres(t, "pg_basebackup")
	return Start(t, Spec{
		Binary: findPostgres(t, "postgres"), Package: "postgresql", User: unprivileged,
		Args: func(port uint16, dir string) ([]string, error) {
			data := filepath.Join(dir, "data")
			if err := runPostgres("", copyData, "-D", data, "-h", Host, "-p", fmt.Sprint(primary.Port), "-U", "admin", "-c", "fast", "--no-sync"); err != nil {
				return nil, err
			}
			from := fmt.Sprintf("primary_conninfo=host=%s port=%d user=admin", Host, source)
			return postgresArgs(port, dir, append([]string{from, "hot_standby=on"}, options...)), os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o644)
		},
		Ready: saysReady("database system is ready to accept read-only connections"),
	})
}

// Psql executes a statement as admin of PostgreSQL over the Unix socket and returns its rows, columns separated by "|".
// The server's pg_hba.conf must let admin in.
func (s *Server) Psql(t testing.TB, statement string) string {
	t.Helper()
	cmd := exec.Command(findPostgres(t, "psql"), "-X", "-h", s.Dir, "-p", fmt.Sprint(s.Port), "-U", "admin", "-d", "postgres", "-Atc", statement) //nolint:gosec // found by name
	cmd.Dir, cmd.Env = os.TempDir(), environment(os.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", statement, err, out)
	}
	return strings.TrimSpace(string(out))
}

// PgBouncer starts a pooler of a PostgreSQL server that lets its users in with a password of their own: userlist has a
// line per user, `"name" "password"`. settings are further lines of its configuration.
func PgBouncer(t testing.TB, behind *Server, userlist, settings string) *Server {
	t.Helper()
	return Start(t, Spec{
		Binary: "pgbouncer", Package: "pgbouncer", User: unprivileged,
		Args: func(port uint16, dir string) ([]string, error) {
			file, users := filepath.Join(dir, "pgbouncer.ini"), filepath.Join(dir, "userlist.txt")
			text := fmt.Sprintf(`[databases]
* = host=%[1]s port=%[2]d
[pgbouncer]
listen_addr = %[1]s
listen_port = %[3]d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %[4]s
%[5]s
`, Host, behind.Port, port, users, settings)
			if err := os.WriteFile(users, []byte(userlist), 0o644); err != nil {
				return nil, err
			}
			return []string{file}, os.WriteFile(file, []byte(text), 0o644)
		},
		Ready: saysReady("process up"),
	})
}

// postgresArgs returns the arguments of a small server with its data in dir.
func postgresArgs(port uint16, dir string, options []string) []string {
	args := []string{"-D", filepath.Join(dir, "data"), "-p", fmt.Sprint(port), "-k", dir}
	for _, option := range append([]string{
		"listen_addresses=" + Host, "fsync=off", "shared_buffers=1MB", "max_connections=20", "dynamic_shared_memory_type=mmap",
	}, options...) {
		args = append(args, "-c", option)
	}
	return args
}

// saysReady returns a Spec.Ready for a server that logs these words when it is ready.
func saysReady(words string) func(s *Server) error {
	return func(s *Server) error {
		if !strings.Contains(s.Log(), words) {
			return errors.New("it does not say that it is ready")
		}
		return acceptsConnections(s)
	}
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
