package check_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// mysqlAsker asks servers for roles as a URL names them, with the login operator and s3cret.
type mysqlAsker struct {
	t       *testing.T
	options check.Options
}

func newMySQLAsker(t *testing.T, start time.Time) mysqlAsker {
	return mysqlAsker{t, check.Options{Sources: check.NewSources(start), MySQLUsername: "operator", MySQLPassword: "s3cret"}}
}

func (a mysqlAsker) ask(port uint16, role string) check.Result {
	a.t.Helper()
	return ask(a.t, a.options, check.Target{Protocol: "mysql", Service: "db", Host: servertest.Host, Port: port, URI: "/" + role})
}

// want asks once.
func (a mysqlAsker) want(port uint16, role string, code int, text string) {
	a.t.Helper()
	if r := a.ask(port, role); r.Code != code || !strings.Contains(string(r.Body), text) {
		a.t.Errorf("%s: %d %s %q, want %d %q", role, r.Code, r.Reason, r.Body, code, text)
	}
}

// wantSoon asks until the answer is as wanted.
func (a mysqlAsker) wantSoon(port uint16, role string, code int, text string) {
	a.t.Helper()
	deadline, again := time.NewTimer(60*time.Second), time.NewTicker(100*time.Millisecond)
	defer deadline.Stop()
	defer again.Stop()
	for {
		r := a.ask(port, role)
		if r.Code == code && strings.Contains(string(r.Body), text) {
			return
		}
		select {
		case <-deadline.C:
			a.t.Fatalf("%s: still %d %q, want %d %q", role, r.Code, r.Body, code, text)
		case <-again.C:
		}
	}
}

// wantReplicaStates asks a replica that is in step while its threads are stopped, while it is behind, and in step again. word
// is what its statements call a replica. delay is the statement that sets a delay, without the seconds.
func (a mysqlAsker) wantReplicaStates(primary, replica *servertest.Server, word, delay string) {
	a.t.Helper()
	sql := func(s string) { a.t.Helper(); replica.SQL(a.t, s) }
	primary.SQL(a.t, "CREATE DATABASE test")
	primary.SQL(a.t, "CREATE TABLE test.log (at INT PRIMARY KEY)")
	sql("STOP " + word + " SQL_THREAD")
	a.want(replica.Port, "replica", 503, "replay has stopped; replica wanted")
	sql("START " + word + " SQL_THREAD")
	sql("STOP " + word + " IO_THREAD")
	a.want(replica.Port, "replica", 503, "it receives nothing (Slave_IO_Running is No)")
	sql("STOP " + word)
	sql(delay + "=100")
	sql("START " + word)
	primary.SQL(a.t, "INSERT INTO test.log VALUES (1)")
	a.wantSoon(replica.Port, "replica?lag=1s", 503, "s behind: at most 1s wanted; replica wanted")
	a.want(replica.Port, "replica?lag=1h", 200, "s behind; logged in")
	sql("STOP " + word)
	sql(delay + "=0")
	sql("START " + word)
	a.wantSoon(replica.Port, "replica?lag=1s", 200, "replica, 0 s behind")
}

// wantAlone kills the primary and asks the replica: it is healthy for as long as alone says.
func (a mysqlAsker) wantAlone(primary, replica *servertest.Server) {
	a.t.Helper()
	primary.Kill()
	a.wantSoon(replica.Port, "replica?lag=10s", 200, "replica without its source for ")
	a.wantSoon(replica.Port, "replica?lag=10s&alone=1s", 503, "at most 1s alone; replica wanted")
}

const mariadbOperator = "CREATE USER operator@'%' IDENTIFIED BY 's3cret';\n"

