package check

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// mysqlType is the configured check of MySQL and MariaDB.
var mysqlType = Type{
	Name: "mysql",
	Doc:  "a login to a MySQL or MariaDB server and a query work, and the server has the role",
	Options: slices.Concat(
		[]Option{
			socketHostOption,
			portOption(3306),
			usernameOption.required(),
			passwordOption,
			{Name: "database", Want: "a database name without control characters", Doc: "the database to log in to; without it none is opened"},
		},
		tlsOptions("prefer"), roleOptions(mysqlRoles), queryOptions,
	),
	Roles: mysqlRoles,
	build: buildMySQL,
}

// mysqlCheck is a login to a database, or to none if it is "", and what is asked then.
type mysqlCheck struct {
	login
	database string
	role     wantedRole
	query    sqlQuery
	sources  *Sources
}

func buildMySQL(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
	m := mysqlCheck{
		database: o.plainText("database", ""), role: o.role(), query: o.sqlQuery(),
		sources: d.sources(),
	}
	m.login = o.login(d, 3306, 3306)
	m.drivers = d.Logins
	m.tls = nil // TLS begins after the server's greeting
	return m.newConfigured("mysql", "", "mysql:"+m.addr(), m.check), nil
}

// mysqlProtocol returns the protocol mysql. For services without a check of this type it logs in with mysql_username and
// mysql_password. An error of the server (a wrong password, too many connections) is 500 with its text, as in the
// original.
func mysqlProtocol(o Options) entry {
	fallback := mysqlType
	fallback.Options = slices.Clone(mysqlType.Options)
	for i := range fallback.Options {
		if fallback.Options[i].Name == usernameOption.Name {
			fallback.Options[i].Required = false
		}
	}
	fallback.build = func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
		if d.MySQLUsername == "" {
			return &ConfiguredCheck{Steps: []Step{StepOf("mysql", withoutMySQLUsername)}}, nil
		}
		o.spec = o.spec.with(map[string]any{"username": d.MySQLUsername, "password": string(d.MySQLPassword)})
		return buildMySQL(o, d)
	}
	return configuredOr(o, "mysql", &mysqlType, &fallback)
}

func withoutMySQLUsername(context.Context, Target) Result {
	err := errors.New("no mysql_username is configured")
	return result(500, ReasonConfig, err, "No MySQL username/password in config file (mysql_username, mysql_password)")
}

// check logs in, asks and quits. With use_tls: prefer and nothing verified it connects once more, without TLS, if the
// handshake fails: an old server whose TLS Go cannot speak is as healthy as it was. A login sends no password in clear.
func (m mysqlCheck) check(x *exchange) Result {
	settings := m.settings
	if m.socket != "" {
		settings.mode = tlsOff
	}
	w := newMySQLWire(x, settings)
	r := m.ask(w)
	if w.handshakeError == nil || settings.mode != tlsPrefer || settings.verify || x.ctx.Err() != nil || r.Reason == ReasonConfig {
		return r
	}
	x.close(r)
	if r, ok := x.connect(); !ok {
		return r
	}
	settings.mode = tlsOff
	again := newMySQLWire(x, settings)
	again.handshakeError = w.handshakeError // for hint
	return m.ask(again)
}

// ask logs in over w, asks and quits.
func (m mysqlCheck) ask(w *mysqlWire) Result {
	w.x.phase = "waiting for the greeting of"
	db, err := w.connect(m.config())
	if err != nil {
		return m.failure(w, err)
	}
	s := &mysqlSession{mysqlCheck: m, w: w, db: db}
	r, err := s.examine()
	// Without COM_QUIT the server counts an aborted client for each check. Close also ends the driver's goroutine.
	_ = db.Close()
	if err != nil {
		return m.failure(w, err)
	}
	return r
}

// config returns the driver's configuration. Nothing in it is global.
func (m mysqlCheck) config() *mysql.Config {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.DBName = m.username, string(m.password), m.database
	c.Net, c.Addr = "tcp", "127.0.0.1:3306" // not used: the driver gets its connection from mysqlWire
	c.Logger = silentMySQL{}
	c.MaxAllowedPacket = maxMySQLPacket // without it the driver asks the server
	c.ConnectionAttributes = "program_name:hacheck"
	return c
}

// silentMySQL is a logger that drops all lines.
type silentMySQL struct{}

func (silentMySQL) Print(...any) {}

// mysqlSession is the part of a check after the login.
type mysqlSession struct {
	mysqlCheck
	w  *mysqlWire
	db driver.Conn
}

// mysqlRow is a row by the names of its columns, in lower case. It has no NULL.
type mysqlRow map[string]string

// maxMySQLRows is how many rows of an answer are read.
const maxMySQLRows = 1000

// rows runs a statement and returns the rows of its answer.
func (s *mysqlSession) rows(statement string) (found []mysqlRow, err error) {
	err = s.each(statement, func(columns []string, values []driver.Value) {
		row := mysqlRow{}
		for i, v := range values {
			if v != nil {
				row[strings.ToLower(columns[i])] = mysqlText(v)
			}
		}
		found = append(found, row)
	})
	return found, err
}

// each runs a statement and calls f with each row of its answer. The values are valid during the call.
func (s *mysqlSession) each(statement string, f func(columns []string, values []driver.Value)) error {
	s.w.x.phase = phaseWait
	err := recovered(func() error {
		rows, err := s.db.(driver.QueryerContext).QueryContext(context.Background(), statement, nil)
		if err != nil {
			return err
		}
		values := make([]driver.Value, len(rows.Columns()))
		for range maxMySQLRows {
			if err = rows.Next(values); err != nil {
				break
			}
			f(rows.Columns(), values)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		return rows.Close()
	})
	if err != nil {
		return s.w.cause(err)
	}
	return nil
}

// mysqlText returns a value as text.
func mysqlText(v driver.Value) string {
	if b, ok := v.([]byte); ok {
		return string(b)
	}
	return fmt.Sprint(v)
}

// runQuery runs the query of the configuration. It returns how its answer differs from what is expected, "" if it does
// not.
func (s *mysqlSession) runQuery() (string, error) {
	n, found, null := 0, "", true
	err := s.each(s.query.text, func(_ []string, values []driver.Value) {
		if n++; n == 1 && len(values) > 0 && values[0] != nil {
			found, null = mysqlText(values[0]), false
		}
	})
	return s.query.mismatch(n, found, null), err
}
