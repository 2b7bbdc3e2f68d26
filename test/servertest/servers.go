package servertest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Redis starts a Redis server without persistence. options are added to its command line ("--requirepass", "x").
func Redis(t testing.TB, options ...string) *Server {
	t.Helper()
	return Start(t, Spec{
		Binary: "redis-server", Package: "redis-server",
		Args: func(port uint16, dir string) ([]string, error) {
			return append([]string{"--port", fmt.Sprint(port), "--bind", Host, "--dir", dir, "--save", "", "--daemonize", "no"}, options...), nil
		},
	})
}

// Sentinel starts a Redis Sentinel that watches master under the name "main". config is added to its configuration.
func Sentinel(t testing.TB, master *Server, config string) *Server {
	t.Helper()
	return Start(t, Spec{
		Binary: "redis-sentinel", Package: "redis-sentinel",
		Args: func(port uint16, dir string) ([]string, error) {
			file := filepath.Join(dir, "sentinel.conf") // Sentinel needs a file, which it rewrites
			text := fmt.Sprintf("port %d\nbind %s\ndir %s\nsentinel monitor main %s %d 1\n%s\n", port, Host, dir, Host, master.Port, config)
			return []string{file}, os.WriteFile(file, []byte(text), 0o600)
		},
	})
}

// MariaDB starts a MariaDB server after executing the statements of sql, one per line. On its Unix socket Dir/sock root
// needs no password, see [Server.SQL].
func MariaDB(t testing.TB, sql string, options ...string) *Server {
	t.Helper()
	install, client := Find(t, "mariadb-install-db", "mariadb-server"), Find(t, "mariadb", "mariadb-client")
	var asRoot []string
	if os.Geteuid() == 0 {
		asRoot = []string{"--user=root"} // without this option mariadbd refuses to run as root
	}
	return Start(t, Spec{
		Binary: "mariadbd", Package: "mariadb-server",
		Args: func(port uint16, dir string) ([]string, error) {
			data, script := filepath.Join(dir, "data"), filepath.Join(dir, "init.sql")
			if err := installMariaDB(install, dir, asRoot); err != nil {
				return nil, err
			}
			args := append([]string{
				"--no-defaults", "--datadir=" + data, "--socket=" + filepath.Join(dir, "sock"), "--bind-address=" + Host,
				fmt.Sprintf("--port=%d", port), "--pid-file=" + filepath.Join(dir, "pid"), "--init-file=" + script,
				"--skip-name-resolve", "--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M", "--innodb-flush-log-at-trx-commit=0",
			}, asRoot...)
			return append(args, options...), os.WriteFile(script, []byte(sql), 0o600)
		},
		// It logs in over the socket. The server would count a connection without a login as aborted, possibly not before
		// a test reads that counter.
		Ready: func(s *Server) error {
			_, err := s.sql(client, "SELECT 1")
			return err
		},
	})
}

// installMariaDB makes the system tables of a MariaDB server in dir/data.
func installMariaDB(install, dir string, asRoot []string) error {
	cmd := exec.Command(install, append([]string{ //nolint:gosec // found by name
		"--no-defaults", "--datadir=" + filepath.Join(dir, "data"), "--auth-root-authentication-method=normal", "--skip-test-db",
	}, asRoot...)...)
	cmd.Env = environment(dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
	}
	return nil
}

// SQL executes a statement as root of MariaDB and returns its rows, columns separated by tabs.
func (s *Server) SQL(t testing.TB, statement string) string {
	t.Helper()
	rows, err := s.sql(Find(t, "mariadb", "mariadb-client"), statement)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func (s *Server) sql(client, statement string) (string, error) {
	//nolint:gosec // a statement of a test
	cmd := exec.Command(client, "--no-defaults", "--socket="+filepath.Join(s.Dir, "sock"), "--user=root", "--skip-column-names", "--batch", "--execute="+statement)
	cmd.Env = environment(s.Dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", statement, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// Exim starts an exim4 that greets with banner, of one or more lines, and accepts no mail.
func Exim(t testing.TB, banner string) *Server {
	t.Helper()
	return Start(t, Spec{
		Binary: "exim4", Package: "exim4-daemon-light",
		Args: func(port uint16, dir string) ([]string, error) {
			file := filepath.Join(dir, "exim.conf")
			text := fmt.Sprintf(`primary_hostname = mail.example
spool_directory = %[1]s
log_file_path = %[1]s/%%slog
pid_file_path = %[1]s/pid
daemon_smtp_ports = %[2]d
local_interfaces = %[3]s
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts =
smtp_banner = %[4]s
`, dir, port, Host, strings.ReplaceAll(banner, "\n", `\n`))
			// -bdf: in the foreground. Exim reads the file again after it has given up root, and refuses one
			// that others may write.
			return []string{"-C", file, "-bdf"}, os.WriteFile(file, []byte(text), 0o644)
		},
	})
}

// Nginx starts an nginx with one server block that listens on the port. server is the content of the block, listen the
// parameters after the address in its listen line ("ssl"). PORT in server stands for the port.
func Nginx(t testing.TB, listen, server string) *Server {
	t.Helper()
	return Start(t, Spec{
		Binary: "nginx", Package: "nginx",
		Args: func(port uint16, dir string) ([]string, error) {
			file := filepath.Join(dir, "nginx.conf")
			text := fmt.Sprintf(`daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen %[2]s %[3]s;
		%[4]s
	}
}
`, dir, net.JoinHostPort(Host, fmt.Sprint(port)), listen, strings.ReplaceAll(server, "PORT", fmt.Sprint(port)))
			return []string{"-c", file, "-e", "stderr"}, os.WriteFile(file, []byte(text), 0o600)
		},
	})
}

// Tinyproxy starts a forward proxy that requires a user name and a password, unless user is "". It forwards to any host
// and port of this machine, also by CONNECT.
func Tinyproxy(t testing.TB, user, password string) *Server {
	t.Helper()
	return Start(t, Spec{
		Binary: "tinyproxy", Package: "tinyproxy",
		Args: func(port uint16, dir string) ([]string, error) {
			file := filepath.Join(dir, "tinyproxy.conf")
			text := fmt.Sprintf("Port %d\nListen %s\nTimeout 30\nMaxClients 20\nAllow 127.0.0.0/8\n", port, Host)
			if user != "" {
				text += "BasicAuth " + user + " " + password + "\n"
			}
			return []string{"-d", "-c", file}, os.WriteFile(file, []byte(text), 0o600)
		},
	})
}