// TestMariaDBReplication asks a primary and its replica for every role: in step, behind, broken, and without the source.
func TestMariaDBReplication(t *testing.T) {
	primary := servertest.MariaDB(t, mariadbOperator+"GRANT REPLICATION SLAVE ON *.* TO repl@'%' IDENTIFIED BY 'repl';\n", "--server-id=1", "--log-bin=bin")
	replica := servertest.MariaDB(t, mariadbOperator, "--server-id=2", "--read-only=1")
	sql := func(s string) { t.Helper(); replica.SQL(t, s) }
	a := newMySQLAsker(t, time.Now())
	a.want(primary.Port, "primary", 200, "primary; logged in and quit in ")
	a.want(primary.Port, "writable", 200, "primary; logged in")
	a.want(primary.Port, "any", 200, "Logged in and quit in ")
	a.want(primary.Port, "?x=1", 200, "Logged in and quit in ")
	a.want(primary.Port, "leader", 400, `no such role "leader"; there are any, primary, replica, galera, group, group-primary`)
	a.want(primary.Port, "replica?lag=16MB", 400, "lag of the role replica: expected a duration of at least 1s")
	a.want(primary.Port, "galera", 503, "no Galera node, the server runs without wsrep; galera wanted")
	a.want(primary.Port, "group", 503, "MariaDB has no group replication; group wanted")
	a.want(replica.Port, "primary", 503, "read_only is ON; primary wanted")
	a.want(replica.Port, "any", 200, "Logged in and quit in ")
	a.want(primary.Port, "replica", 500, "; GRANT SLAVE MONITOR ON *.* TO the user of the check")
	for _, s := range []*servertest.Server{primary, replica} {
		s.SQL(t, "GRANT SLAVE MONITOR ON *.* TO operator@'%'")
	}
	a.want(primary.Port, "replica", 503, "primary: it has no replication channel; replica wanted")
	a.want(replica.Port, "replica", 503, "read-only: it has no replication channel; replica wanted")

	primary.SQL(t, "RESET MASTER") // the users, which the replica has too
	sql(fmt.Sprintf("CHANGE MASTER TO master_host='127.0.0.1', master_port=%d, master_user='repl', master_password='repl', master_connect_retry=1", primary.Port))
	sql("START SLAVE")
	a.wantSoon(replica.Port, "replica?lag=10s", 200, "replica, 0 s behind; logged in and quit in ")
	r := a.ask(replica.Port, "replica")
	if _, ok := field(r, "lag_seconds").(int64); field(r, "role") != "replica" || field(r, "wanted") != "replica" || !ok {
		t.Errorf("fields: %v", r.Fields)
	}
	a.wantReplicaStates(primary, replica, "SLAVE", "CHANGE MASTER TO master_delay")
	a.wantAlone(primary, replica)
	if r := a.ask(replica.Port, "replica"); field(r, "alone_seconds") == nil {
		t.Errorf("fields: %v", r.Fields)
	}
	late := newMySQLAsker(t, time.Now().Add(-time.Hour)) // it has run for an hour, and never saw the source
	late.want(replica.Port, "replica", 503, "replica without its source for 1h0m")
}

// A replay error takes the replica out at once.
func TestMariaDBReplayError(t *testing.T) {
	primary := servertest.MariaDB(t, "GRANT REPLICATION SLAVE ON *.* TO repl@'%' IDENTIFIED BY 'repl';\n", "--server-id=1", "--log-bin=bin")
	replica := servertest.MariaDB(t, mariadbOperator+"GRANT SLAVE MONITOR ON *.* TO operator@'%';\n", "--server-id=2")
	replica.SQL(t, fmt.Sprintf("CHANGE MASTER 'far' TO master_host='127.0.0.1', master_port=%d, master_user='repl', master_password='repl', master_connect_retry=1", primary.Port))
	a := newMySQLAsker(t, time.Now())
	a.want(replica.Port, "replica", 503, "channel far: replay has stopped; replica wanted")
	replica.SQL(t, "START ALL SLAVES")
	a.wantSoon(replica.Port, "replica", 200, "replica, 0 s behind")
	// MariaDB repeats a CREATE that has been done before, and stops at a row that is there already.
	replica.SQL(t, "CREATE DATABASE test")
	replica.SQL(t, "CREATE TABLE test.log (at INT PRIMARY KEY)")
	replica.SQL(t, "INSERT INTO test.log VALUES (1)")
	primary.SQL(t, "SET sql_log_bin=0; CREATE DATABASE test; CREATE TABLE test.log (at INT PRIMARY KEY); SET sql_log_bin=1; INSERT INTO test.log VALUES (1)")
	a.wantSoon(replica.Port, "replica", 503, "channel far: replay has stopped: ")
	a.want(replica.Port, "replica", 503, "Duplicate entry '1' for key 'PRIMARY'")
	// The server's text repeats the statement that failed, with the password in it.
	replica.SQL(t, "CREATE USER app@'%'")
	replica.SQL(t, "DELETE FROM test.log")
	replica.SQL(t, "START ALL SLAVES")
	primary.SQL(t, "CREATE USER app@'%' IDENTIFIED BY 'of the app'")
	a.wantSoon(replica.Port, "replica", 503, "replay has stopped: Error 'Operation CREATE USER failed for 'app'@'%''; replica wanted")
}

