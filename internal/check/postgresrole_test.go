package check_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// replicaUsers lets admin replicate, and everyone else in without a password.
const replicaRules = `
local all all trust
host all all 127.0.0.1/32 trust
host replication admin 127.0.0.1/32 trust
`

const replicaUsers = `
CREATE ROLE operator LOGIN;
GRANT pg_monitor TO operator;
CREATE ROLE stranger LOGIN;
CREATE TABLE heartbeat (at timestamptz);
GRANT SELECT ON heartbeat TO operator;
`

// pair is a primary and its replica, which receives through a relay.
type pair struct {
	t                *testing.T
	primary, replica *servertest.Server
	link             *checktest.Relay
	options          check.Options
}

func newPair(t *testing.T, options ...string) *pair {
	t.Helper()
	p := &pair{t: t, primary: servertest.Postgres(t, replicaUsers, replicaRules, nil), options: check.Options{Sources: check.NewSources(time.Now())}}
	p.link = checktest.NewRelay(t, p.primary.Addr())
	p.replica = servertest.PostgresReplica(t, p.primary, p.link.Port, options...)
	return p
}

// write writes a row on the primary.
func (p *pair) write() { p.primary.Psql(p.t, "INSERT INTO heartbeat VALUES (clock_timestamp())") }

// ask checks a server with a role as a URL names it, and further options.
func (p *pair) ask(s *servertest.Server, role string, pairs ...any) check.Result {
	p.t.Helper()
	options := map[string]any{"host": servertest.Host, "username": "operator", "database": "postgres", "role": "any"}
	for i := 0; i < len(pairs); i += 2 {
		options[pairs[i].(string)] = pairs[i+1]
	}
	c := build(p.t, check.Defaults{Options: p.options}, "postgres", options)
	o := p.options
	o.Services = map[string][]*check.ConfiguredCheck{"db": {c}}
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	return check.All(o)["postgres"].Check(ctx, check.Target{Service: "db", Host: servertest.Host, Port: s.Port, URI: "/" + role})
}

// want checks a server once.
func (p *pair) want(s *servertest.Server, role string, code int, text string, pairs ...any) {
	p.t.Helper()
	if r := p.ask(s, role, pairs...); r.Code != code || !strings.Contains(string(r.Body), text) {
		p.t.Errorf("%s: %d %s %q, want %d %q", role, r.Code, r.Reason, r.Body, code, text)
	}
}

// wantSoon checks a server until the answer is as wanted.
func (p *pair) wantSoon(s *servertest.Server, role string, code int, text string, pairs ...any) {
	p.t.Helper()
	deadline, again := time.NewTimer(40*time.Second), time.NewTicker(100*time.Millisecond)
	defer deadline.Stop()
	defer again.Stop()
	for {
		r := p.ask(s, role, pairs...)
		if r.Code == code && strings.Contains(string(r.Body), text) {
			return
		}
		select {
		case <-deadline.C:
			p.t.Fatalf("%s: still %d %q, want %d %q", role, r.Code, r.Body, code, text)
		case <-again.C:
		}
	}
}

