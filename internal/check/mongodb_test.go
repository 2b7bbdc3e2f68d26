package check_test

import (
	"context"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"hacheck/internal/check"
	"hacheck/test/checktest"
	"hacheck/test/servertest"
)

// mongoServer is a fake MongoDB server that handles logins. TestFakeMongoServerWithDriver compares it with mongo-driver.
// It uses the bson package of that driver.
type mongoServer struct {
	mechanism  string // the user's
	unverified bool   // it accepts a login without knowing the password
	empty      bool   // it expects another, empty message, as before 4.4
	hello      bson.D // what it says of itself, nil for a server without a replica set
	first      string // the server's first message of the login, "" for a right one
}

// mongoMessage returns a message with a document.
func mongoMessage(answers uint32, document any) []byte {
	body, err := bson.Marshal(document)
	if err != nil {
		panic(err)
	}
	var m []byte
	for _, n := range []uint32{uint32(21 + len(body)), 7, answers, 2013, 0} {
		m = binary.LittleEndian.AppendUint32(m, n)
	}
	return append(append(m, 0), body...)
}

func mongoError(code int, text string) bson.D {
	return bson.D{{Key: "ok", Value: 0.0}, {Key: "errmsg", Value: text}, {Key: "code", Value: int32(code)}, {Key: "codeName", Value: "X"}}
}

// mongoPrimary is what a primary says of itself.
var mongoPrimary = bson.D{{Key: "setName", Value: "rs0"}, {Key: "isWritablePrimary", Value: true}, {Key: "secondary", Value: false}}

var mongoDenied = mongoError(18, "Authentication failed.")

func (s *mongoServer) serve(conn net.Conn) {
	loggedIn := false
	password := "s3cret"
	scram := &scramServer{hash: sha256Hash, unverified: s.unverified}
	if s.mechanism == "SCRAM-SHA-1" {
		scram.hash = sha1Hash
		sum := md5.Sum([]byte("operator:mongo:" + password))
		password = hex.EncodeToString(sum[:])
	}
	scram.password = password
	if s.unverified {
		scram.password = "another"
	}
	for {
		head, err := readFull(conn, 16)
		if err != nil {
			return
		}
		body, err := readFull(conn, int(binary.LittleEndian.Uint32(head))-16)
		if err != nil || len(body) < 5 {
			return
		}
		var command bson.D
		if err := bson.Unmarshal(body[5:], &command); err != nil || len(command) == 0 {
			return
		}
		field := func(name string) any {
			for _, e := range command {
				if e.Key == name {
					return e.Value
				}
			}
			return nil
		}
		payload, _ := field("payload").(bson.Binary)
		step := func(answer string, ok, done bool) bson.D {
			if !ok {
				return mongoDenied
			}
			return bson.D{
				{Key: "conversationId", Value: int32(3)},
				{Key: "done", Value: done},
				{Key: "payload", Value: bson.Binary{Data: []byte(answer)}},
				{Key: "ok", Value: 1.0},
			}
		}
		reply := mongoError(59, "no such command")
		switch command[0].Key {
		case "isMaster", "hello", "ismaster":
			reply = bson.D{
				{Key: "isWritablePrimary", Value: true},
				{Key: "ismaster", Value: true},
				{Key: "helloOk", Value: true},
				{Key: "maxBsonObjectSize", Value: int32(1 << 24)},
				{Key: "localTime", Value: time.Now()},
				{Key: "maxMessageSizeBytes", Value: int32(48000000)},
				{Key: "maxWriteBatchSize", Value: int32(1000)},
				{Key: "minWireVersion", Value: int32(0)},
				{Key: "maxWireVersion", Value: int32(21)},
				{Key: "id", Value: bson.NewObjectID()},
				{Key: "nothing", Value: nil},
				{Key: "long", Value: int64(1)},
				{Key: "time", Value: bson.Timestamp{T: 1}},
			}
			if s.hello != nil {
				reply = slices.Clone(s.hello)
			}
			if user, _ := field("saslSupportedMechs").(string); user == "admin.operator" {
				reply = append(reply, bson.E{Key: "saslSupportedMechs", Value: bson.A{s.mechanism}})
			}
			reply = append(reply, bson.E{Key: "ok", Value: 1.0})
		case "saslStart":
			if field("mechanism") != s.mechanism || !strings.Contains(string(payload.Data), "n=operator,") {
				reply = mongoDenied
				break
			}
			answer, ok := scram.first(string(payload.Data))
			if s.first != "" {
				answer = strings.Replace(s.first, "NONCE", scram.nonce, 1)
			}
			reply = step(answer, ok, false)
		case "saslContinue":
			if s.empty && loggedIn && len(payload.Data) == 0 {
				reply = step("", true, true)
				break
			}
			answer, ok := scram.final(string(payload.Data))
			loggedIn = ok
			reply = step(answer, ok && field("conversationId") == int32(3), !s.empty)
		case "listCollections":
			if !loggedIn {
				reply = mongoError(13, "Command listCollections requires authentication")
				break
			}
			reply = bson.D{
				{Key: "cursor", Value: bson.D{{Key: "id", Value: int64(0)}, {Key: "ns", Value: "test.$cmd.listCollections"}, {Key: "firstBatch", Value: bson.A{}}}},
				{Key: "ok", Value: 1.0},
			}
		case "endSessions":
			reply = bson.D{{Key: "ok", Value: 1.0}}
		}
		if _, err := conn.Write(mongoMessage(binary.LittleEndian.Uint32(head[4:]), reply)); err != nil {
			return
		}
	}
}