// TestGalera asks two nodes: synced, donor, rejecting queries, and without quorum.
func TestGalera(t *testing.T) {
	first, second := servertest.Galera(t, mariadbOperator)
	a := newMySQLAsker(t, time.Now())
	for _, s := range []*servertest.Server{first, second} {
		a.want(s.Port, "galera", 200, "Galera node Synced; logged in and quit in ")
		a.want(s.Port, "galera?writable", 200, "Galera node Synced; logged in")
		a.want(s.Port, "any", 200, "Logged in and quit in ")
		a.want(s.Port, "primary", 200, "primary; logged in")
	}
	if r := a.ask(first.Port, "galera"); field(r, "cluster_size") != "2" || field(r, "state") != "Synced" || field(r, "wanted") != "galera" {
		t.Errorf("fields: %v", r.Fields)
	}
	first.SQL(t, "SET GLOBAL wsrep_desync=ON")
	a.wantSoon(first.Port, "galera", 503, "Galera node Donor/Desynced: it is not synced; galera wanted")
	a.want(first.Port, "galera?donor=ok", 200, "Galera node Donor/Desynced; logged in")
	a.want(first.Port, "any", 200, "Logged in")
	first.SQL(t, "SET GLOBAL wsrep_desync=OFF")
	a.wantSoon(first.Port, "galera", 200, "Galera node Synced")
	first.SQL(t, "SET GLOBAL read_only=ON")
	a.want(first.Port, "galera", 200, "Galera node Synced")
	a.want(first.Port, "galera?writable", 503, "read_only is ON; galera wanted")
	first.SQL(t, "SET GLOBAL read_only=OFF")
	first.SQL(t, "SET GLOBAL wsrep_reject_queries=ALL")
	if r := a.ask(first.Port, "galera"); r.Code == 200 {
		t.Errorf("a node that rejects queries: %d %s", r.Code, r.Body)
	}
	a.want(second.Port, "galera", 200, "Galera node Synced")

	first.Kill()
	a.wantSoon(second.Port, "galera", 503, "wsrep_cluster_status is non-Primary")
	a.want(second.Port, "any", 503, "the Galera node is not ready (wsrep_ready is OFF, wsrep_cluster_status is non-Primary)")
	a.want(second.Port, "primary", 503, "the Galera node is not ready")
}

// TestMySQLGroup asks a scripted server, whose rows are those of the reference manual. mysqlreal_test.go asks a real group.
func TestMySQLGroup(t *testing.T) {
	const own, other, third = "uuid-1", "uuid-2", "uuid-3"
	head := []string{"CHANNEL_NAME", "MEMBER_ID", "MEMBER_HOST", "MEMBER_PORT", "MEMBER_STATE", "MEMBER_ROLE", "MEMBER_VERSION"}
	member := func(id, state, role string) []string {
		return []string{"group_replication_applier", id, "db1", "3306", state, role, "8.4.0"}
	}
	for name, c := range map[string]struct {
		members    [][]string
		group      string // the answer to the role group, "" for a healthy one
		primary    string // the same of group-primary
		memberRole string
	}{
		"primary":       {[][]string{member(own, "ONLINE", "PRIMARY"), member(other, "ONLINE", "SECONDARY"), member(third, "ONLINE", "SECONDARY")}, "", "", "group-primary"},
		"secondary":     {[][]string{member(own, "ONLINE", "SECONDARY"), member(other, "ONLINE", "PRIMARY")}, "", "group member ONLINE SECONDARY: it is not PRIMARY; group-primary wanted", "group-secondary"},
		"one of three":  {[][]string{member(own, "ONLINE", "PRIMARY"), member(other, "UNREACHABLE", "SECONDARY"), member(third, "ONLINE", "SECONDARY")}, "", "", "group-primary"},
		"half are gone": {[][]string{member(own, "ONLINE", "PRIMARY"), member(other, "UNREACHABLE", "SECONDARY")}, "1 of 2 members are unreachable; group wanted", "1 of 2 members are unreachable; group-primary wanted", "group-primary"},
		"recovering":    {[][]string{member(own, "RECOVERING", "SECONDARY"), member(other, "ONLINE", "PRIMARY")}, "group member RECOVERING SECONDARY: it is not ONLINE; group wanted", "it is not ONLINE, it is not PRIMARY", "group-secondary"},
		"offline":       {[][]string{member("", "OFFLINE", "")}, "no group member, group replication does not run; group wanted", "group replication does not run", "no-group"},
		"no plugin":     {nil, "no group member, group replication does not run", "group replication does not run", "no-group"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &mysqlServer{defaultMethod: "caching_sha2_password", method: "caching_sha2_password", cached: true, user: "operator", password: "s3cret", answers: map[string][][]string{
				"SHOW GLOBAL VARIABLES":     {{"Variable_name", "Value"}, {"version", "8.4.0"}, {"server_uuid", own}, {"read_only", "OFF"}},
				"replication_group_members": append([][]string{head}, c.members...),
			}}
			s := checktest.Serve(t, m.serve)
			a := newMySQLAsker(t, time.Now())
			for role, problem := range map[string]string{"group": c.group, "group-primary": c.primary} {
				r := a.ask(s.Port, role)
				if problem == "" && r.Code != 200 || problem != "" && (r.Code != 503 || !strings.Contains(string(r.Body), problem)) {
					t.Errorf("%s: %d %q, want %q", role, r.Code, r.Body, problem)
				}
				if field(r, "role") != c.memberRole {
					t.Errorf("%s: fields %v", role, r.Fields)
				}
			}
		})
	}
}

