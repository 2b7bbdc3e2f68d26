package check

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// postgresRoles are the roles of a PostgreSQL server.
var postgresRoles = []Role{
	{Name: "any", Doc: "a login and a query work"},
	{Name: "primary", Doc: "it is not in recovery"},
	{Name: "read-write", Doc: "it is not in recovery, and transaction_read_only is off"},
	{Name: "replica", Doc: "it is in recovery, and not further behind than lag", Params: []string{"lag", "alone"}},
	{Name: "read-only", Doc: "it is a primary, or a replica that is not further behind than lag", Params: []string{"lag", "alone"}},
}

// postgresStateQuery asks for everything that a role depends on, PostgreSQL 10 or later. pg_stat_wal_receiver has a row
// while the server receives from its source. Without the privileges of pg_monitor, all of its columns but pid are NULL.
// The row is read before the position of replay, so that "replayed" is never older than "end".
const postgresStateQuery = `SELECT pg_is_in_recovery() AS recovery,
 current_setting('transaction_read_only') = 'on' AS read_only,
 r.pid IS NOT NULL AS receiver,
 r.status = 'streaming' AS streaming,
 r.latest_end_lsn - '0/0' AS end,
 extract(epoch FROM clock_timestamp() - r.last_msg_receipt_time) AS message_age,
 extract(epoch FROM current_setting('wal_receiver_timeout')::interval) AS receiver_timeout,
 pg_last_wal_receive_lsn() - '0/0' AS received,
 pg_last_wal_replay_lsn() - '0/0' AS replayed,
 extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) AS commit_age,
 CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END AS paused
FROM (SELECT 1) AS one LEFT JOIN pg_stat_wal_receiver AS r ON true`

// unknown is the value of a position or duration that the server does not know (NULL).
const unknown = -1

// postgresState is what postgresStateQuery finds. Positions are in bytes.
type postgresState struct {
	recovery, readOnly, paused bool
	receiver                   bool // receives from its source, or tries to
	hidden                     bool // receiver, without the privilege to see more
	streaming                  bool
	end                        int64         // how far the source was, by its last message
	messageAge                 time.Duration // age of the source's last message
	receiverTimeout            time.Duration
	received, replayed         int64
	commitAge                  time.Duration // age of the last commit that was replayed; below 0 by clocks that differ
	lag                        time.Duration // below 0 by clocks that differ, or as lag_query finds it
	lagProblem                 string        // what is wrong with the answer to lag_query
}

// The second look at a replica that seems too far behind: how often, and after how long.
const (
	postgresLooks     = 3
	postgresLookAfter = 100 * time.Millisecond
)

// readState asks for the state, and for how far a replica is behind.
//
// Its lag is 0 if it has replayed all that its source has reported, else the age of the last commit that it replayed.
// After a pause without a write, that commit is as old as the pause although the replica is milliseconds behind. So
// if it seems too far behind, readState looks again: once the replica has replayed what the source had reported at the
// first look, it is no further behind than the time between the two.
func (p postgresLogin) readState(x *exchange, c *postgresConn) (postgresState, error) {
	s, err := p.state(c)
	if err != nil || !s.recovery {
		return s, err
	}
	if p.lagQuery != "" && p.takesReplicas() {
		s.lag, s.lagProblem, err = c.lagByQuery(p.lagQuery)
		return s, err
	}
	first, start := s, time.Now()
	for range postgresLooks {
		if s.lag == unknown || p.role.lag == 0 || p.isWithinLag(s) || !p.connected(s) {
			break
		}
		select {
		case <-x.ctx.Done():
			return s, x.ctx.Err()
		case <-time.After(postgresLookAfter):
		}
		if s, err = p.state(c); err != nil {
			return s, err
		}
		if since := time.Since(start); s.replayed >= first.end && s.recovery && (s.lag < 0 || s.lag > since) {
			s.lag = since
		}
	}
	return s, nil
}

// isWithinLag reports whether a known lag is at most the wanted one. A commit that is further in the future than that is
// of a clock that differs, and says nothing of the lag.
func (p postgresLogin) isWithinLag(s postgresState) bool {
	return s.lag != unknown && -p.role.lag <= s.lag && s.lag <= p.role.lag
}

// takesReplicas reports whether the role may be that of a replica.
func (p postgresLogin) takesReplicas() bool {
	return p.role.name == "replica" || p.role.name == "read-only"
}