func mongoServers() map[string]*mongoServer {
	return map[string]*mongoServer{
		"SCRAM-SHA-256": {mechanism: "SCRAM-SHA-256"},
		"SCRAM-SHA-1":   {mechanism: "SCRAM-SHA-1"},
		"before 4.4":    {mechanism: "SCRAM-SHA-256", empty: true},
	}
}

func TestMongoLogins(t *testing.T) {
	for name, m := range mongoServers() {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, m.serve)
			r := buildAt(t, check.Defaults{}, "mongo", s.Host, s.Port, "username", "operator", "password", "s3cret").Check(t.Context(), check.Target{})
			if r.Code != 200 || !strings.HasPrefix(string(r.Body), "Logged in and listed collections in ") {
				t.Errorf("right: %d %s %v", r.Code, r.Body, r.Err)
			}
			for _, wrong := range [][]any{{"username", "operator", "password", "wr0ng"}, {"username", "nobody", "password", "s3cret"}} {
				r = buildAt(t, check.Defaults{}, "mongo", s.Host, s.Port, wrong...).Check(t.Context(), check.Target{})
				if want := "MongoDB error 18: Authentication failed."; r.Code != 500 || r.Reason != check.ReasonFailed || string(r.Body) != want {
					t.Errorf("wrong: %d %s %q, want %q", r.Code, r.Reason, r.Body, want)
				}
			}
			r = buildAt(t, check.Defaults{}, "mongo", s.Host, s.Port).Check(t.Context(), check.Target{})
			if want := "MongoDB error 13: Command listCollections requires authentication (no username is configured)"; string(r.Body) != want {
				t.Errorf("no login: %d %q, want %q", r.Code, r.Body, want)
			}
		})
	}
	liar := checktest.Serve(t, (&mongoServer{mechanism: "SCRAM-SHA-256", unverified: true}).serve)
	r := buildAt(t, check.Defaults{}, "mongodb", liar.Host, liar.Port, "username", "operator", "password", "s3cret").Check(t.Context(), check.Target{})
	if want := liar.Addr() + " lets us in, but it does not prove that it knows the password"; string(r.Body) != want {
		t.Errorf("a server without the password: %d %q, want %q", r.Code, r.Body, want)
	}
}

// TestFakeMongoServerWithDriver holds the fake server to mongo-driver.
func TestFakeMongoServerWithDriver(t *testing.T) {
	for name, m := range mongoServers() {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, m.serve)
			connect := func(password string) error {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				client, err := mongo.Connect(options.Client().SetHosts([]string{s.Addr()}).SetDirect(true).
					SetServerAPIOptions(options.ServerAPI(options.ServerAPIVersion1)).
					SetAuth(options.Credential{Username: "operator", Password: password, AuthSource: "admin", AuthMechanism: m.mechanism}))
				if err != nil {
					return err
				}
				defer client.Disconnect(context.WithoutCancel(ctx))
				_, err = client.Database("test").ListCollectionNames(ctx, bson.D{})
				return err
			}
			if err := connect("s3cret"); err != nil {
				t.Errorf("right: %v", err)
			}
			if err := connect("wr0ng"); err == nil {
				t.Error("let in with a wrong password")
			}
		})
	}
}

