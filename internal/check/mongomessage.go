package check

import (
	"encoding/binary"
	"fmt"
	"io"

	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	// mongoOpMsg is the opcode OP_MSG of MongoDB's wire protocol, supported since 3.6, see
	// https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/.
	mongoOpMsg = 2013
	// maxMongoReply is the longest reply that is read, in bytes. That of a login has about a hundred, that of hello up to
	// 6,000 in a replica set of 50 members.
	maxMongoReply = 64 << 10
	// mongoUnauthorized is the error of a user without the privilege, and of a client without a login.
	mongoUnauthorized = "MongoDB error 13"
)

// mongoConn sends commands and reads replies. A message is a header of four numbers (length, request id, id of the
// request that it answers, opcode), flags (4 bytes), the kind of section (1), a document.
type mongoConn struct {
	x       *exchange
	request uint32 // id of the last request
}

// element returns an element of a document.
func element(name string, value any) bson.E { return bson.E{Key: name, Value: value} }

// run runs a command on a database. It returns a reply that is not ok as a serverError.
func (c *mongoConn) run(database string, command bson.D) (bson.Raw, error) {
	document, err := bson.Marshal(append(command, element("$db", database)))
	if err != nil {
		return nil, err
	}
	c.x.phase = phaseWait
	c.request++
	var message []byte
	for _, n := range []uint32{uint32(16 + 5 + len(document)), c.request, 0, mongoOpMsg, 0} {
		message = binary.LittleEndian.AppendUint32(message, n)
	}
	if err := c.x.send(append(append(message, 0), document...)); err != nil {
		return nil, err
	}
	reply, err := c.read()
	if err != nil {
		return nil, err
	}
	ok, err := reply.LookupErr("ok")
	if err != nil {
		return nil, malformed("a reply that does not say whether it is ok")
	}
	if !isTrue(ok) {
		code, _ := reply.Lookup("code").AsInt64OK()
		text, _ := reply.Lookup("errmsg").StringValueOK()
		return nil, serverError{fmt.Sprintf("MongoDB error %d", code), text}
	}
	return reply, nil
}

// read reads the reply to the last request.
func (c *mongoConn) read() (bson.Raw, error) {
	head := make([]byte, 16)
	// The length identifies most other protocols, whose server may never send a whole header.
	if _, err := io.ReadFull(c.x.conn, head[:4]); err != nil {
		return nil, err
	}
	c.x.phase = phaseRead
	size := binary.LittleEndian.Uint32(head)
	if size < 16+5+5 || size > maxMongoReply {
		return nil, malformed("a message of %d bytes", size)
	}
	if _, err := io.ReadFull(c.x.conn, head[4:]); err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint32(head[8:]) != c.request || binary.LittleEndian.Uint32(head[12:]) != mongoOpMsg {
		return nil, malformed("a message that answers none of ours")
	}
	body := make([]byte, size-16)
	if _, err := io.ReadFull(c.x.conn, body); err != nil {
		return nil, err
	}
	if body[4] != 0 {
		return nil, malformed("a message without a document")
	}
	reply := bson.Raw(body[5:])
	if reply.Validate() != nil {
		return nil, malformed("an invalid BSON document")
	}
	return reply, nil
}

// isTrue reports whether v is true or 1.
func isTrue(v bson.RawValue) bool {
	if yes, ok := v.BooleanOK(); ok {
		return yes
	}
	n, ok := v.AsFloat64OK()
	return ok && n == 1
}

// mongoPayload returns the message of the login in a reply, "" if there is none.
func mongoPayload(reply bson.Raw) string {
	_, data, _ := reply.Lookup("payload").BinaryOK()
	return string(data)
}
