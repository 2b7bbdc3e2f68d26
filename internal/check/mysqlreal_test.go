//go:build mysql

// These tests need a real MySQL, which Debian's stable releases do not have: make test-mysql MYSQLD=/path/to/mysqld.

package check_test

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

const mysqlOperator = "CREATE USER operator@'%' IDENTIFIED BY 's3cret';\n"

// TestMySQLUsers logs in with each method of authentication, with and without TLS, and with faults of the user.
func TestMySQLUsers(t *testing.T) {
	files := writeClientCertificate(t, issue(t, loopback(), nil))
	ca := newAuthority(t)
	caFile := writeClientCertificate(t, tls.Certificate{Certificate: [][]byte{ca.cert.Raw}, PrivateKey: ca.key})[1].(string)
	s := servertest.MySQL(t, mysqlOperator+`
CREATE USER sha256@'%' IDENTIFIED WITH sha256_password BY 's3cret';
CREATE USER encrypted@'%' IDENTIFIED BY 's3cret' REQUIRE SSL;
CREATE USER certified@'%' IDENTIFIED BY 's3cret' REQUIRE X509;
CREATE USER expired@'%' IDENTIFIED BY 's3cret' PASSWORD EXPIRE;
CREATE USER locked@'%' IDENTIFIED BY 's3cret' ACCOUNT LOCK;
`, "--ssl-cert="+files[1].(string), "--ssl-key="+files[3].(string), "--ssl-ca="+caFile)
	failed := check.ReasonFailed
	as := func(user string, more ...any) []any {
		return append([]any{"username", user, "password", "s3cret"}, more...)
	}
	const in = "Logged in and quit in "
	cases := map[string]loginCase{
		"prefer":                 {as("operator"), 200, 0, in},
		"without TLS, first":     {as("operator", "use_tls", false), 200, 0, in},
		"sha256":                 {as("sha256"), 200, 0, in},
		"sha256 without TLS":     {as("sha256", "use_tls", false), 200, 0, in},
		"required":               {as("encrypted", "use_tls", true), 200, 0, in},
		"required by the user":   {as("encrypted", "use_tls", false), 500, failed, "MySQL error 1045: "},
		"not verified":           {as("encrypted", "ca_file", caFile), 503, failed, "The certificate of " + s.Addr() + " was not accepted: "},
		"no client certificate":  {as("certified"), 500, failed, "MySQL error 1045: Access denied for user 'certified'@'127.0.0.1' (using password: YES); if the user has REQUIRE X509, set cert_file and key_file"},
		"wrong password":         {[]any{"username", "operator", "password", "wr0ng"}, 500, failed, "MySQL error 1045: Access denied for user 'operator'@'127.0.0.1'"},
		"expired":                {as("expired"), 500, failed, "MySQL error 1862: Your password has expired. To log in you must change it using a client that supports expired passwords; the password of expired has expired: "},
		"locked":                 {as("locked"), 500, failed, "MySQL error 3118: "},
		"no such database":       {as("operator", "database", "none"), 500, failed, "MySQL error 10"},
		"query":                  {as("operator", "query", "SELECT 1+1", "expect", "2"), 200, 0, in},
		"query of another value": {as("operator", "query", "SELECT NULL", "expect", "2"), 503, failed, "the query returns NULL; 2 wanted"},
	}
	// The first login without TLS sends the password encrypted for the server's key; the next ones use the server's cache.
	for range 2 {
		tryLogins(t, check.Defaults{}, "mysql", s, cases)
	}
	a := newMySQLAsker(t, time.Now())
	a.want(s.Port, "primary", 200, "primary; logged in and quit in ")
	a.want(s.Port, "galera", 503, "no Galera node, the server runs without wsrep; galera wanted")
	a.want(s.Port, "replica", 500, "; GRANT REPLICATION CLIENT ON *.* TO the user of the check")
	s.SQL(t, "GRANT REPLICATION CLIENT ON *.* TO operator@'%'")
	a.want(s.Port, "replica", 503, "primary: it has no replication channel; replica wanted")
	for _, variable := range []string{"read_only", "super_read_only", "offline_mode"} {
		s.SQL(t, "SET GLOBAL "+variable+"=ON")
		if r := a.ask(s.Port, "primary"); r.Code == 200 {
			t.Errorf("%s: %d %s", variable, r.Code, r.Body)
		}
		s.SQL(t, "SET GLOBAL "+variable+"=OFF")
	}
}