func TestMongoAnswers(t *testing.T) {
	ok := bson.D{{Key: "ok", Value: 1.0}}
	raw := func(document string) string {
		m := mongoMessage(1, ok)[:21]
		binary.LittleEndian.PutUint32(m, uint32(21+len(document)))
		return string(m) + document
	}
	not := "The answer of ADDR is not MongoDB: "
	for name, c := range map[string]struct {
		answer string
		code   int
		body   string // ADDR is replaced by the server's address
	}{
		"refused":              {string(mongoMessage(1, mongoError(13436, "not\x1b ready"))), 500, "MongoDB error 13436: not  ready"},
		"repeats":              {string(mongoMessage(1, mongoError(1, "no s3cret"))), 500, "MongoDB error 1: (its words are not shown, the password may be among them)"},
		"no error but not ok":  {string(mongoMessage(1, bson.D{{Key: "ok", Value: int32(0)}})), 500, "MongoDB error 0: "},
		"does not say":         {string(mongoMessage(1, bson.D{{Key: "a", Value: "ok"}})), 503, not + "a reply that does not say whether it is ok"},
		"answers another":      {string(mongoMessage(2, ok)), 503, not + "a message that answers none of ours"},
		"huge":                 {"\xff\xff\xff\x7f", 503, not + "a message of 2147483647 bytes"},
		"tiny":                 {"\x19\x00\x00\x00", 503, not + "a message of 25 bytes"},
		"no SCRAM":             {string(mongoMessage(1, ok)), 503, "Connection closed early (waiting for an answer from ADDR)"},
		"document too long":    {raw("\xff\x00\x00\x00\x00"), 503, not + "an invalid BSON document"},
		"document without end": {raw("\x05\x00\x00\x00\x01"), 503, not + "an invalid BSON document"},
		"name without end":     {raw("\x07\x00\x00\x00\x08a\x00"), 503, not + "an invalid BSON document"},
		"short double":         {raw("\x09\x00\x00\x00\x01a\x00\x00\x00"), 503, not + "an invalid BSON document"},
		"negative string":      {raw("\x0d\x00\x00\x00\x02a\x00\xff\xff\xff\xff\x00\x00"), 503, not + "an invalid BSON document"},
		"unknown kind":         {raw("\x0d\x00\x00\x00\x44a\x00\xff\xff\xff\xff\x00\x00"), 503, not + "an invalid BSON document"},
		"another section":      {string(slices.Replace(mongoMessage(1, ok), 20, 21, 1)), 503, not + "a message without a document"},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, func(conn net.Conn) {
				_, _ = io.ReadFull(conn, make([]byte, 16))
				_, _ = io.WriteString(conn, c.answer)
				_ = conn.(*net.TCPConn).CloseWrite()
			})
			r := configuredAt(t, "mongodb", map[string]any{"username": "operator", "password": "s3cret"})(t.Context(), check.Target{Host: s.Host, Port: s.Port})
			if want := strings.ReplaceAll(c.body, "ADDR", s.Addr()); r.Code != c.code || string(r.Body) != want {
				t.Errorf("%d %q, want %d %q", r.Code, r.Body, c.code, want)
			}
		})
	}
}

func TestMongoOptions(t *testing.T) {
	wantSteps(t, buildAt(t, check.Defaults{}, "mongo", "db", 27017), "mongodb:AT:tcp:AT", "mongodb:AT:connect")
	wantSteps(t, buildAt(t, check.Defaults{}, "mongodb", "db", 27017, "username", "u", "password", "p"), "mongodb:AT:tcp:AT", "mongodb:AT:connect with auth")
	wantOptionErrors(t, "mongodb", map[string][]any{
		"username: a user name and a password need each": {"host", "db", "password", "s3cret"},
		"database: expected a database name":             {"host", "db", "database", "a\x00b"},
		"role: no such role":                             {"host", "db", "role", "replica"},
		"expected a duration of at least 10s":            {"host", "db", "role", "secondary", "lag", "5s"},
	})
}

