package check

import (
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// minMongoLag is the shortest lag that a secondary can be asked for. The primary of an idle replica set writes every 10 s
// (periodicNoopIntervalSecs).
const minMongoLag = 10 * time.Second

var mongoRoles = []Role{
	{Name: "any", Doc: "it lists the collections of the database"},
	{Name: "primary", Doc: "the primary of a replica set"},
	{
		Name: "secondary", Params: []string{"lag", "alone"}, MinLag: minMongoLag,
		Doc: "a secondary that is not hidden, and whose priority is not 0",
	},
	{Name: "mongos", Doc: "the router of a sharded cluster"},
	{Name: "standalone", Doc: "a server without a replica set"},
}

// mongoRole returns what a server says that it is in its answer to hello
// (https://www.mongodb.com/docs/manual/reference/command/hello/).
func mongoRole(hello bson.Raw) string {
	is := func(name string) bool { return isTrue(hello.Lookup(name)) }
	message, _ := hello.Lookup("msg").StringValueOK()
	set, _ := hello.Lookup("setName").StringValueOK()
	writable := is("isWritablePrimary") || is("ismaster")
	switch {
	case message == "isdbgrid":
		return "mongos"
	case is("isreplicaset"):
		return "a member of a replica set that is not initiated"
	case set == "" && writable && !is("secondary"):
		return "standalone"
	case set == "":
		return "a server without the name of a replica set"
	case is("arbiterOnly"):
		return "arbiter"
	case writable && !is("secondary"):
		return "primary"
	case is("secondary") && !writable:
		return "secondary"
	}
	return "neither primary nor secondary (starting, recovering or rolling back)"
}

// checkRole returns a result with what the server says of itself; healthy if that is the wanted role.
func (m mongoLogin) checkRole(x *exchange, hello bson.Raw) (res Result) {
	found, problem := mongoRole(hello), ""
	fields := []ResultField{{"role", found}, {"wanted", m.role.name}}
	switch {
	case found == "secondary":
		var more []ResultField
		found, problem, more = m.judgeSecondary(x, hello)
		fields = append(fields, more...)
		if m.role.name != "secondary" {
			problem = "; " + m.role.name + " wanted"
		}
	case found != m.role.name:
		problem = "; " + m.role.name + " wanted"
	}
	if problem == "" {
		return Result{Code: 200, Body: []byte(found), Fields: fields}
	}
	res = x.serviceError(503, "%s%s", found, problem)
	res.Fields = fields
	return res
}

// judgeSecondary returns a text with what is known of a secondary, and why it is not healthy, "" if it is.
//
// Its lag is the age of its last write by its own clock: localTime and lastWriteDate come in one answer. The date was set
// by the clock of the primary, so the clocks of the members must agree. The last write of the primary, which a driver
// compares it with, is not known here.
func (m mongoLogin) judgeSecondary(x *exchange, hello bson.Raw) (found, problem string, fields []ResultField) {
	found = "secondary"
	now, ok1 := hello.Lookup("localTime").TimeOK()
	written, ok2 := hello.Lookup("lastWrite", "lastWriteDate").TimeOK()
	lag := now.Sub(written)
	known := ok1 && ok2
	if known {
		found = fmt.Sprintf("secondary, %.1f s behind", max(0, lag.Seconds()))
		fields = append(fields, ResultField{"lag_seconds", lag.Seconds()})
	}
	primary, _ := hello.Lookup("primary").StringValueOK()
	fields = append(fields, ResultField{"has_primary", primary != ""})
	switch {
	case isTrue(hello.Lookup("hidden")):
		return found, ", but it is hidden", fields
	case isTrue(hello.Lookup("passive")):
		return found, ", but its priority is 0 (passive)", fields
	case primary == "":
		// Nothing is written while there is no primary, so all secondaries would be too far behind at once.
		alone := m.sources.alone(x.addr(), time.Now())
		found = fmt.Sprintf("%s, no primary for %s", found, alone.Round(time.Second))
		fields = append(fields, ResultField{"alone_seconds", int64(alone.Seconds())})
		if alone > m.role.alone {
			problem = fmt.Sprintf(", but only %s are allowed (alone)", m.role.alone)
		}
		return found, problem, fields
	case m.role.lag > 0 && !known:
		return found, ", but it does not say how far it is behind", fields
	case m.role.lag > 0 && lag < -m.role.lag:
		return found, fmt.Sprintf(", but its last write is %.1f s in the future: the clocks of the members differ", -lag.Seconds()), fields
	case m.role.lag > 0 && lag > m.role.lag:
		return found, fmt.Sprintf(", but only %s are allowed (lag)", m.role.lag), fields
	}
	m.sources.connected(x.addr(), time.Now())
	return found, "", fields
}