// TestMySQLCountsNothing: 500 checks leave no aborted client and no line in the log.
func TestMySQLCountsNothing(t *testing.T) {
	s := servertest.MySQL(t, mysqlOperator, "--max-connect-errors=3", "--log-error-verbosity=3")
	counters := func() string { return s.SQL(t, "SHOW GLOBAL STATUS LIKE 'Aborted%'") }
	before := counters()
	for _, useTLS := range []any{true, false} {
		one := buildAt(t, check.Defaults{}, "mysql", servertest.Host, s.Port, "username", "operator", "password", "s3cret", "use_tls", useTLS)
		checktest.RunQuiet(t, s.Addr(), s.Log, 500, func(host string, port uint16) check.Result {
			at, err := one.WithAddress(host, port)
			if err != nil {
				t.Fatal(err)
			}
			return at.Check(t.Context(), check.Target{})
		})
	}
	eventually(t, "end of all connections but the one that asks", func() bool {
		return strings.HasSuffix(s.SQL(t, "SHOW GLOBAL STATUS LIKE 'Threads_connected'"), "\t1")
	})
	if after := counters(); after != before {
		t.Errorf("healthy checks went from\n%s\nto\n%s", before, after)
	}
}

// TestMySQLReplication asks a replica: in step, behind, broken, and without its source.
func TestMySQLReplication(t *testing.T) {
	const grants = mysqlOperator + "GRANT REPLICATION CLIENT ON *.* TO operator@'%';\n"
	gtid := []string{"--gtid-mode=ON", "--enforce-gtid-consistency=ON"}
	primary := servertest.MySQL(t, grants+"CREATE USER repl@'%' IDENTIFIED BY 'repl';\nGRANT REPLICATION SLAVE ON *.* TO repl@'%';\n", append(gtid, "--server-id=1")...)
	replica := servertest.MySQL(t, grants, append(gtid, "--server-id=2", "--super-read-only=1")...)
	primary.SQL(t, "RESET BINARY LOGS AND GTIDS") // the users, which the replica has too
	replica.SQL(t, "RESET BINARY LOGS AND GTIDS")
	sql := func(s string) { t.Helper(); replica.SQL(t, s) }
	a := newMySQLAsker(t, time.Now())
	sql(fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='repl', SOURCE_PASSWORD='repl', SOURCE_CONNECT_RETRY=1, SOURCE_SSL=1, SOURCE_AUTO_POSITION=1", primary.Port))
	a.want(replica.Port, "replica", 503, "replay has stopped; replica wanted")
	sql("START REPLICA")
	a.wantSoon(replica.Port, "replica?lag=10s", 200, "replica, 0 s behind; logged in and quit in ")
	a.want(replica.Port, "primary", 503, "read_only is ON, super_read_only is ON; primary wanted")
	a.want(replica.Port, "any", 200, "Logged in and quit in ")
	a.wantReplicaStates(primary, replica, "REPLICA", "CHANGE REPLICATION SOURCE TO SOURCE_DELAY")

	// A row that is there already stops the replay.
	sql("SET GLOBAL super_read_only=OFF")
	sql("SET sql_log_bin=0; INSERT INTO test.log VALUES (2)")
	primary.SQL(t, "INSERT INTO test.log VALUES (2)")
	a.wantSoon(replica.Port, "replica", 503, "replay has stopped: ")
	sql("SET sql_log_bin=0; DELETE FROM test.log WHERE at=2")
	sql("START REPLICA")
	a.wantSoon(replica.Port, "replica?lag=1s", 200, "replica, 0 s behind")

	a.wantAlone(primary, replica)
}

// TestMySQLGroupReplication asks the three members of a group while two of them end.
func TestMySQLGroupReplication(t *testing.T) {
	var seeds []string
	for range 3 {
		port, err := servertest.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, fmt.Sprintf("%s:%d", servertest.Host, port))
	}
	const users = mysqlOperator + "CREATE USER repl@'%' IDENTIFIED BY 'repl';\nGRANT REPLICATION SLAVE, BACKUP_ADMIN, CONNECTION_ADMIN ON *.* TO repl@'%';\n"
	a := newMySQLAsker(t, time.Now())
	var members []*servertest.Server
	for i, own := range seeds {
		s := servertest.MySQL(t, users, fmt.Sprintf("--server-id=%d", i+1), "--gtid-mode=ON", "--enforce-gtid-consistency=ON",
			"--plugin-load-add=group_replication.so", "--loose-group-replication-group-name=aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
			"--loose-group-replication-start-on-boot=OFF", "--loose-group-replication-local-address="+own,
			"--loose-group-replication-group-seeds="+strings.Join(seeds, ","), "--loose-group-replication-ip-allowlist=127.0.0.1",
			"--loose-group-replication-recovery-get-public-key=ON")
		s.SQL(t, "RESET BINARY LOGS AND GTIDS") // the users, which all members have
		a.want(s.Port, "group", 500, "; GRANT SELECT ON performance_schema.replication_group_members TO the user of the check")
		s.SQL(t, "SET sql_log_bin=0; GRANT SELECT ON performance_schema.replication_group_members TO operator@'%'")
		a.want(s.Port, "group", 503, "group member OFFLINE: it is not ONLINE; group wanted")
		if i == 0 {
			s.SQL(t, "SET GLOBAL group_replication_bootstrap_group=ON")
		}
		s.SQL(t, "CHANGE REPLICATION SOURCE TO SOURCE_USER='repl', SOURCE_PASSWORD='repl' FOR CHANNEL 'group_replication_recovery'")
		s.SQL(t, "START GROUP_REPLICATION")
		s.SQL(t, "SET GLOBAL group_replication_bootstrap_group=OFF")
		a.wantSoon(s.Port, "group", 200, "group member ONLINE ")
		members = append(members, s)
	}
	first, second, third := members[0], members[1], members[2]
	a.want(first.Port, "group-primary", 200, "group member ONLINE PRIMARY; logged in")
	a.want(first.Port, "primary", 200, "primary; logged in")
	a.want(second.Port, "group-primary", 503, "group member ONLINE SECONDARY: it is not PRIMARY; group-primary wanted")
	a.want(second.Port, "primary", 503, "super_read_only is ON")
	if r := a.ask(first.Port, "group"); field(r, "role") != "group-primary" || field(r, "members") != int64(3) || field(r, "state") != "ONLINE" {
		t.Errorf("fields: %v", r.Fields)
	}

	// The group elects another primary when the first has left. This one does not run in a group any more.
	first.SQL(t, "STOP GROUP_REPLICATION")
	a.want(first.Port, "group", 503, "group member OFFLINE: it is not ONLINE; group wanted")
	a.want(first.Port, "primary", 503, "super_read_only is ON")
	primary, other := second, third
	if r := a.ask(third.Port, "group-primary"); r.Code == 200 {
		primary, other = third, second
	}
	a.wantSoon(primary.Port, "group-primary", 200, "group member ONLINE PRIMARY")
	a.want(other.Port, "group-primary", 503, "it is not PRIMARY")

	// Half of the group is gone: the member that is left cannot know what the other one does.
	other.Kill()
	a.wantSoon(primary.Port, "group-primary", 503, "1 of 2 members are unreachable; group-primary wanted")
	a.want(primary.Port, "group", 503, "1 of 2 members are unreachable; group wanted")
}
