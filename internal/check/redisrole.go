package check

import (
	"bufio"
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// checkRole asks the server for its role with INFO, and in cluster mode for its part in the cluster. It returns a result
// with what was found. It returns false with a result that says why the server is not healthy in the wanted role.
func (c *redisClient) checkRole(x *exchange, r *bufio.Reader) (Result, bool) {
	reply, res, ok := c.info(x, r, "INFO")
	if !ok {
		return res, false
	}
	s := redisState{fields: map[string]string{}}
	for _, f := range parseRedisInfo(reply.text) {
		s.fields[f.name] = f.value
	}
	switch s.fields["role"] {
	case "master":
		s.role = "primary"
	case "slave", "replica":
		s.role = "replica"
	default:
		return x.protocolError("Sent INFO, got back no role of a Redis server from %s", x.addr()), false
	}
	if s.fields["cluster_enabled"] == "1" {
		if res, ok = c.readCluster(x, r, &s); !ok {
			return res, false
		}
	}
	found, problem := s.role, ""
	if s.role == "replica" {
		found, problem = c.judgeReplica(x, &s)
	}
	problem = cmp.Or(s.problem(), problem)
	switch {
	case s.role != c.role.name:
		res = x.serviceError(503, "%s; %s wanted", cmp.Or(join(found, problem), found), c.role.name)
	case problem != "":
		res = x.serviceError(503, "%s", join(found, problem))
	default:
		res = Result{Code: 200, Body: []byte(found)}
	}
	res.Fields = append([]ResultField{{"role", s.role}, {"wanted", c.role.name}}, s.found...)
	return res, res.Code == 200
}

// join returns "replica, but problem", "" without a problem.
func join(found, problem string) string {
	if problem == "" {
		return ""
	}
	return found + ", but " + problem
}

// info sends INFO or a CLUSTER command. The result for a user without the permission names the rule that gives it.
func (c *redisClient) info(x *exchange, r *bufio.Reader, command ...string) (redisReply, Result, bool) {
	reply, res, ok := c.send(x, r, command...)
	if !ok || reply.kind == '$' {
		return reply, res, ok
	}
	res = x.unexpectedRedisReply(strings.Join(command, " "), reply)
	if reply.errorKind() == "NOPERM" {
		rule := "+" + strings.ToLower(strings.Join(command, "|"))
		res.Body = append(res.Body, " (a role needs it: ACL SETUSER "+cmp.Or(excerpt(c.username, 60), "default")+" "+rule+")"...)
	}
	return reply, res, false
}

// redisState is what a server says about itself.
type redisState struct {
	role    string            // primary or replica
	fields  map[string]string // of INFO
	cluster string            // cluster_state; "" outside of cluster mode
	noSlots bool              // a primary of a cluster that serves no slots
	found   []ResultField
}

// readCluster reads the state of the cluster and whether this server has slots.
func (c *redisClient) readCluster(x *exchange, r *bufio.Reader, s *redisState) (Result, bool) {
	reply, res, ok := c.info(x, r, "CLUSTER", "INFO")
	if !ok {
		return res, false
	}
	s.cluster = "unknown"
	for _, f := range parseRedisInfo(reply.text) {
		if f.name == "cluster_state" {
			s.cluster = excerpt(f.value, 40)
		}
	}
	s.found = append(s.found, ResultField{"cluster_state", s.cluster})
	if s.role != "primary" {
		return Result{}, true
	}
	if reply, res, ok = c.info(x, r, "CLUSTER", "NODES"); !ok {
		return res, false
	}
	s.noSlots = !ownSlots(string(reply.text))
	s.found = append(s.found, ResultField{"slots", !s.noSlots})
	return Result{}, true
}

// ownSlots reports whether CLUSTER NODES has slots in the line of the server that is asked: after eight fields, of which
// the third has the flag myself. A slot in brackets is on its way.
func ownSlots(nodes string) bool {
	for line := range strings.Lines(nodes) {
		fields := strings.Fields(line)
		if len(fields) < 3 || !strings.HasPrefix(fields[2], "myself") {
			continue
		}
		for _, slot := range fields[min(8, len(fields)):] {
			if slot[0] != '[' {
				return true
			}
		}
	}
	return false
}

// problem returns why a server in any role is not healthy, "" if it is. Loading in the background (async_loading) is no
// problem: the server answers from its old data meanwhile.
func (s *redisState) problem() string {
	switch {
	case s.fields["loading"] != "0":
		return "it loads its data"
	case s.cluster != "" && s.cluster != "ok":
		return "cluster_state is " + s.cluster
	case s.noSlots:
		return "it serves no slots of the cluster"
	}
	return ""
}

// judgeReplica returns a text with what is known of the link of a replica, and why the replica is not healthy, "" if it
// is.
func (c *redisClient) judgeReplica(x *exchange, s *redisState) (found, problem string) {
	now := time.Now()
	up := s.fields["master_link_status"] == "up"
	syncing := s.fields["master_sync_in_progress"] != "0"
	s.found = append(s.found, ResultField{"link_up", up}, ResultField{"sync_in_progress", syncing})
	if syncing && s.fields["async_loading"] != "1" {
		return "replica", "a full sync is in progress"
	}
	if !up {
		away := c.linkDown(x, s, now)
		s.found = append(s.found, ResultField{"alone_seconds", int64(away.Seconds())})
		found = fmt.Sprintf("replica, link to its source down for %s", away.Round(time.Second))
		if away > c.role.alone {
			problem = fmt.Sprintf("only %s are allowed (alone)", c.role.alone)
		}
		return found, problem
	}
	seconds, err := strconv.ParseInt(s.fields["master_last_io_seconds_ago"], 10, 32)
	if err != nil || seconds < 0 {
		return "replica, link up", "it does not say when it last heard from its source"
	}
	s.found = append(s.found, ResultField{"lag_seconds", seconds})
	found = fmt.Sprintf("replica, link up, last heard from its source %d s ago", seconds)
	// Redis counts in whole seconds, so that 10 may be up to a second more or less.
	if c.role.lag > 0 && time.Duration(seconds)*time.Second >= c.role.lag+2*time.Second {
		return found, fmt.Sprintf("only %s are allowed (lag)", c.role.lag)
	}
	c.sources.connected(x.addr(), now)
	return found, ""
}

// linkDown returns for how long the link of a replica to its source has been down: as far as this daemon knows, or as
// the server says, whichever is longer. A server that was never connected since its start says -1, or before Redis 7
// the seconds since 1970.
func (c *redisClient) linkDown(x *exchange, s *redisState, now time.Time) time.Duration {
	away := c.sources.alone(x.addr(), now)
	down, err := strconv.ParseInt(s.fields["master_link_down_since_seconds"], 10, 64)
	uptime, err2 := strconv.ParseInt(s.fields["uptime_in_seconds"], 10, 64)
	if err == nil && err2 == nil && 0 <= down && down <= uptime {
		away = max(away, time.Duration(down)*time.Second)
	}
	return away
}