// TestMongoSCRAM: first messages of a login that no check follows.
func TestMongoSCRAM(t *testing.T) {
	for first, want := range map[string]string{
		"r=NONCE,s=c2FsdA==,i=2000000000": "a login of 2000000000 rounds, more than 1000000",
		"r=NONCE,s=c2FsdA==,i=100":        "an invalid SCRAM message",
		"r=NONCE,s=c2FsdA==,i=x":          "an invalid SCRAM iteration count",
		"r=another,s=c2FsdA==,i=4096":     "an invalid SCRAM message",
		"r=NONCE,s=!,i=4096":              "an invalid SCRAM message",
		"e=no":                            "an invalid SCRAM message",
	} {
		s := checktest.Serve(t, (&mongoServer{mechanism: "SCRAM-SHA-256", first: first}).serve)
		r := buildAt(t, check.Defaults{}, "mongodb", s.Host, s.Port, "username", "operator", "password", "s3cret").Check(t.Context(), check.Target{})
		if want := "The answer of " + s.Addr() + " is not MongoDB: " + want; r.Code != 503 || r.Reason != check.ReasonProtocol || string(r.Body) != want {
			t.Errorf("%q: %d %s %q, want %q", first, r.Code, r.Reason, r.Body, want)
		}
	}
}

// TestMongoRoles asks servers that say of themselves what MongoDB's hello says in each state.
func TestMongoRoles(t *testing.T) {
	now := time.Now()
	set := func(behind time.Duration, more ...bson.E) bson.D {
		return append(bson.D{
			{Key: "setName", Value: "rs0"},
			{Key: "localTime", Value: now},
			{Key: "lastWrite", Value: bson.D{{Key: "lastWriteDate", Value: now.Add(-behind)}}},
		}, more...)
	}
	is := func(name string, value any) bson.E { return bson.E{Key: name, Value: value} }
	primaryIs := is("primary", "db1.example:27017")
	secondary := func(behind time.Duration, more ...bson.E) bson.D {
		return set(behind, append(more, is("isWritablePrimary", false), is("secondary", true), primaryIs)...)
	}
	primary := set(time.Second, is("isWritablePrimary", true), is("secondary", false), primaryIs)
	old := set(time.Second, is("ismaster", true), is("secondary", false), primaryIs)
	orphan := set(time.Minute, is("isWritablePrimary", false), is("secondary", true))
	hourAgo := check.NewSources(now.Add(-time.Hour))
	for name, c := range map[string]struct {
		role    string
		hello   bson.D
		sources *check.Sources
		code    int
		body    string
	}{
		"primary":              {"primary", primary, nil, 200, "primary"},
		"before 4.4":           {"primary", old, nil, 200, "primary"},
		"secondary wanted":     {"secondary", primary, nil, 503, "primary; secondary wanted"},
		"secondary":            {"secondary", secondary(3200 * time.Millisecond), nil, 200, "secondary, 3.2 s behind"},
		"within":               {"secondary?lag=10s", secondary(9 * time.Second), nil, 200, "secondary, 9.0 s behind"},
		"too far":              {"secondary?lag=10s", secondary(11 * time.Second), nil, 503, "secondary, 11.0 s behind, but only 10s are allowed (lag)"},
		"any lag":              {"secondary", secondary(time.Hour), nil, 200, "secondary, 3600.0 s behind"},
		"clock ahead":          {"secondary?lag=10s", secondary(-time.Minute), nil, 503, "secondary, 0.0 s behind, but its last write is 60.0 s in the future: the clocks of the members differ"},
		"a little ahead":       {"secondary?lag=10s", secondary(-time.Second), nil, 200, "secondary, 0.0 s behind"},
		"no date":              {"secondary?lag=10s", secondary(0)[:2:2], nil, 503, "neither primary nor secondary (starting, recovering or rolling back); secondary wanted"},
		"no write":             {"secondary?lag=10s", append(secondary(0)[3:], is("setName", "rs0")), nil, 503, "secondary, but it does not say how far it is behind"},
		"primary wanted":       {"primary", secondary(3200 * time.Millisecond), nil, 503, "secondary, 3.2 s behind; primary wanted"},
		"hidden":               {"secondary", secondary(0, is("hidden", true)), nil, 503, "secondary, 0.0 s behind, but it is hidden"},
		"passive":              {"secondary", secondary(0, is("passive", true)), nil, 503, "secondary, 0.0 s behind, but its priority is 0 (passive)"},
		"arbiter":              {"secondary", set(0, is("arbiterOnly", true), is("secondary", false)), nil, 503, "arbiter; secondary wanted"},
		"recovering":           {"secondary", set(0, is("ismaster", false), is("secondary", false)), nil, 503, "neither primary nor secondary (starting, recovering or rolling back); secondary wanted"},
		"both":                 {"primary", set(0, is("ismaster", true), is("secondary", true)), nil, 503, "neither primary nor secondary (starting, recovering or rolling back); primary wanted"},
		"no set":               {"primary", bson.D{is("ismaster", true)}, nil, 503, "standalone; primary wanted"},
		"standalone":           {"standalone", bson.D{is("ismaster", true)}, nil, 200, "standalone"},
		"not a standalone":     {"standalone", primary, nil, 503, "primary; standalone wanted"},
		"mongos":               {"mongos", bson.D{is("ismaster", true), is("msg", "isdbgrid")}, nil, 200, "mongos"},
		"mongos, not primary":  {"primary", bson.D{is("ismaster", true), is("msg", "isdbgrid")}, nil, 503, "mongos; primary wanted"},
		"not initiated":        {"standalone", bson.D{is("ismaster", false), is("isreplicaset", true)}, nil, 503, "a member of a replica set that is not initiated; standalone wanted"},
		"says nothing":         {"standalone", bson.D{is("maxWireVersion", 21)}, nil, 503, "a server without the name of a replica set; standalone wanted"},
		"no primary":           {"secondary?lag=10s", orphan, nil, 200, "secondary, 60.0 s behind, no primary for 0s"},
		"no primary for long":  {"secondary", orphan, hourAgo, 503, "s, but only 5m0s are allowed (alone)"},
		"no primary, long own": {"secondary?alone=2h", orphan, hourAgo, 200, "secondary, 60.0 s behind, no primary for 1h0m"},
		"any":                  {"any", set(0, is("ismaster", true)), nil, 200, "Logged in and listed collections in "},
		"unknown role":         {"replica", primary, nil, 400, `no such role "replica"; there are any, primary, secondary, mongos, standalone`},
		"lag in bytes":         {"secondary?lag=16MB", primary, nil, 400, "expected a duration of at least 10s"},
	} {
		t.Run(name, func(t *testing.T) {
			s := checktest.Serve(t, (&mongoServer{mechanism: "SCRAM-SHA-256", hello: c.hello}).serve)
			o := check.Options{Sources: c.sources, Services: map[string][]*check.ConfiguredCheck{"db": {
				build(t, check.Defaults{Options: check.Options{Sources: c.sources}}, "mongodb", map[string]any{"host": "db", "username": "operator", "password": "s3cret"}),
			}}}
			r := ask(t, o, check.Target{Protocol: "mongodb", Service: "db", Host: s.Host, Port: s.Port, URI: c.role})
			if r.Code != c.code || !strings.Contains(string(r.Body), c.body) || r.Code == 503 && r.Reason != check.ReasonFailed {
				t.Errorf("%d %s %q, want %d %q", r.Code, r.Reason, r.Body, c.code, c.body)
			}
			wanted, _, _ := strings.Cut(c.role, "?")
			if c.code != 400 && c.role != "any" && (field(r, "role") == nil || field(r, "wanted") != wanted) {
				t.Errorf("fields: %v", r.Fields)
			}
		})
	}
	// Once it was seen with a primary, a secondary stays healthy for a while.
	hourAgo = check.NewSources(now.Add(-time.Hour))
	var connections atomic.Int32
	s := checktest.Serve(t, func(conn net.Conn) {
		says := orphan
		if connections.Add(1) == 1 {
			says = secondary(0)
		}
		(&mongoServer{mechanism: "SCRAM-SHA-256", hello: says}).serve(conn)
	})
	c := buildAt(t, check.Defaults{Options: check.Options{Sources: hourAgo}}, "mongodb", s.Host, s.Port, "username", "operator", "password", "s3cret", "role", "secondary", "lag", "10s")
	for range 2 {
		if r := c.Check(t.Context(), check.Target{}); r.Code != 200 {
			t.Errorf("seen before: %d %q", r.Code, r.Body)
		}
	}
}

