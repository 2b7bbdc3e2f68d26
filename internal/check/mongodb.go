package check

import (
	"crypto/md5" //nolint:gosec // the protocol's
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
	"github.com/xdg-go/stringprep"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// maxSCRAMRounds is how often a server may have the password hashed: half a second of computing time. MongoDB's default
// is 15,000 (scramSHA256IterationCount).
const maxSCRAMRounds = 1_000_000

// mongodbType is the configured check: log in if there is a user name, and list the collections of the database, as
// conn-check does. A ping proves less, because a server answers it without a login.
//
// It uses the parts of mongo-driver that read and write documents, and the login of xdg-go/scram, under messages of its
// own (mongomessage.go). The driver itself monitors servers in the background over connections of its own, also in direct
// mode, and has no way to use one connection alone.
var mongodbType = Type{
	Name:    "mongodb",
	Aliases: []string{"mongo"},
	Doc:     "a MongoDB server lists a database's collections, after a login if there is one, and has the role if one is wanted",
	Options: slices.Concat([]Option{
		hostOption,
		portOption(27017),
		usernameOption,
		passwordOption,
		{Name: "database", Want: "a database name without control characters", Default: "test", Doc: "the database whose collections are asked for"},
		{Name: "auth_database", Want: "a database name without control characters", Default: "admin", Doc: "the database that knows the user (authSource)"},
	}, tlsOptions("false"), roleOptions(mongoRoles)),
	Roles: mongoRoles,
	build: func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
		m := mongoLogin{
			login: o.login(d, 27017, 27017), database: o.plainText("database", "test"), authDatabase: o.plainText("auth_database", "admin"),
			role: o.role(), sources: d.sources(),
		}
		last := "connect"
		if m.username != "" {
			last = "connect with auth"
		}
		o.requireBoth(m.login)
		return m.newConfigured("mongodb", "mongodb:"+m.addr()+":", last, m.check), nil
	},
}

// mongoLogin is a login, the database whose collections are listed, and the wanted role.
type mongoLogin struct {
	login
	database, authDatabase string

	role    wantedRole
	sources *Sources
}

// check asks for the role, logs in and lists the collections.
func (m mongoLogin) check(x *exchange) Result {
	c := &mongoConn{x: x}
	var hello bson.Raw
	if wantsRole := m.role.name != mongoRoles[0].Name; wantsRole || m.username != "" {
		var err error
		if hello, err = m.hello(c); err != nil {
			return x.loginError("MongoDB", err, m.redact)
		}
	}
	var found Result
	if m.role.name != mongoRoles[0].Name {
		if found = m.checkRole(x, hello); found.Code != 200 {
			return found
		}
	}
	res := m.listCollections(c, hello)
	res.Fields = found.Fields
	if res.Code == 200 && found.Body != nil {
		res.Body = found.Body
	}
	return res
}

// hello asks the server what it is, and for the mechanisms of the user if there is one. It uses isMaster, the name that
// all versions of the server know.
func (m mongoLogin) hello(c *mongoConn) (bson.Raw, error) {
	command := bson.D{element("isMaster", 1), element("helloOk", true)}
	if m.username != "" {
		command = append(command, element("saslSupportedMechs", m.authDatabase+"."+m.username))
	}
	return c.run("admin", command)
}

// listCollections logs in if there is a user name, and lists the collections of the database. The filter matches none,
// so that the reply is short and no cursor stays open. Secondaries may answer.
func (m mongoLogin) listCollections(c *mongoConn, hello bson.Raw) Result {
	done := "Listed collections"
	if m.username != "" {
		if err := m.authenticate(c, hello); err != nil {
			return c.x.loginError("MongoDB", err, m.redact)
		}
		done = "Logged in and listed collections"
	}
	_, err := c.run(m.database, bson.D{
		element("listCollections", 1), element("filter", bson.D{element("name", "hacheck")}), element("nameOnly", true),
		element("cursor", bson.D{}), element("$readPreference", bson.D{element("mode", "primaryPreferred")}),
	})
	if err == nil {
		return c.x.healthy(done)
	}
	res := c.x.loginError("MongoDB", err, m.redact)
	var refused serverError
	if errors.As(err, &refused) && refused.code == mongoUnauthorized {
		hint := " (no username is configured)"
		if m.username != "" {
			hint = " (grant the role read on the database " + excerpt(m.database, 60) + ")"
		}
		res.Body = append(res.Body, hint...)
	}
	return res
}

