package check

import (
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"hacheck/internal/check/conn"
)

// maxPostgresMessage is the longest message that is read, in bytes. A message of a login has about a hundred.
const maxPostgresMessage = 64 << 10

// phaseQuery is between phaseLogin and the end.
const phaseQuery = "waiting for the answer to a query from"

// postgresConfig returns the configuration of pgconn without anything of the environment. pgconn only takes one that its
// parser has made, which reads the PG* variables, service files and ~/.pgpass of the daemon's user. A connection string
// overrides the variables that could make it fail, apart from PGSERVICE, which is therefore hidden from the parser, once.
var postgresConfig = sync.OnceValues(func() (*pgconn.Config, error) {
	if service, set := os.LookupEnv("PGSERVICE"); set {
		_ = os.Unsetenv("PGSERVICE")
		defer func() { _ = os.Setenv("PGSERVICE", service) }()
	}
	parsed, err := pgconn.ParseConfig("host=postgres port=5432 user=hacheck password=none sslmode=disable sslcertmode=disable " +
		"sslnegotiation=postgres connect_timeout=0 target_session_attrs=any channel_binding=disable require_auth=!password " +
		"min_protocol_version=3.0 max_protocol_version=3.0")
	if err != nil {
		return nil, err
	}
	// TLS and the connection are hacheck's. There is no channel binding, because pgconn does not see TLS.
	parsed.TLSConfig, parsed.Fallbacks, parsed.ConnectTimeout = nil, nil, 0
	parsed.KerberosSrvName, parsed.KerberosSpn, parsed.OAuthTokenProvider = "", "", nil
	parsed.ValidateConnect, parsed.AfterConnect, parsed.AfterNetConnect, parsed.OnNotice, parsed.OnNotification = nil, nil, nil, nil, nil
	parsed.MaxProtocolMessageBodyLen = maxPostgresMessage
	parsed.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	parsed.RuntimeParams = map[string]string{"application_name": "hacheck", "client_encoding": "UTF8"}
	return parsed, nil
})

// postgresConn is a session. The caller ends it with quit.
type postgresConn struct{ driver *pgconn.PgConn }

// connect logs in over the connection of x. Without secure (TLS or a Unix socket) it sends no password in clear.
//
// The context of the check ends all reads and writes of the connection, so the driver needs none. It has one connection:
// after an error pgconn wants a second one, to cancel a query. A server may demand up to 10 million rounds of hashing for
// SCRAM, which pgconn's hashing does without a look at the clock; that takes some seconds.
func (p postgresLogin) connect(x *exchange, secure bool) (*postgresConn, error) {
	x.phase = phaseLogin
	template, err := postgresConfig()
	if err != nil {
		return nil, err
	}
	config := template.Copy()
	config.User, config.Password, config.Database = p.username, string(p.password), p.database
	dial := conn.Once(x.conn)
	config.DialFunc = func(context.Context, string, string) (net.Conn, error) { return dial() }
	if secure {
		config.RequireAuth = ""
	}
	driver, err := pgconn.ConnectConfig(context.WithoutCancel(x.ctx), config)
	if err != nil {
		return nil, err
	}
	return &postgresConn{driver}, nil
}

// query runs a query and returns the rows of its last statement. A NULL is nil.
func (c *postgresConn) query(sql string) ([][][]byte, error) {
	results, err := c.driver.Exec(context.Background(), sql).ReadAll()
	if err != nil || len(results) == 0 {
		return nil, err
	}
	last := results[len(results)-1]
	return last.Rows, last.Err
}

// quit says goodbye, without which the server logs a lost connection, and closes. It returns when no goroutine of the
// driver is left.
func (c *postgresConn) quit(x *exchange) {
	if c.driver.IsClosed() {
		_ = x.raw.Close() // the driver may still wait for the server's last bytes
	}
	_ = c.driver.Close(context.WithoutCancel(x.ctx))
	<-c.driver.CleanupDone()
}

// isPostgresCode reports whether err is an error of the server with this code (SQLSTATE).
func isPostgresCode(err error, code string) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == code
}

// failure returns the result for an error of the driver.
func (p postgresLogin) failure(x *exchange, err error) Result {
	var refused *pgconn.PgError
	var tooLong *pgproto3.ExceededMaxBodyLenErr
	var network *net.OpError
	cause := lastCause(err)
	switch {
	case errors.As(err, &refused):
		text := p.redact(refused.Message)
		if refused.Code == "28000" && p.settings.mode == tlsOff && p.socket == "" {
			text += "; with use_tls: prefer hacheck tries TLS"
		} else if refused.Code == "28000" && p.settings.mode == tlsOn && p.socket == "" {
			text += "; with use_tls: prefer hacheck tries it without TLS too"
		}
		code := "PostgreSQL error " + excerpt(cmp.Or(refused.Code, "without a code"), 5)
		return x.serviceError(500, "%s: %s", code, text)
	case errors.Is(err, conn.ErrTooMuch):
		return x.protocolError("More than %d bytes (%s %s): a check reads no more", conn.MaxRead, x.phase, x.addr())
	case errors.As(err, &tooLong) && x.phase == phaseQuery:
		return x.protocolError("A message of %d bytes (%s %s): a check reads up to %d", tooLong.ActualBodyLen, x.phase, x.addr(), maxPostgresMessage)
	case x.ctx.Err() != nil, errors.As(err, &network), isNetwork(err):
		return x.networkError(cause)
	case errors.As(err, &tooLong):
		return x.loginError("PostgreSQL", malformed("a message of %d bytes", tooLong.ActualBodyLen+4), p.redact)
	}
	// pgconn has no types for these errors.
	text := cause.Error()
	switch {
	case strings.Contains(text, "server requested password authentication"):
		return x.serviceError(503, "%s wants the password in clear, and the connection has no TLS: let it offer TLS, or ask for scram-sha-256 in pg_hba.conf", x.addr())
	case strings.Contains(text, "no GSSAPI provider"), strings.Contains(text, "does not support SCRAM-SHA-256"):
		return x.serviceError(503, "%s wants a login by a method that hacheck does not know: ask for scram-sha-256 in pg_hba.conf", x.addr())
	case strings.Contains(text, "ServerSignature"), strings.Contains(text, "invalid SCRAM server-final-message"),
		strings.Contains(text, "expected AuthenticationSASL") && (strings.Contains(text, "AuthenticationOk") || strings.Contains(text, "message *pgproto3.AuthenticationSASLFinal")):
		return x.loginError("PostgreSQL", errServerUnverified, p.redact)
	}
	return x.loginError("PostgreSQL", malformed("%s", p.redact(text)), p.redact)
}

// lastCause returns the innermost error of err, or the network's. The outer ones of pgconn name the address again, and the
// user.
func lastCause(err error) error {
	var network *net.OpError
	if errors.As(err, &network) {
		return network
	}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) && len(joined.Unwrap()) > 0 {
		err = joined.Unwrap()[0]
	}
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}