// connected reports whether the replica receives from its source: it streams, and the last message is recent. A link
// that the network has cut without a word says "streaming" too. A source that has nothing to send sends a message when
// the replica asks, after half of wal_receiver_timeout (30 s by default) and up to 100 ms, so there is a second more.
func (p postgresLogin) connected(s postgresState) bool {
	silence := s.receiverTimeout / 2
	if silence <= 0 {
		silence = 30 * time.Second
	}
	return s.streaming && s.messageAge != unknown && s.messageAge <= max(silence+time.Second, p.role.lag)
}

// state runs postgresStateQuery.
func (p postgresLogin) state(c *postgresConn) (postgresState, error) {
	rows, err := c.query(postgresStateQuery)
	if err != nil {
		return postgresState{}, err
	}
	if len(rows) != 1 || len(rows[0]) != 11 {
		return postgresState{}, malformed("%d rows where the state of the server has to be", len(rows))
	}
	r := &rowReader{row: rows[0]}
	s := postgresState{
		recovery: r.boolean(0), readOnly: r.boolean(1), receiver: r.boolean(2), streaming: r.boolean(3), end: r.position(4),
		messageAge: r.age(5), receiverTimeout: r.age(6), received: r.position(7), replayed: r.position(8), commitAge: r.age(9), paused: r.boolean(10),
	}
	s.hidden = s.receiver && rows[0][3] == nil
	s.lag = s.commitAge
	if p.connected(s) && s.end != unknown && s.replayed >= s.end {
		s.lag = 0
	}
	return s, r.err
}

// lagByQuery returns the lag that a query of the operator finds, in seconds, or what is wrong with its answer.
func (c *postgresConn) lagByQuery(sql string) (lag time.Duration, problem string, err error) {
	rows, err := c.query(sql)
	if err != nil {
		return unknown, "", err
	}
	if len(rows) == 0 || len(rows[0]) == 0 {
		return unknown, "lag_query returns no row", nil
	}
	r := &rowReader{row: rows[0]}
	lag = r.age(0)
	if lag == unknown {
		return unknown, "lag_query returns " + excerpt(cmp.Or(string(rows[0][0]), "NULL"), 60) + ", and not a number of seconds", nil
	}
	return lag, "", nil
}

// rowReader reads the columns of a row. It keeps the first error.
type rowReader struct {
	row [][]byte
	err error
}

func (r *rowReader) bad(i int, want string) {
	if r.err == nil {
		r.err = malformed("%q in column %d where %s has to be", excerpt(r.row[i], 30), i+1, want)
	}
}

// boolean returns false for NULL.
func (r *rowReader) boolean(i int) bool {
	switch string(r.row[i]) {
	case "t":
		return true
	case "f", "":
	default:
		r.bad(i, "t or f")
	}
	return false
}

func (r *rowReader) position(i int) int64 {
	if r.row[i] == nil {
		return unknown
	}
	n, err := strconv.ParseInt(string(r.row[i]), 10, 64)
	if err != nil || n < 0 {
		r.bad(i, "a position")
		return unknown
	}
	return n
}

// age returns a number of seconds. It is below 0 by a clock that runs ahead.
func (r *rowReader) age(i int) time.Duration {
	if r.row[i] == nil {
		return unknown
	}
	f, err := strconv.ParseFloat(string(r.row[i]), 64)
	if err != nil || math.IsNaN(f) || math.Abs(f) > 1e9 {
		r.bad(i, "a number of seconds")
		return unknown
	}
	return time.Duration(f*1e6) * time.Microsecond // the server's own precision; never unknown
}

// bytesBehind returns how many bytes the replica has not replayed of what its source has reported; unknown without a
// connection.
func (p postgresLogin) bytesBehind(s postgresState) int64 {
	if !p.connected(s) || s.end == unknown || s.replayed == unknown {
		return unknown
	}
	return max(0, s.end-s.replayed)
}

// evaluate returns the result for a server in this state.
func (p postgresLogin) evaluate(x *exchange, s postgresState) Result {
	found, fields := p.describe(s)
	healthy := func() Result {
		r := x.healthy(found + "; logged in and quit")
		r.Fields = fields
		return r
	}
	unhealthy := func(format string, args ...any) Result {
		r := x.serviceError(503, "%s; %s", found, fmt.Sprintf(format, args...))
		r.Fields = fields
		return r
	}
	switch p.role.name {
	case "primary", "read-write":
		if s.recovery || p.role.name == "read-write" && s.readOnly {
			return unhealthy("%s wanted", p.role.name)
		}
		return healthy()
	case "read-only":
		if !s.recovery {
			return healthy()
		}
	default:
		if !s.recovery {
			return unhealthy("%s wanted", p.role.name)
		}
	}
	if why := p.tooFarBehind(x, s, &fields); why != "" {
		return unhealthy("%s", why)
	}
	return healthy()
}

