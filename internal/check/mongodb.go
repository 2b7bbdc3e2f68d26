package check

import (
	"crypto/md5"  //nolint:gosec // the protocol's
	"crypto/sha1" //nolint:gosec // the protocol's
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"slices"
)

const (
	// mongoOpMsg is the opcode OP_MSG of MongoDB's wire protocol, supported since 3.6, see
	// https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/.
	mongoOpMsg = 2013
	// maxMongoReply is the longest reply that is read, in bytes. A reply of a login has about a hundred.
	maxMongoReply = 64 << 10
)

// mongodbType is the configured check: log in if there is a user name, and list the collections of the database, as
// conn-check does. A ping proves less, because a server answers it without a login.
//
// It does not use mongo-driver, which monitors servers in the background over connections of its own. It would link
// three times the code of all other checks.
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
	build: func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
		m := mongoLogin{o.login(d, 27017, 27017), o.plainText("database", "test"), o.plainText("auth_database", "admin")}
		last := "connect"
		if m.username != "" {
			last = "connect with auth"
		}
		if (m.username == "") != (m.password == "") {
			o.addError("username", "a user name and a password need each other")
		}
		return m.newConfigured("mongodb", "mongodb:"+m.addr()+":", last, m.check), nil
	},
}

// mongoLogin is a login and the database whose collections are listed.
type mongoLogin struct {
	login
	database, authDatabase string
}

func (m mongoLogin) check(x *exchange) Result {
	c := &mongoConn{x: x}
	done := "Listed collections"
	if m.username != "" {
		if err := m.authenticate(c); err != nil {
			return x.loginError("MongoDB", err, m.redact)
		}
		done = "Logged in and listed collections"
	}
	// The filter matches no collection, so that the reply is short and no cursor stays open. Secondaries may answer.
	_, err := c.run(m.database,
		bsonInt("listCollections", 1),
		bsonEmbedded("filter", bsonString("name", "hacheck")),
		bsonTrue("nameOnly"),
		bsonEmbedded("cursor"),
		bsonEmbedded("$readPreference", bsonString("mode", "primaryPreferred")))
	if err != nil {
		return x.loginError("MongoDB", err, m.redact)
	}
	return x.healthy(done)
}

// authenticate logs in by SCRAM. It asks the server for the user's mechanisms with isMaster, the name that all
// versions of the server know.
func (m mongoLogin) authenticate(c *mongoConn) error {
	reply, err := c.run("admin", bsonInt("isMaster", 1), bsonString("saslSupportedMechs", m.authDatabase+"."+m.username))
	if err != nil {
		return err
	}
	mechanism := "SCRAM-SHA-256"
	s := newSCRAM(sha256.New, m.username, saslPrep(string(m.password)))
	if !slices.Contains(reply.mechanisms, mechanism) {
		// A server that does not know the user offers nothing and refuses this login with its own error.
		mechanism = "SCRAM-SHA-1"
		sum := md5.Sum([]byte(m.username + ":mongo:" + string(m.password))) //nolint:gosec // the protocol's
		s = newSCRAM(sha1.New, m.username, hex.EncodeToString(sum[:]))
	}
	reply, err = c.run(m.authDatabase,
		bsonInt("saslStart", 1), bsonString("mechanism", mechanism), bsonBinary("payload", s.clientFirst()),
		bsonEmbedded("options", bsonTrue("skipEmptyExchange")))
	if err != nil {
		return err
	}
	conversation := reply.conversation
	final, err := s.clientFinal(c.x.ctx, string(reply.payload))
	if err != nil {
		return err
	}
	next := func(payload string) error {
		reply, err = c.run(m.authDatabase, bsonInt("saslContinue", 1), bsonInt("conversationId", conversation), bsonBinary("payload", payload))
		return err
	}
	if err := next(final); err != nil {
		return err
	}
	if err := s.verifyServerFinal(string(reply.payload)); err != nil {
		return err
	}
	if !reply.done { // servers before 4.4 expect another, empty message
		if err := next(""); err != nil {
			return err
		}
	}
	if !reply.done {
		return malformed("a login without an end")
	}
	return nil
}

// mongoConn sends commands and reads replies. A message is a header of four numbers (length, request id, id of the
// request that it answers, opcode), flags (4 bytes), the kind of section (1), a document.
type mongoConn struct {
	x       *exchange
	request uint32 // id of the last request
}

// run runs a command on a database. It returns a reply that is not ok as a serverError.
func (c *mongoConn) run(database string, command ...[]byte) (mongoReply, error) {
	c.x.phase = phaseWait
	c.request++
	document := bsonDocument(append(command, bsonString("$db", database))...)
	var message []byte
	for _, n := range []uint32{uint32(16 + 5 + len(document)), c.request, 0, mongoOpMsg, 0} {
		message = binary.LittleEndian.AppendUint32(message, n)
	}
	if err := c.x.send(append(append(message, 0), document...)); err != nil {
		return mongoReply{}, err
	}
	head := make([]byte, 16)
	// The length identifies most other protocols, whose server may never send a whole header.
	if _, err := io.ReadFull(c.x.conn, head[:4]); err != nil {
		return mongoReply{}, err
	}
	c.x.phase = phaseRead
	size := binary.LittleEndian.Uint32(head)
	if size < 16+5+5 || size > maxMongoReply {
		return mongoReply{}, malformed("a message of %d bytes", size)
	}
	if _, err := io.ReadFull(c.x.conn, head[4:]); err != nil {
		return mongoReply{}, err
	}
	if binary.LittleEndian.Uint32(head[8:]) != c.request || binary.LittleEndian.Uint32(head[12:]) != mongoOpMsg {
		return mongoReply{}, malformed("a message that answers none of ours")
	}
	body := make([]byte, size-16)
	if _, err := io.ReadFull(c.x.conn, body); err != nil {
		return mongoReply{}, err
	}
	if body[4] != 0 {
		return mongoReply{}, malformed("a message without a document")
	}
	reply, err := parseMongoReply(body[5:])
	switch {
	case err != nil:
		return mongoReply{}, err
	case !reply.ok:
		return mongoReply{}, serverError{fmt.Sprintf("MongoDB error %d", reply.code), reply.errmsg}
	}
	return reply, nil
}

// mongoReply holds the fields of a reply that a check uses.
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
			// An error in the array is ignored: the mechanisms after it count as not offered.
			_ = eachBSON(value, func(kind byte, _ string, value []byte) {
				if kind == bsonKindString {
					r.mechanisms = append(r.mechanisms, string(value))
				}
			})
		}
	})
	if err == nil && !found {
		err = malformed("a reply that does not say whether it is ok")
	}
	return r, err
}

// The kinds of BSON elements (https://bsonspec.org/spec.html) that a check writes or reads.
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

// bsonSize returns the length of the values of a kind, false for a kind without a fixed length.
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

const errBSON = malformedError("an invalid BSON document")

// eachBSON calls visit for each element of a document. value is the text of a string, the data of a binary, a document
// or array as a whole, and the encoded value of any other kind.
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
			return malformed("an element of kind %#02x", kind)
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

// bsonNumber returns a number, or 0 or 1 for a boolean. It returns 0 for any other kind.
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

func bsonEmbedded(name string, elements ...[]byte) []byte {
	return bsonElement(bsonKindDocument, name, bsonDocument(elements...))
}

func bsonDocument(elements ...[]byte) []byte {
	b := slices.Concat(elements...)
	return append(append(binary.LittleEndian.AppendUint32(nil, uint32(4+len(b)+1)), b...), 0)
}
