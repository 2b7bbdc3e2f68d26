package servertest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// galeraProvider is the library of the Debian package galera-4, which mariadb-server needs.
const galeraProvider = "/usr/lib/galera/libgalera_smm.so"

// Galera starts a cluster of two MariaDB nodes, both synced, after executing the statements of sql. On its Unix socket
// Dir/sock root needs no password, see [Server.SQL].
func Galera(t testing.TB, sql string) (first, second *Server) {
	t.Helper()
	Find(t, "mariabackup", "mariadb-backup") // copies the data to the second node
	Find(t, "socat", "socat")
	own, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	first = galeraNode(t, own, "gcomm://", "--wsrep-new-cluster")
	t.Cleanup(func() {
		if log := first.Log(); t.Failed() { // why it has sent no state to the second
			t.Logf("the first node:\n%s", log[max(0, len(log)-8000):])
		}
	})
	for statement := range strings.Lines(sql) {
		if strings.TrimSpace(statement) != "" {
			first.SQL(t, statement)
		}
	}
	return first, galeraNode(t, 0, "gcomm://"+net.JoinHostPort(Host, fmt.Sprint(own)))
}

// galeraNode starts a node that joins a cluster, and waits until it is synced. own is its port for the other nodes, 0 for
// a free one.
func galeraNode(t testing.TB, own uint16, cluster string, options ...string) *Server {
	t.Helper()
	install, client := Find(t, "mariadb-install-db", "mariadb-server"), Find(t, "mariadb", "mariadb-client")
	var asRoot []string
	if os.Geteuid() == 0 {
		asRoot = []string{"--user=root"}
	}
	return Start(t, Spec{
		Binary: "mariadbd", Package: "mariadb-server",
		Args: func(port uint16, dir string) ([]string, error) {
			var ports [3]uint16
			for i := range ports {
				var err error
				if ports[i], err = FreePort(); err != nil {
					return nil, err
				}
			}
			if own != 0 {
				ports[0] = own
			}
			if err := installMariaDB(install, dir, asRoot); err != nil {
				return nil, err
			}
			config := filepath.Join(dir, "my.cnf")
			// The transfer of the state says on stderr, and not to syslog, why it fails.
			if err := os.WriteFile(config, []byte("[sst]\nsst-syslog=-1\n"), 0o600); err != nil {
				return nil, err
			}
			provider := fmt.Sprintf("gmcast.listen_addr=tcp://%s:%d;ist.recv_addr=%s:%d;base_port=%d;gcache.size=8M", Host, ports[0], Host, ports[1], ports[0])
			args := append([]string{
				"--defaults-file=" + config, "--datadir=" + filepath.Join(dir, "data"), "--socket=" + filepath.Join(dir, "sock"), "--bind-address=" + Host,
				fmt.Sprintf("--port=%d", port), "--pid-file=" + filepath.Join(dir, "pid"), "--binlog-format=ROW",
				"--innodb-autoinc-lock-mode=2", // and no further options of a usual server, some of which mariabackup does not know
				"--wsrep-on=1", "--wsrep-provider=" + galeraProvider, "--wsrep-provider-options=" + provider, "--wsrep-cluster-address=" + cluster,
				"--wsrep-node-address=" + Host, "--wsrep-sst-method=mariabackup", "--wsrep-sst-auth=root:",
				fmt.Sprintf("--wsrep-sst-receive-address=%s:%d", Host, ports[2]),
			}, asRoot...)
			return append(args, options...), nil
		},
		Ready: func(s *Server) error {
			state, err := s.sql(client, "SHOW GLOBAL STATUS LIKE 'wsrep_local_state_comment'")
			if err == nil && !strings.HasSuffix(state, "Synced") {
				err = errors.New("not synced: " + state)
			}
			return err
		},
	})
}