// TestFerretDB logs in to FerretDB, and fails to log in in every way.
func TestFerretDB(t *testing.T) {
	s := servertest.FerretDB(t)
	in, failed := "Logged in and listed collections in ", check.ReasonFailed
	denied := "MongoDB error 18: Authentication failed"
	tryLogins(t, check.Defaults{}, "mongodb", s, map[string]loginCase{
		"right":          {[]any{"username", "operator", "password", "s3cret"}, 200, 0, in},
		"wrong password": {[]any{"username", "operator", "password", "wr0ng"}, 500, failed, denied},
		"wrong user":     {[]any{"username", "nobody", "password", "s3cret"}, 500, failed, denied},
		"no login":       {nil, 500, failed, "MongoDB error "},
		// MongoDB creates a database at the first write, so a missing database is no error.
		"no such database":          {[]any{"username", "operator", "password", "s3cret", "database", "none"}, 200, 0, in},
		"database without the user": {[]any{"username", "operator", "password", "s3cret", "auth_database", "none"}, 500, failed, "MongoDB error "},
	})
	role := func(s *servertest.Server, role string) check.Result {
		return buildAt(t, check.Defaults{}, "mongodb", servertest.Host, s.Port, "username", "operator", "password", "s3cret", "role", role).Check(t.Context(), check.Target{})
	}
	member := servertest.FerretDB(t, "--repl-set-name=rs0")
	for name, c := range map[string]struct {
		got  check.Result
		code int
		body string
	}{
		"primary":                  {role(member, "primary"), 200, "primary"},
		"primary, other wanted":    {role(member, "secondary"), 503, "primary; secondary wanted"},
		"standalone":               {role(s, "standalone"), 200, "standalone"},
		"standalone, other wanted": {role(s, "primary"), 503, "standalone; primary wanted"},
	} {
		if c.got.Code != c.code || string(c.got.Body) != c.body {
			t.Errorf("%s: %d %q, want %d %q", name, c.got.Code, c.got.Body, c.code, c.body)
		}
	}
	quiet := func(pairs ...any) func(host string, port uint16) check.Result {
		return func(host string, port uint16) check.Result {
			return buildAt(t, check.Defaults{}, "mongodb", host, port, pairs...).Check(t.Context(), check.Target{})
		}
	}
	checktest.RunQuiet(t, member.Addr(), member.Log, 10, quiet("role", "primary", "username", "operator", "password", "s3cret"))
	// Without a login, which costs both sides 15,000 rounds of a hash.
	open := servertest.FerretDBOpen(t)
	checktest.RunQuiet(t, open.Addr(), open.Log, 500, quiet("role", "standalone"))
	wantGone(t, check.Defaults{}, "mongodb", s, "username", "operator", "password", "s3cret")
}

