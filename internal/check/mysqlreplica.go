package check

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// mysqlMinLag is the shortest lag that can be wanted. The servers tell it in whole seconds.
const mysqlMinLag = time.Second

// isMariaDB reports whether the server is MariaDB: "10.11.19-MariaDB-log".
func isMariaDB(variables map[string]string) bool {
	return strings.Contains(variables["version"], "MariaDB")
}

// isSince reports whether the server's version is at least this one.
func isSince(variables map[string]string, major, minor, patch int) bool {
	var v [3]int
	digits, _, _ := strings.Cut(variables["version"], "-")
	for i, part := range strings.SplitN(digits, ".", 3) {
		v[i], _ = strconv.Atoi(part)
	}
	return v[0] > major || v[0] == major && (v[1] > minor || v[1] == minor && v[2] >= patch)
}

// mysqlReplicaStatement returns the statement that shows the channels of a replica, and the privilege it needs.
func mysqlReplicaStatement(variables map[string]string) (statement, privilege string) {
	switch {
	case isMariaDB(variables) && isSince(variables, 10, 5, 9):
		return "SHOW ALL SLAVES STATUS", "SLAVE MONITOR"
	case isMariaDB(variables):
		return "SHOW ALL SLAVES STATUS", "REPLICATION CLIENT"
	case isSince(variables, 8, 0, 22):
		return "SHOW REPLICA STATUS", "REPLICATION CLIENT"
	}
	return "SHOW SLAVE STATUS", "REPLICATION CLIENT"
}

// mysqlChannel is a replication channel of MySQL, or a connection of MariaDB.
type mysqlChannel struct{ row mysqlRow }

// value returns a column, which MySQL has renamed: SLAVE became REPLICA, and MASTER became SOURCE.
func (c mysqlChannel) value(name string) string {
	if v, ok := c.row[strings.ToLower(name)]; ok {
		return v
	}
	return c.row[strings.ToLower(strings.NewReplacer("Slave", "Replica", "Master", "Source").Replace(name))]
}

func (c mysqlChannel) number(name string) int {
	n, err := strconv.Atoi(c.value(name))
	if err != nil {
		return -1
	}
	return n
}

// name returns the channel's name in front of a text, "" for the one without a name.
func (c mysqlChannel) name() string {
	name := c.row["channel_name"] + c.row["connection_name"]
	if name == "" {
		return ""
	}
	return "channel " + excerpt(name, 40) + ": "
}

// problem says why the channel cannot replay. It is "" for one that replays, even if its source is away.
func (c mysqlChannel) problem() string {
	switch {
	case c.value("Slave_SQL_Running") != "Yes" || c.number("Last_SQL_Errno") != 0:
		return strings.TrimSuffix("replay has stopped: "+excerpt(withoutStatement(c.value("Last_SQL_Error")), 200), ": ")
	case c.value("Slave_IO_Running") != "Yes" && !c.isAway():
		return strings.TrimSuffix("it receives nothing (Slave_IO_Running is "+excerpt(c.value("Slave_IO_Running"), 20)+"): "+excerpt(c.value("Last_IO_Error"), 200), ": ")
	}
	return ""
}

// withoutStatement returns an error of replay without the statement that failed, or the part of it that a syntax error
// shows. CREATE USER and ALTER USER contain a password.
func withoutStatement(text string) string {
	for _, mark := range []string{" on query. Default database: ", " to use near '"} {
		text, _, _ = strings.Cut(text, mark)
	}
	return text
}

// isAway reports whether the source cannot be reached: the channel is connecting (MariaDB calls it Preparing after the
// login, until the source has answered), or has given up, with no error but those of a connection. One that the operator
// has stopped, and one that its source refuses, is not away but broken.
func (c mysqlChannel) isAway() bool {
	const (
		tooManyConnections = 1040
		shutdown           = 1053
		netErrors          = 1158 // to 1161
		clientErrors       = 2000 // to 2999
	)
	state, n := c.value("Slave_IO_Running"), c.number("Last_IO_Errno")
	ofConnection := n == tooManyConnections || n == shutdown || n >= netErrors && n < netErrors+4 || n >= clientErrors && n < clientErrors+1000
	return (state == "Connecting" || state == "Preparing") && (n == 0 || ofConnection) || state == "No" && ofConnection
}

// isApplied reports whether the channel has replayed all that it has received.
func (c mysqlChannel) isApplied() bool {
	received, replayed := c.number("Read_Master_Log_Pos"), c.number("Exec_Master_Log_Pos")
	return received >= 0 && received == replayed && c.value("Master_Log_File") == c.value("Relay_Master_Log_File")
}

// replica returns the finding of the role replica.
func (s *mysqlSession) replica(variables map[string]string) (mysqlFinding, error) {
	statement, privilege := mysqlReplicaStatement(variables)
	s.w.grant = "; GRANT " + privilege + " ON *.* TO the user of the check"
	rows, err := s.rows(statement)
	if err != nil {
		return mysqlFinding{}, err
	}
	if len(rows) == 0 {
		f := mysqlWritable(variables)
		f.text = f.role
		f.problems = []string{"it has no replication channel"}
		return f, nil
	}
	f := mysqlFinding{role: "replica"}
	lag, away, broken := 0, 0, false
	for _, row := range rows {
		c := mysqlChannel{row}
		problem := c.problem()
		f.add(problem == "", "%s%s", c.name(), problem)
		if problem != "" {
			broken = true
			continue
		}
		if c.isAway() {
			away++
			f.add(c.isApplied(), "%sits source is away, and not all that was received is replayed", c.name())
			continue
		}
		behind := c.number("Seconds_Behind_Master")
		f.add(behind >= 0, "%sit does not know how far it is behind", c.name())
		lag = max(lag, behind)
	}
	f.text = fmt.Sprintf("replica, %d s behind", lag)
	if wanted := s.role.lag; wanted > 0 {
		f.add(time.Duration(lag)*time.Second <= wanted, "at most %v wanted", wanted)
	}
	f.fields = []ResultField{{"channels", int64(len(rows))}, {"lag_seconds", int64(lag)}}
	if away > 0 {
		s.addAlone(&f)
	} else if !broken {
		s.sources.connected(s.w.x.addr(), time.Now())
	}
	return f, nil
}

// addAlone adds what is to be said of a replica whose source is away.
func (s *mysqlSession) addAlone(f *mysqlFinding) {
	alone := s.sources.alone(s.w.x.addr(), time.Now()).Round(time.Second)
	f.text = fmt.Sprintf("replica without its source for %v", alone)
	f.fields = append(f.fields, ResultField{"alone_seconds", alone.Seconds()})
	f.add(alone <= s.role.alone, "at most %v alone", s.role.alone)
}
