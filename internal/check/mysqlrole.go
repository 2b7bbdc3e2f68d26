package check

import (
	"fmt"
	"slices"
	"strings"
)

// mysqlRoles are the roles of a MySQL or MariaDB server.
var mysqlRoles = []Role{
	{Name: "any", Doc: "a login and a query work, and a Galera node is ready"},
	{Name: "primary", Aliases: []string{"writable"}, Doc: "it is not read-only"},
	{Name: "replica", Doc: "all its replication channels run, none further behind than lag", Params: []string{"lag", "alone"}, MinLag: mysqlMinLag},
	{Name: "galera", Doc: "it is a synced node of the primary component of a Galera cluster", Params: []string{"donor", "writable"}},
	{Name: "group", Doc: "it is online in its replication group, whose majority it reaches"},
	{Name: "group-primary", Doc: "it is a primary of its replication group, whose majority it reaches"},
}

// The variables and the status that roles depend on.
const (
	mysqlVariables = `SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'server_uuid',` +
		` 'read_only', 'super_read_only', 'innodb_read_only', 'offline_mode',` +
		` 'wsrep_on', 'wsrep_provider', 'wsrep_reject_queries', 'pxc_maint_mode')`
	mysqlGaleraStatus = `SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_connected', 'wsrep_ready',` +
		` 'wsrep_cluster_status', 'wsrep_cluster_size', 'wsrep_local_state', 'wsrep_local_state_comment')`
)

// mysqlFinding is what a role check found.
type mysqlFinding struct {
	role     string // what the server is: "primary"
	text     string // the same in words, for people
	problems []string
	fields   []ResultField
}

// add adds a problem unless ok is true.
func (f *mysqlFinding) add(ok bool, format string, args ...any) {
	if !ok {
		f.problems = append(f.problems, fmt.Sprintf(format, args...))
	}
}

// examine runs what the role and the query of the check need.
func (s *mysqlSession) examine() (Result, error) {
	variables, err := s.settings("variables", mysqlVariables)
	if err != nil {
		return Result{}, err
	}
	var f mysqlFinding
	switch s.role.name {
	case "replica":
		f, err = s.replica(variables)
	case "galera":
		f, err = s.galera(variables)
	case "group", "group-primary":
		f, err = s.group(variables)
	case "primary":
		f = mysqlWritable(variables)
	default:
		f.role = "any"
	}
	if err != nil {
		return Result{}, err
	}
	if s.role.name != "galera" && usesGalera(variables) {
		if err := s.addGaleraReady(&f); err != nil {
			return Result{}, err
		}
	}
	if len(f.problems) == 0 && s.query.text != "" {
		mismatch, err := s.runQuery()
		if err != nil {
			return Result{}, err
		}
		if mismatch != "" {
			return s.w.x.serviceError(503, "%s", s.redact(mismatch)), nil
		}
	}
	return s.verdict(f), nil
}

// verdict returns the result of a finding.
func (s *mysqlSession) verdict(f mysqlFinding) Result {
	x, wanted := s.w.x, s.role.name
	var r Result
	switch {
	case len(f.problems) > 0 && f.role == "any":
		r = x.serviceError(503, "%s", s.redact(strings.Join(f.problems, ", ")))
	case len(f.problems) > 0:
		found := strings.TrimPrefix(f.text+": "+strings.Join(f.problems, ", "), ": ")
		r = x.serviceError(503, "%s; %s wanted", s.redact(found), wanted)
	case f.role == "any":
		return x.healthy("Logged in and quit")
	default:
		r = x.healthy(f.text + "; logged in and quit")
	}
	r.Fields = append([]ResultField{{"role", f.role}, {"wanted", wanted}}, f.fields...)
	return r
}

// settings returns the rows of a SHOW statement by name. what names them if there is none.
func (s *mysqlSession) settings(what, statement string) (map[string]string, error) {
	rows, err := s.rows(statement)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, malformed("no %s", what)
	}
	found := map[string]string{}
	for _, row := range rows {
		found[strings.ToLower(row["variable_name"])] = row["value"]
	}
	return found, nil
}

// isOff reports whether a variable is off, or does not exist. All other values count as on.
func isOff(variables map[string]string, name string) bool {
	v, ok := variables[name]
	return !ok || v == "OFF" || v == "0"
}

// mysqlWritable returns the finding of the role primary.
func mysqlWritable(variables map[string]string) mysqlFinding {
	f := mysqlFinding{role: "primary", text: "primary"}
	for _, name := range []string{"read_only", "super_read_only", "innodb_read_only", "offline_mode"} {
		f.add(isOff(variables, name), "%s is %s", name, excerpt(variables[name], 20))
	}
	_, known := variables["read_only"] // every server has it
	f.add(known, "read_only is not known")
	if len(f.problems) > 0 {
		f.role, f.text = "read-only", ""
	}
	f.fields = []ResultField{{"read_only", len(f.problems) > 0}}
	return f
}

