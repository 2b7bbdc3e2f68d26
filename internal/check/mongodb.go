package check

import (
	"context"
	"crypto/md5"  //nolint:gosec // the protocol's
	"crypto/sha1" //nolint:gosec // the protocol's
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

const (
	// mongoOpMsg is the one opcode that is left in MongoDB's wire protocol
	// (https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/), spoken since 3.6.
	mongoOpMsg = 2013
	// maxMongoReply is the longest reply that is read, in bytes. Those of a login have some hundred.
	maxMongoReply = 64 << 10
)

// mongodbType is the configured check of the same name: log in if there is a user name, and ask the
// database for its collections, as conn-check does. A ping would be answered to anybody.
//
// It is not mongo-driver, which watches servers in the background with connections of its own, and links
// three times the code of everything else here.
var mongodbType = Type{
	Name:    "mongodb",
	Aliases: []string{"mongo"},
	Doc:     "a MongoDB server lists a database's collections, after a login if there is one",
	Options: append([]Option{
		hostOption,
		portOption(27017),
		usernameOption,
		passwordOption,
		{Name: "database", Want: "a database name without control characters", Default: "test", Doc: "the database whose collections are asked for"},
		{Name: "auth_database", Want: "a database name without control characters", Default: "admin", Doc: "the database that knows the user (authSource)"},
	}, tlsOptions("false")...),
	build: func(o *values, d Defaults) (*Configured, error) {
		m := mongoLogin{o.login(d, 27017, 27017), o.plainText("database", "test"), o.plainText("auth_database", "admin")}
		last := "connect"
		if m.username != "" {
			last = "connect with auth"
		}
		if (m.username == "") != (m.password == "") {
			o.wrong("username", "a user name and a password need each other")
		}
		return m.newConfigured("mongodb", "mongodb:"+m.addr()+":", last, m.check), nil
	},
}

// mongoLogin is who logs in, where, and what they ask for.
type mongoLogin struct {
	login
	database, authDatabase string
}

func (m mongoLogin) check(ctx context.Context, t Target) Result {
	return m.ask(ctx, t, func(x *exchange) Result {
		err := m.session(&mongoConn{x: x})
		var refused mongoRefusal
		var wrong malformedError
		switch {
		case err == nil && m.username != "":
			return x.healthy("Logged in and listed collections")
		case err == nil:
			return x.healthy("Listed collections")
		case errors.As(err, &refused):
			return x.failed(500, "MongoDB error %d: %s", refused.code, m.redact(refused.text))
		case errors.Is(err, errServerUnverified):
			return x.failed(500, "%s lets us in, but %s", x.addr(), err)
		case errors.As(err, &wrong):
			return x.protocol("The answer of %s is not MongoDB: %s", x.addr(), string(wrong))
		}
		return x.fail(err)
	})
}

func (m mongoLogin) session(c *mongoConn) error {
	if m.username != "" {
		if err := m.authenticate(c); err != nil {
			return err
		}
	}
	// A name that no collection has keeps the answer short and no cursor open. Secondaries answer as well.
	_, err := c.run(m.database, bsonDocument(
		bsonInt("listCollections", 1),
		bsonEmbedded("filter", bsonDocument(bsonString("name", "hacheck"))),
		bsonTrue("nameOnly"),
		bsonEmbedded("cursor", bsonDocument()),
		bsonEmbedded("$readPreference", bsonDocument(bsonString("mode", "primaryPreferred"))),
	))
	return err
}

// authenticate logs in by SCRAM. The server is asked which kinds of it the user has, by the name that the
// command has in all versions.
func (m mongoLogin) authenticate(c *mongoConn) error {
	reply, err := c.run("admin", bsonDocument(bsonInt("isMaster", 1), bsonString("saslSupportedMechs", m.authDatabase+"."+m.username)))
	if err != nil {
		return err
	}
	mechanism := "SCRAM-SHA-256"
	s := newSCRAM(sha256.New, m.username, saslPrep(string(m.password)))
	if !slices.Contains(reply.mechanisms, mechanism) {
		// Also for a user whom the server does not know; it then refuses the login in its own words.
		mechanism = "SCRAM-SHA-1"
		sum := md5.Sum([]byte(m.username + ":mongo:" + string(m.password))) //nolint:gosec // the protocol's
		s = newSCRAM(sha1.New, m.username, hex.EncodeToString(sum[:]))
	}
	reply, err = c.run(m.authDatabase, bsonDocument(
		bsonInt("saslStart", 1), bsonString("mechanism", mechanism), bsonBinary("payload", s.clientFirst()),
		bsonEmbedded("options", bsonDocument(bsonTrue("skipEmptyExchange"))),
	))
	if err != nil {
		return err
	}
	conversation := reply.conversation
	final, err := s.clientFinal(c.x.ctx, string(reply.payload))
	if err != nil {
		return err
	}
	next := func(payload string) error {
		reply, err = c.run(m.authDatabase, bsonDocument(bsonInt("saslContinue", 1), bsonInt("conversationId", conversation), bsonBinary("payload", payload)))
		return err
	}
	if err := next(final); err != nil {
		return err
	}
	if err := s.verifyServerFinal(string(reply.payload)); err != nil {
		return err
	}
	if !reply.done { // servers before 4.4 want an empty message more
		if err := next(""); err != nil {
			return err
		}
	}
	if !reply.done {
		return malformedError("a login without an end")
	}
	return nil
}

// mongoRefusal is an error of the server.
type mongoRefusal struct {
	code int32
	text string
}

func (e mongoRefusal) Error() string { return fmt.Sprintf("error %d: %s", e.code, e.text) }

// mongoConn asks and is answered: a header of four numbers (length, request, request that is answered,
// opcode), flags (4), the kind of section (1), a document.
type mongoConn struct {
	x       *exchange
	request uint32
}

// run runs a command on a database. A reply that is not ok is returned as an error.
func (c *mongoConn) run(database string, command []byte) (mongoReply, error) {
	c.x.phase = phaseWait
	c.request++
	// $db goes in before the 0 that ends the document.
	command = append(append(command[4:len(command)-1:len(command)-1], bsonString("$db", database)...), 0)
	message := make([]byte, 0, 16+5+4+len(command))
	for _, n := range []uint32{uint32(16 + 5 + 4 + len(command)), c.request, 0, mongoOpMsg, 0} {
		message = binary.LittleEndian.AppendUint32(message, n)
	}
	message = append(message, 0)
	message = binary.LittleEndian.AppendUint32(message, uint32(4+len(command)))
	if _, err := c.x.conn.Write(append(message, command...)); err != nil && c.x.ctx.Err() != nil {
		return mongoReply{}, err
	}
	head := make([]byte, 16)
	// The length alone tells most other protocols, which may never send all of a header.
	if _, err := io.ReadFull(c.x.conn, head[:4]); err != nil {
		return mongoReply{}, err
	}
	c.x.phase = phaseRead
	size := binary.LittleEndian.Uint32(head)
	if size < 16+5+5 || size > maxMongoReply {
		return mongoReply{}, malformedError(fmt.Sprintf("a message of %d bytes", size))
	}
	if _, err := io.ReadFull(c.x.conn, head[4:]); err != nil {
		return mongoReply{}, err
	}
	if binary.LittleEndian.Uint32(head[8:]) != c.request || binary.LittleEndian.Uint32(head[12:]) != mongoOpMsg {
		return mongoReply{}, malformedError("a message that answers none of ours")
	}
	body := make([]byte, size-16)
	if _, err := io.ReadFull(c.x.conn, body); err != nil {
		return mongoReply{}, err
	}
	if body[4] != 0 {
		return mongoReply{}, malformedError("a message without a document")
	}
	reply, err := parseMongoReply(body[5:])
	switch {
	case err != nil:
		return mongoReply{}, err
	case !reply.ok:
		return mongoReply{}, mongoRefusal{reply.code, reply.errmsg}
	}
	return reply, nil
}

// mongoReply is what a check looks at in a reply.
type mongoReply struct {
	ok           bool
	code         int32
	errmsg       string
	conversation int32
	payload      []byte
	done         bool
	mechanisms   []string
}

func parseMongoReply(document []byte) (mongoReply, error) {
	var r mongoReply
	found := false
	err := eachBSON(document, func(kind byte, name string, value []byte) {
		switch {
		case name == "ok":
			found, r.ok = true, bsonNumber(kind, value) == 1
		case name == "code":
			r.code = int32(bsonNumber(kind, value))
		case name == "errmsg" && kind == bsonKindString:
			r.errmsg = string(value)
		case name == "conversationId":
			r.conversation = int32(bsonNumber(kind, value))
		case name == "payload" && kind == bsonKindBinary:
			r.payload = value
		case name == "done":
			r.done = bsonNumber(kind, value) == 1
		case name == "saslSupportedMechs" && kind == bsonKindArray:
			// Its own errors do not matter: what is not found is not offered.
			_ = eachBSON(value, func(kind byte, _ string, value []byte) {
				if kind == bsonKindString {
					r.mechanisms = append(r.mechanisms, string(value))
				}
			})
		}
	})
	if err == nil && !found {
		err = malformedError("a reply that does not say whether it is ok")
	}
	return r, err
}

// The kinds of BSON's elements (https://bsonspec.org/spec.html) that are written or looked at here.
const (
	bsonKindDouble   = 0x01
	bsonKindString   = 0x02
	bsonKindDocument = 0x03
	bsonKindArray    = 0x04
	bsonKindBinary   = 0x05
	bsonKindBool     = 0x08
	bsonKindInt32    = 0x10
	bsonKindInt64    = 0x12
)

// bsonSize is the length of a value whose kind has always the same one.
func bsonSize(kind byte) (int, bool) {
	switch kind {
	case 0x06, 0x0a, 0x7f, 0xff: // undefined, null, max key, min key
		return 0, true
	case bsonKindBool:
		return 1, true
	case bsonKindInt32:
		return 4, true
	case bsonKindDouble, bsonKindInt64, 0x09, 0x11: // date, timestamp
		return 8, true
	case 0x07: // object id
		return 12, true
	case 0x13: // decimal
		return 16, true
	}
	return 0, false
}

const errBSON = malformedError("a document that is none")

// eachBSON calls visit for each element of a document: with the text of a string, the bytes of a binary, the
// document of a document or an array, and what is there for everything else.
func eachBSON(document []byte, visit func(kind byte, name string, value []byte)) error {
	if len(document) < 5 {
		return errBSON
	}
	size := binary.LittleEndian.Uint32(document)
	if size < 5 || uint64(size) > uint64(len(document)) || document[size-1] != 0 {
		return errBSON
	}
	b := document[4 : size-1]
	for len(b) > 0 {
		kind := b[0]
		end := slices.Index(b[1:], 0)
		if end < 0 {
			return errBSON
		}
		name := string(b[1 : 1+end])
		b = b[1+end+1:]
		n, fixed := bsonSize(kind)
		skip := 0
		switch {
		case fixed:
		case len(b) < 4:
			return errBSON
		case kind == bsonKindString:
			skip, n = 4, int(int32(binary.LittleEndian.Uint32(b)))
		case kind == bsonKindBinary: // and a subtype
			skip, n = 5, int(int32(binary.LittleEndian.Uint32(b)))
		case kind == bsonKindDocument, kind == bsonKindArray:
			n = int(int32(binary.LittleEndian.Uint32(b)))
		default:
			return malformedError(fmt.Sprintf("an element of kind %#02x", kind))
		}
		if n < 0 || n > len(b)-skip || kind == bsonKindString && (n < 1 || b[skip+n-1] != 0) {
			return errBSON
		}
		value := b[skip : skip+n]
		b = b[skip+n:]
		if kind == bsonKindString {
			value = value[:n-1]
		}
		visit(kind, name, value)
	}
	return nil
}

// bsonNumber is a number or a boolean; anything else is 0.
func bsonNumber(kind byte, value []byte) float64 {
	switch kind {
	case bsonKindDouble:
		return math.Float64frombits(binary.LittleEndian.Uint64(value))
	case bsonKindBool:
		return float64(value[0])
	case bsonKindInt32:
		return float64(int32(binary.LittleEndian.Uint32(value)))
	case bsonKindInt64:
		return float64(int64(binary.LittleEndian.Uint64(value)))
	}
	return 0
}

func bsonElement(kind byte, name string, value []byte) []byte {
	return append(append(append([]byte{kind}, name...), 0), value...)
}

func bsonString(name, s string) []byte {
	value := binary.LittleEndian.AppendUint32(nil, uint32(len(s)+1))
	return bsonElement(bsonKindString, name, append(append(value, s...), 0))
}

func bsonBinary(name, s string) []byte {
	value := binary.LittleEndian.AppendUint32(nil, uint32(len(s)))
	return bsonElement(bsonKindBinary, name, append(append(value, 0), s...))
}

func bsonInt(name string, n int32) []byte {
	return bsonElement(bsonKindInt32, name, binary.LittleEndian.AppendUint32(nil, uint32(n)))
}

func bsonTrue(name string) []byte { return bsonElement(bsonKindBool, name, []byte{1}) }

func bsonEmbedded(name string, document []byte) []byte {
	return bsonElement(bsonKindDocument, name, document)
}

func bsonDocument(elements ...[]byte) []byte {
	b := slices.Concat(elements...)
	return append(append(binary.LittleEndian.AppendUint32(nil, uint32(4+len(b)+1)), b...), 0)
}