// TestPostgresRoles asks a primary and its replica for every role, and promotes the replica.
func TestPostgresRoles(t *testing.T) {
	p := newPair(t)
	p.write()
	p.wantSoon(p.replica, "replica?lag=10s", 200, "replica, 0.0 s and 0 bytes behind; logged in and quit in ")
	for _, c := range []struct {
		s    *servertest.Server
		role string
		code int
		text string
	}{
		{p.primary, "", 200, "Logged in and quit in "},
		{p.primary, "any", 200, "Logged in and quit in "},
		{p.primary, "primary", 200, "primary; logged in and quit in "},
		{p.primary, "read-write", 200, "primary; logged in"},
		{p.primary, "replica", 503, "primary; replica wanted"},
		{p.primary, "read-only?lag=1s", 200, "primary; logged in"},
		{p.primary, "leader", 400, "no such role \"leader\"; there are any, primary, read-write, replica, read-only"},
		{p.primary, "primary?lag=10s", 400, "no such parameter \"lag\""},
		{p.primary, "?x=1", 200, "Logged in and quit in "},
		{p.replica, "any", 200, "Logged in and quit in "},
		{p.replica, "primary", 503, "behind; primary wanted"},
		{p.replica, "read-write", 503, "behind; read-write wanted"},
		{p.replica, "replica", 200, "replica, "},
		{p.replica, "replica?lag=16MB", 200, "replica, "},
		{p.replica, "replica?lag=10s&alone=1m", 200, "replica, "},
		{p.replica, "read-only?lag=10s", 200, "replica, "},
	} {
		p.want(c.s, c.role, c.code, c.text)
	}
	p.want(p.replica, "replica", 200, "replica; logged in", "username", "stranger")
	p.want(p.replica, "replica?lag=10s", 503, `GRANT pg_monitor TO "stranger"`, "username", "stranger")
	p.want(p.primary, "read-write", 200, "primary", "username", "stranger")
	p.primary.Psql(t, "ALTER ROLE stranger SET default_transaction_read_only = on")
	p.want(p.primary, "read-write", 503, "primary with read-only transactions; read-write wanted", "username", "stranger")
	p.want(p.primary, "primary", 200, "primary with read-only transactions", "username", "stranger")
	p.want(p.primary, "primary", 503, "the query returns 1; 2 wanted", "query", "SELECT 1", "expect", "2")

	fields := map[string]any{}
	for _, f := range p.ask(p.replica, "primary").Fields {
		fields[f.Name] = f.Value
	}
	if got := fmt.Sprint(fields); got != "map[lag_bytes:0 lag_seconds:0 read_only:true role:replica source:streaming wanted:primary]" {
		t.Errorf("fields: %s", got)
	}
	checktest.RunQuiet(t, p.replica.Addr(), p.replica.Log, 20, func(host string, port uint16) check.Result {
		return buildAt(t, check.Defaults{Options: p.options}, "postgres", host, port, "username", "operator", "database", "postgres", "role", "replica?lag=10s").Check(t.Context(), check.Target{})
	})

	p.replica.Psql(t, "SELECT pg_promote()")
	p.wantSoon(p.replica, "primary", 200, "primary; logged in")
	p.wantSoon(p.replica, "read-write", 200, "primary; logged in")
	p.want(p.replica, "replica", 503, "primary; replica wanted")
}