// TestMySQLReplicaNames asks a scripted MySQL, which has other names for statements and columns than MariaDB.
func TestMySQLReplicaNames(t *testing.T) {
	row := func(state, behind string) [][]string {
		return [][]string{
			{"Replica_IO_Running", "Replica_SQL_Running", "Seconds_Behind_Source", "Last_IO_Errno", "Last_SQL_Errno", "Read_Source_Log_Pos", "Exec_Source_Log_Pos", "Source_Log_File", "Relay_Source_Log_File", "Channel_Name"},
			{state, "Yes", behind, "0", "0", "157", "157", "bin.1", "bin.1", ""},
		}
	}
	for _, c := range []struct {
		version, statement string
		rows               [][]string
		code               int
		text               string
	}{
		{"8.4.0", "SHOW REPLICA STATUS", row("Yes", "3"), 200, "replica, 3 s behind; logged in"},
		{"8.0.36-28", "SHOW REPLICA STATUS", row("Yes", "30"), 503, "replica, 30 s behind: at most 10s wanted; replica wanted"},
		{"5.7.44-log", "SHOW SLAVE STATUS", row("Connecting", ""), 200, "replica without its source for "},
		{"10.4.32-MariaDB", "SHOW ALL SLAVES STATUS", row("Preparing", ""), 200, "replica without its source for "},
		{"8.0.21", "SHOW SLAVE STATUS", row("Yes", "x"), 503, "it does not know how far it is behind"},
	} {
		m := &mysqlServer{defaultMethod: "caching_sha2_password", method: "caching_sha2_password", cached: true, user: "operator", password: "s3cret", answers: map[string][][]string{
			"SHOW GLOBAL VARIABLES": {{"Variable_name", "Value"}, {"version", c.version}, {"read_only", "ON"}},
			c.statement:             c.rows,
		}}
		s := checktest.Serve(t, m.serve)
		newMySQLAsker(t, time.Now()).want(s.Port, "replica?lag=10s", c.code, c.text)
	}
}

// A check that was configured for the service gives the login to the URL protocol.
func TestMySQLProtocolTakesTheConfiguredLogin(t *testing.T) {
	m := &mysqlServer{defaultMethod: "mysql_native_password", method: "mysql_native_password", user: "own", password: "other"}
	s := checktest.Serve(t, m.serve)
	c := build(t, check.Defaults{}, "mysql", map[string]any{"host": "db.example", "username": "own", "password": "other"})
	set := check.All(check.Options{MySQLUsername: "operator", MySQLPassword: "s3cret", Services: map[string][]*check.ConfiguredCheck{"db": {c}}})
	for service, code := range map[string]int{"db": 200, "web": 500} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if r := set["mysql"].Check(ctx, check.Target{Service: service, Host: s.Host, Port: s.Port}); r.Code != code {
			t.Errorf("%s: %d %s", service, r.Code, r.Body)
		}
	}
}