// authenticate logs in by SCRAM. The server proves that it knows the password too.
func (m mongoLogin) authenticate(c *mongoConn, hello bson.Raw) error {
	mechanism, client, err := m.scram(hello)
	if err != nil {
		return err
	}
	conversation := client.NewConversation()
	first, err := conversation.Step("")
	if err != nil {
		return err
	}
	reply, err := c.run(m.authDatabase, bson.D{
		element("saslStart", 1), element("mechanism", mechanism), element("payload", bson.Binary{Data: []byte(first)}),
		element("options", bson.D{element("skipEmptyExchange", true)}),
	})
	if err != nil {
		return err
	}
	payload := mongoPayload(reply)
	if err := boundSCRAM(payload); err != nil {
		return err
	}
	final, err := conversation.Step(payload)
	if err != nil {
		return malformed("an invalid SCRAM message") // the library's error contains the server's text
	}
	id, _ := reply.Lookup("conversationId").AsInt64OK()
	next := func(payload string) error {
		reply, err = c.run(m.authDatabase, bson.D{
			element("saslContinue", 1), element("conversationId", int32(id)), element("payload", bson.Binary{Data: []byte(payload)}),
		})
		return err
	}
	if err := next(final); err != nil {
		return err
	}
	if _, err := conversation.Step(mongoPayload(reply)); err != nil || !conversation.Valid() {
		return errServerUnverified
	}
	if !isTrue(reply.Lookup("done")) { // servers before 4.4 expect another, empty message
		if err := next(""); err != nil {
			return err
		}
	}
	if !isTrue(reply.Lookup("done")) {
		return malformed("a login without an end")
	}
	return nil
}

// scram returns the mechanism of the login. A server that does not know the user offers nothing, and refuses the login
// with its own error.
func (m mongoLogin) scram(hello bson.Raw) (mechanism string, client *scram.Client, err error) {
	password := string(m.password)
	offered, _ := hello.Lookup("saslSupportedMechs").ArrayOK()
	mechanisms, err := offered.Values()
	if err == nil && slices.ContainsFunc(mechanisms, func(v bson.RawValue) bool { s, _ := v.StringValueOK(); return s == "SCRAM-SHA-256" }) {
		if prepared, err := stringprep.SASLprep.Prepare(password); err == nil { // else as it is, as the server does
			password = prepared
		}
		client, err = scram.SHA256.NewClientUnprepped(m.username, password, "")
		return "SCRAM-SHA-256", client, err
	}
	sum := md5.Sum([]byte(m.username + ":mongo:" + password)) //nolint:gosec // the protocol's
	client, err = scram.SHA1.NewClientUnprepped(m.username, hex.EncodeToString(sum[:]), "")
	return "SCRAM-SHA-1", client, err
}

// boundSCRAM returns an error if the server's first message asks for more rounds than a check computes. The library
// computes as many as the server says, and cannot be stopped.
func boundSCRAM(serverFirst string) error {
	fields := strings.Split(serverFirst, ",")
	if len(fields) < 3 {
		return malformed("an invalid SCRAM message")
	}
	rounds, err := strconv.Atoi(strings.TrimPrefix(fields[2], "i="))
	if err != nil {
		return malformed("an invalid SCRAM iteration count")
	}
	if rounds > maxSCRAMRounds {
		return malformed("a login of %d rounds, more than %d", rounds, maxSCRAMRounds)
	}
	return nil
}
