package check

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// failure returns the result for an error of the login or of a query. An error of the server is 500 with its number and
// text, and with what to do.
func (m mysqlCheck) failure(w *mysqlWire, err error) Result {
	var answer *mysql.MySQLError
	if errors.As(err, &answer) {
		text, hint := answer.Message, m.hint(w, answer)
		if hint != "" {
			text = strings.TrimSuffix(text, ".")
		}
		return w.x.serviceError(500, "MySQL error %d: %s%s", answer.Number, m.redact(text), hint)
	}
	if errors.Is(err, errMySQLHandshake) {
		return *w.handshakeError
	}
	return w.x.loginError("MySQL", err, m.redact)
}

// hint says what to do about an error of the server, after "; ". It is "" where the server's own text does.
func (m mysqlCheck) hint(w *mysqlWire, err *mysql.MySQLError) string {
	const (
		accessDenied     = 1045
		hostBlocked      = 1129
		mustSetPassword  = 1820
		passwordExpired  = 1862
		insecure         = 3159 // require_secure_transport; MariaDB says 1045
		privilegeMissing = 1227
		tableDenied      = 1142
	)
	switch err.Number {
	case accessDenied, insecure:
		switch {
		case w.secure && w.wantsIdentity:
			return "; if the user has REQUIRE X509, set cert_file and key_file"
		case w.handshakeError != nil:
			return "; it was without TLS: " + string(w.handshakeError.Body)
		case !w.secure && w.offersTLS:
			return "; if the server or the user requires TLS, set use_tls: prefer"
		case !w.secure && m.socket == "" && err.Number != accessDenied:
			return "; the server requires TLS but offers none: see its ssl_cert"
		}
	case privilegeMissing, tableDenied:
		return w.grant
	case hostBlocked:
		return "; end the failed connections and run FLUSH HOSTS"
	case mustSetPassword, passwordExpired:
		return fmt.Sprintf("; the password of %s has expired: ALTER USER ... PASSWORD EXPIRE NEVER, or set a new one", excerpt(m.username, 40))
	}
	return ""
}