// usesGalera reports whether the server runs in a Galera cluster. MariaDB has the variables of wsrep without one; Percona
// XtraDB Cluster has no global wsrep_on.
func usesGalera(variables map[string]string) bool {
	provider := variables["wsrep_provider"]
	on, known := variables["wsrep_on"]
	return provider != "" && provider != "none" && (!known || on != "OFF" && on != "0")
}

// addGaleraReady adds a problem unless the Galera node takes queries. One without quorum answers SELECT 1 and is not
// read-only, but fails all queries with tables (error 1047).
func (s *mysqlSession) addGaleraReady(f *mysqlFinding) error {
	status, err := s.settings("status of wsrep", mysqlGaleraStatus)
	if err != nil {
		return err
	}
	f.add(status["wsrep_ready"] == "ON", "the Galera node is not ready (wsrep_ready is %s, wsrep_cluster_status is %s)",
		excerpt(status["wsrep_ready"], 20), excerpt(status["wsrep_cluster_status"], 20))
	return nil
}

// galera returns the finding of the role galera.
func (s *mysqlSession) galera(variables map[string]string) (mysqlFinding, error) {
	if !usesGalera(variables) {
		return mysqlFinding{role: "no-galera", problems: []string{"no Galera node, the server runs without wsrep"}}, nil
	}
	status, err := s.settings("status of wsrep", mysqlGaleraStatus)
	if err != nil {
		return mysqlFinding{}, err
	}
	const donor, synced = "2", "4"
	state, comment := status["wsrep_local_state"], excerpt(status["wsrep_local_state_comment"], 40)
	f := mysqlFinding{role: "galera", text: "Galera node " + comment, fields: []ResultField{
		{"state", comment}, {"cluster_status", excerpt(status["wsrep_cluster_status"], 40)}, {"cluster_size", excerpt(status["wsrep_cluster_size"], 10)},
	}}
	for _, name := range []string{"wsrep_connected", "wsrep_ready"} {
		f.add(status[name] == "ON", "%s is %s", name, excerpt(status[name], 20))
	}
	f.add(status["wsrep_cluster_status"] == "Primary", "wsrep_cluster_status is %s", excerpt(status["wsrep_cluster_status"], 20))
	f.add(state == synced || state == donor && s.role.donorOK, "it is not synced")
	reject, known := variables["wsrep_reject_queries"]
	f.add(!known || reject == "NONE", "wsrep_reject_queries is %s", excerpt(reject, 20))
	maintenance, known := variables["pxc_maint_mode"]
	f.add(!known || maintenance == "DISABLED", "pxc_maint_mode is %s", excerpt(maintenance, 20))
	if s.role.writable {
		f.problems = append(f.problems, mysqlWritable(variables).problems...)
	}
	return f, nil
}

// mysqlGroupMembers asks for the members of the replication group, as this one sees them.
const mysqlGroupMembers = "SELECT * FROM performance_schema.replication_group_members"

// group returns the finding of the roles group and group-primary.
func (s *mysqlSession) group(variables map[string]string) (mysqlFinding, error) {
	if isMariaDB(variables) {
		return mysqlFinding{role: "no-group", problems: []string{"no group member, MariaDB has no group replication"}}, nil
	}
	s.w.grant = "; GRANT SELECT ON performance_schema.replication_group_members TO the user of the check"
	members, err := s.rows(mysqlGroupMembers)
	if err != nil {
		return mysqlFinding{}, err
	}
	own := slices.IndexFunc(members, func(m mysqlRow) bool { return m["member_id"] != "" && m["member_id"] == variables["server_uuid"] })
	if own < 0 {
		return mysqlFinding{role: "no-group", problems: []string{"no group member, group replication does not run"}}, nil
	}
	unreachable := 0
	for _, m := range members {
		if m["member_state"] == "UNREACHABLE" {
			unreachable++
		}
	}
	state, role := excerpt(members[own]["member_state"], 20), excerpt(members[own]["member_role"], 20)
	f := mysqlFinding{role: strings.TrimSuffix("group-"+strings.ToLower(role), "-"), fields: []ResultField{
		{"state", state}, {"members", int64(len(members))}, {"unreachable", int64(unreachable)},
	}}
	f.text = strings.TrimSpace("group member " + state + " " + role)
	f.add(state == "ONLINE", "it is not ONLINE")
	f.add(2*unreachable < len(members), "%d of %d members are unreachable", unreachable, len(members))
	if s.role.name == "group-primary" {
		f.add(role == "PRIMARY", "it is not PRIMARY")
	}
	return f, nil
}
