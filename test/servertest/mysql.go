package servertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// MySQL starts a MySQL server after executing the statements of sql, one per line. On its Unix socket Dir/sock root needs
// no password, see [Server.SQL]. The environment variable MYSQLD is the path of mysqld of MySQL 8.4 or later (tried: 9.7).
// Debian's stable releases have MariaDB alone, whose mysqld is no MySQL.
func MySQL(t testing.TB, sql string, options ...string) *Server {
	t.Helper()
	path := os.Getenv("MYSQLD")
	if !filepath.IsAbs(path) {
		t.Fatalf("MYSQLD=%s: give the absolute path of a mysqld of MySQL 8.4 or later", path)
	}
	client := Find(t, "mariadb", "mariadb-client")
	var asRoot []string
	if os.Geteuid() == 0 {
		asRoot = []string{"--user=root"} // without this option mysqld refuses to run as root
	}
	return Start(t, Spec{
		Binary: path, Package: "mysql-server",
		Args: func(port uint16, dir string) ([]string, error) {
			data, script := "--datadir="+filepath.Join(dir, "data"), filepath.Join(dir, "init.sql")
			install := exec.Command(path, append([]string{"--no-defaults", "--initialize-insecure", data}, asRoot...)...) //nolint:gosec // of a test
			install.Env = environment(dir)
			if out, err := install.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("mysqld --initialize-insecure: %w\n%s", err, out)
			}
			args := append([]string{
				"--no-defaults", data, "--socket=" + filepath.Join(dir, "sock"), "--bind-address=" + Host, fmt.Sprintf("--port=%d", port),
				"--mysqlx=OFF", "--secure-file-priv=NULL", "--pid-file=" + filepath.Join(dir, "pid"), "--init-file=" + script, "--skip-name-resolve",
				"--innodb-buffer-pool-size=16M", "--innodb-redo-log-capacity=8M", "--innodb-flush-log-at-trx-commit=0",
				"--report-host=" + Host, fmt.Sprintf("--report-port=%d", port),
			}, asRoot...)
			return append(args, options...), os.WriteFile(script, []byte(sql), 0o600)
		},
		Ready: func(s *Server) error {
			_, err := s.sql(client, "SELECT 1")
			return err
		},
	})
}