// tooFarBehind says why a replica is too far behind, or "" if it is not. It adds to the fields what it finds.
func (p postgresLogin) tooFarBehind(x *exchange, s postgresState, fields *[]ResultField) string {
	w := p.role
	limited := w.lag > 0 || w.lagBytes > 0
	if !limited && !w.aloneSet {
		return ""
	}
	if s.hidden && p.lagQuery == "" {
		return fmt.Sprintf("how far is hidden from this user: GRANT pg_monitor TO %q", excerpt(p.username, 63))
	}
	now := time.Now()
	if p.connected(s) {
		p.sources.connected(x.addr(), now)
	}
	behind := p.bytesBehind(s)
	if w.lag > 0 && p.isWithinLag(s) || w.lagBytes > 0 && behind != unknown && behind <= w.lagBytes ||
		!limited && (s.streaming || p.connected(s)) {
		return ""
	}
	if s.streaming || s.hidden {
		return p.limitText(s)
	}
	alone := p.sources.alone(x.addr(), now)
	*fields = append(*fields, ResultField{"alone_seconds", alone.Seconds()})
	switch {
	case s.received == unknown:
		return "its source is away, and it has received nothing since its start; " + p.limitText(s)
	case s.replayed < s.received:
		return "its source is away, and not all that was received is applied; " + p.limitText(s)
	case alone > w.alone:
		return fmt.Sprintf("its source is away for %s; alone=%s allows no more", secondsText(alone), w.alone)
	}
	return ""
}

// limitText says what is wanted of a replica.
func (p postgresLogin) limitText(s postgresState) string {
	w := p.role
	text := "connected to its source wanted"
	switch {
	case w.lag > 0:
		text = "at most " + w.lag.String() + " wanted"
		switch {
		case s.lagProblem != "":
			text = s.lagProblem + "; " + text
		case s.lag == unknown:
			text = "it has replayed no commit since its start; " + text
		case s.lag < -w.lag && p.lagQuery != "":
			text = "lag_query returns " + secondsText(s.lag) + "; " + text
		case s.lag < -w.lag:
			text = "its last commit is " + secondsText(-s.lag) + " in the future, the clocks of the servers differ; " + text
		}
	case w.lagBytes > 0:
		text = "at most " + sizeText(w.lagBytes) + " wanted"
	}
	if s.streaming && !p.connected(s) {
		text = "its source has sent nothing for " + secondsText(s.messageAge) + "; " + text
	}
	return text
}

// describe says what the server is.
func (p postgresLogin) describe(s postgresState) (string, []ResultField) {
	if !s.recovery {
		text := "primary"
		if s.readOnly {
			text = "primary with read-only transactions"
		}
		return text, []ResultField{{"role", "primary"}, {"wanted", p.role.name}, {"read_only", s.readOnly}}
	}
	fields := []ResultField{{"role", "replica"}, {"wanted", p.role.name}, {"read_only", true}}
	var behind []string
	if s.lag != unknown && !s.hidden {
		behind = append(behind, secondsText(max(0, s.lag)))
		fields = append(fields, ResultField{"lag_seconds", s.lag.Seconds()})
	}
	if n := p.bytesBehind(s); n != unknown {
		behind = append(behind, sizeText(n))
		fields = append(fields, ResultField{"lag_bytes", n})
	}
	text := "replica"
	if len(behind) > 0 {
		text += ", " + strings.Join(behind, " and ") + " behind"
	}
	source := "away"
	switch {
	case s.hidden:
		source = "hidden"
	case p.connected(s):
		source = "streaming"
	case s.streaming:
		source = "silent"
	default:
		text += ", not connected to its source"
	}
	fields = append(fields, ResultField{"source", source})
	if s.paused {
		text += ", replay is paused"
		fields = append(fields, ResultField{"paused", true})
	}
	return text, fields
}

// secondsText returns a duration as "3.2 s".
func secondsText(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// sizeText returns a size as "48 kB", in units of 1024, as PostgreSQL's pg_size_pretty.
func sizeText(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "GB"}, {1 << 20, "MB"}, {1 << 10, "kB"}} {
		if n >= 10*u.size {
			return fmt.Sprintf("%d %s", n/u.size, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
