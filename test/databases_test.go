package test

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"hacheck/test/servertest"
)

// TestRecipeDatabases: HAProxy sends writes to the primary, also after a promotion, and reads to servers that keep up.
func TestRecipeDatabases(t *testing.T) {
	t.Parallel()
	all := recipes(t)
	sql := all["databases' user"].text
	primary := servertest.Postgres(t, sql, `
local all all trust
host replication admin 127.0.0.1/32 trust
host all admin 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
`, nil)
	replica := servertest.PostgresReplica(t, primary, primary.Port)
	one := startHosts(t, 1, strings.Replace(all["databases' hacheck"].text, "cache_time: 1", "cache_time: 0", 1))[0]
	front := freePort(t)
	text := strings.NewReplacer(
		"10.0.0.5:5432", primary.Addr(), "10.0.0.6:5432", replica.Addr(), "3333", strconv.Itoa(one.port), "inter 2s", "inter 200ms",
		"lag=10s", "lag=1s",
	).Replace(all["databases"].text)
	lb := startHAProxy(t, fmt.Sprintf(`
defaults
    mode tcp
    timeout connect 5s
    timeout client 90s
    timeout server 90s
    timeout check 5s
frontend front
    bind 127.0.0.1:%d
    default_backend db-write
%s`, front, text))
	lb.waitForStates(map[string]string{"db-write/db1": "UP", "db-write/db2": "DOWN", "db-read/db1": "UP", "db-read/db2": "UP"})
	wantPort(t, front, primary.Port)
	// A promotion moves the traffic within two checks.
	if s := lb.statByServer()["db-write/db2"]; s["check_rise"] != "2" || s["check_fall"] != "2" {
		t.Errorf("HAProxy wants %s checks to take the server in and %s to take it out", s["check_rise"], s["check_fall"])
	}

	primary.Psql(t, "CREATE TABLE log (at timestamptz)")
	replica.Psql(t, "SELECT pg_wal_replay_pause()")
	primary.Psql(t, "INSERT INTO log VALUES (now())")
	lb.waitForStates(map[string]string{"db-read/db1": "UP", "db-read/db2": "DOWN"})
	replica.Psql(t, "SELECT pg_wal_replay_resume()")
	lb.waitForStates(map[string]string{"db-read/db1": "UP", "db-read/db2": "UP"})

	primary.Stop()
	lb.waitForStates(map[string]string{"db-write/db1": "DOWN", "db-write/db2": "DOWN", "db-read/db1": "DOWN", "db-read/db2": "UP"})
	replica.Psql(t, "SELECT pg_promote()")
	lb.waitForStates(map[string]string{"db-write/db1": "DOWN", "db-write/db2": "UP", "db-read/db2": "UP"})
	wantPort(t, front, replica.Port)

	one.mustRunCommand("hadown", "db")
	lb.waitForStates(map[string]string{"db-write/db2": "DOWN", "db-read/db2": "DOWN"})
}

// wantPort connects to a PostgreSQL server through HAProxy, and fails the test unless it is the one with this port.
func wantPort(t *testing.T, front int, port uint16) {
	t.Helper()
	cmd := exec.Command("psql", "-X", "-h", "127.0.0.1", "-p", strconv.Itoa(front), "-U", "admin", "-d", "postgres", "-Atc", "SHOW port")
	out, err := cmd.CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != fmt.Sprint(port) {
		t.Errorf("HAProxy leads to the server with port %s (%v), want %d", got, err, port)
	}
}

// TestRecipeGalera: a node that feeds another one leaves, and comes back when it is in step.
func TestRecipeGalera(t *testing.T) {
	t.Parallel()
	all := recipes(t)
	first, second := servertest.Galera(t, all["galera's user"].text)
	one := startHosts(t, 1, strings.Replace(all["galera's hacheck"].text, "cache_time: 1", "cache_time: 0", 1))[0]
	front := freePort(t)
	text := strings.NewReplacer("10.0.0.5:3306", first.Addr(), "10.0.0.6:3306", second.Addr(), "3333", strconv.Itoa(one.port), "inter 2s", "inter 200ms").Replace(all["galera"].text)
	lb := startHAProxy(t, fmt.Sprintf(`
defaults
    mode tcp
    timeout connect 5s
    timeout client 90s
    timeout server 90s
frontend front
    bind 127.0.0.1:%d
    default_backend galera
%s`, front, text))
	lb.waitForStates(map[string]string{"galera/db1": "UP", "galera/db2": "UP"})
	wantGaleraPort(t, front, first.Port)
	first.SQL(t, "SET GLOBAL wsrep_desync=ON")
	lb.waitForStates(map[string]string{"galera/db1": "DOWN", "galera/db2": "UP"})
	wantGaleraPort(t, front, second.Port)
	first.SQL(t, "SET GLOBAL wsrep_desync=OFF")
	lb.waitForStates(map[string]string{"galera/db1": "UP", "galera/db2": "UP"})
	wantGaleraPort(t, front, first.Port)

	first.Kill() // one node of two has no quorum
	lb.waitForStates(map[string]string{"galera/db1": "DOWN", "galera/db2": "DOWN"})
}

// wantGaleraPort connects to a node through HAProxy, and fails the test unless it is the one with this port.
func wantGaleraPort(t *testing.T, front int, port uint16) {
	t.Helper()
	cmd := exec.Command("mariadb", "--no-defaults", "-h127.0.0.1", "-P"+strconv.Itoa(front), "-uhacheck", "-psecret", "-BNe", "SELECT @@port")
	out, err := cmd.CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != fmt.Sprint(port) {
		t.Errorf("HAProxy leads to the node with port %s (%v), want %d", got, err, port)
	}
}