// TestPostgresLag: a replica whose replay is paused, or whose link is frozen, is too far behind, and comes back.
func TestPostgresLag(t *testing.T) {
	p := newPair(t, "wal_receiver_timeout=8s")
	p.write()
	p.wantSoon(p.replica, "replica?lag=1s", 200, "replica, 0.0 s and 0 bytes behind")
	p.replica.Psql(t, "SELECT pg_wal_replay_pause()")
	p.wantSoon(p.replica, "replica?lag=1s", 200, "replay is paused")
	p.write()
	p.wantSoon(p.replica, "replica?lag=1s", 503, "at most 1s wanted")
	p.want(p.replica, "read-only?lag=1s", 503, "at most 1s wanted")
	p.want(p.replica, "replica?lag=16MB", 200, "replay is paused")
	p.primary.Psql(t, "SELECT pg_logical_emit_message(false, 'x', repeat('x', 3000000))")
	p.wantSoon(p.replica, "replica?lag=1MB", 503, "at most 1024 kB wanted")
	p.want(p.replica, "replica", 200, "replay is paused")
	p.replica.Psql(t, "SELECT pg_wal_replay_resume()")
	p.wantSoon(p.replica, "replica?lag=1s", 200, "replica, 0.0 s and 0 bytes behind")
	p.wantSoon(p.replica, "replica?lag=1MB", 200, "replica, 0.0 s and 0 bytes behind")

	// A query of the operator's: a heartbeat. Here it is old.
	heartbeat := []any{"lag_query", "SELECT extract(epoch FROM clock_timestamp() - max(at)) + 3600 FROM heartbeat"}
	p.want(p.replica, "replica?lag=10s", 503, "at most 10s wanted", heartbeat...)
	p.want(p.replica, "replica?lag=2h", 200, "replica, 36", heartbeat...)
	p.want(p.replica, "replica?lag=2h", 503, "lag_query returns NULL, and not a number of seconds", "lag_query", "SELECT NULL")
	p.want(p.replica, "replica?lag=10s", 200, "replica, 0.0 s", "lag_query", "SELECT -1")
	p.want(p.replica, "replica?lag=10s", 503, "lag_query returns -3600.0 s; at most 10s wanted", "lag_query", "SELECT -3600")
	p.want(p.primary, "read-only?lag=1s", 200, "primary", "lag_query", "SELECT * FROM none")

	// For this user the clock of the primary is an hour ahead: the age of the last commit says nothing of the lag.
	p.primary.Psql(t, `CREATE ROLE ahead LOGIN IN ROLE pg_monitor; CREATE SCHEMA ahead; GRANT USAGE ON SCHEMA ahead TO ahead;
		CREATE FUNCTION ahead.pg_last_xact_replay_timestamp() RETURNS timestamptz LANGUAGE SQL AS $$SELECT now() + interval '1 hour'$$;
		CREATE FUNCTION ahead.pg_last_wal_replay_lsn() RETURNS pg_lsn LANGUAGE SQL AS $$SELECT pg_lsn '0/1'$$;
		ALTER ROLE ahead SET search_path = ahead, pg_catalog`)
	p.wantSoon(p.replica, "replica?lag=10s", 503, "in the future, the clocks of the servers differ; at most 10s wanted", "username", "ahead")
	p.wantSoon(p.replica, "replica?lag=2h", 200, "replica, 0.0 s", "username", "ahead")

	p.link.Freeze()
	p.write()
	// The replica's own view says "streaming" and that all is replayed until wal_receiver_timeout has passed.
	p.wantSoon(p.replica, "replica?lag=1s", 503, "its source has sent nothing for ")
	p.link.Thaw()
	p.wantSoon(p.replica, "replica?lag=1s", 200, "replica, 0.0 s and 0 bytes behind")
}

// TestPostgresDelayed: a replica that delays replay on purpose is as far behind as the delay.
func TestPostgresDelayed(t *testing.T) {
	p := newPair(t, "recovery_min_apply_delay=1h")
	p.wantSoon(p.replica, "replica", 200, "replica")
	p.write()
	p.wantSoon(p.replica, "replica?lag=1s", 503, "at most 1s wanted")
}

// TestPostgresAlone: a replica whose primary has stopped stays healthy for a while, if it has applied all.
func TestPostgresAlone(t *testing.T) {
	p := newPair(t)
	p.write()
	p.wantSoon(p.replica, "replica?lag=1s", 200, "replica, 0.0 s and 0 bytes behind")
	// A cascading replica is compared with the replica that it follows.
	second := servertest.PostgresReplica(t, p.replica, p.replica.Port)
	p.wantSoon(second, "replica?lag=1s", 200, "replica, 0.0 s and 0 bytes behind")
	p.primary.Stop()
	p.wantSoon(p.replica, "replica?lag=1ms", 200, "not connected to its source; logged in")
	p.wantSoon(p.replica, "replica?lag=1ms&alone=1s", 503, "alone=1s allows no more")
	p.wantSoon(p.replica, "read-only?alone=1s", 503, "alone=1s allows no more")
	p.want(p.replica, "replica", 200, "not connected to its source")
	p.want(second, "replica?lag=1s", 200, "replica, 0.0 s and 0 bytes behind")
	if i := slices.IndexFunc(p.ask(p.replica, "replica?lag=1ms").Fields, func(f check.ResultField) bool { return f.Name == "alone_seconds" }); i < 0 {
		t.Error("no field alone_seconds")
	}
	p.replica.Psql(t, "SELECT pg_promote()")
	p.wantSoon(p.replica, "primary", 200, "primary")
}