// TestFerretDBTLS: a server that requires a client certificate.
func TestFerretDBTLS(t *testing.T) {
	a := newAuthority(t)
	ca, cert, key := pemFiles(t, a)
	s := servertest.FerretDBTLS(t, issue(t, loopback(), a), ca)
	with := []any{"username", "operator", "password", "s3cret", "use_tls", true, "ca_file", ca, "cert_file", cert, "key_file", key}
	tryLogins(t, check.Defaults{}, "mongodb", s, map[string]loginCase{
		"certificate":    {with, 200, 0, "Logged in and listed collections in "},
		"no certificate": {with[:8], 503, check.ReasonProtocol, ""},
		"other name":     {append([]any{"server_name", "web.example"}, with...), 503, check.ReasonFailed, "The certificate of "},
	})
}

func FuzzMongoAnswer(f *testing.F) {
	f.Add(mongoMessage(1, mongoDenied))
	f.Add(slices.Concat(mongoMessage(1, bson.D{{Key: "saslSupportedMechs", Value: bson.A{"SCRAM-SHA-256"}}, {Key: "ok", Value: 1.0}}), mongoMessage(2, mongoDenied)))
	fuzzConfigured(f, "mongodb", map[string]any{"username": "operator", "password": "s3cret"})
}

func FuzzMongoRoleAnswer(f *testing.F) {
	f.Add(mongoMessage(1, bson.D{{Key: "ismaster", Value: true}, {Key: "setName", Value: "rs0"}, {Key: "ok", Value: 1.0}}))
	f.Add(mongoMessage(1, bson.D{{Key: "secondary", Value: true}, {Key: "setName", Value: "rs0"}, {Key: "lastWrite", Value: bson.D{{Key: "lastWriteDate", Value: time.Now()}}}, {Key: "ok", Value: 1.0}}))
	fuzzConfigured(f, "mongodb", map[string]any{"role": "secondary", "lag": "10s"})
}
