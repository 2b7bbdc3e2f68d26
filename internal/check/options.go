package check

import "strconv"

// Option is one option of a Type.
type Option struct {
	Name     string
	Want     string // the values it takes, in words: "a port from 1 to 65535"
	Default  string // as a user would write it; "" is none
	Required bool
	Secret   bool // no message may show the value
	Doc      string
}

// required returns o as a required option.
func (o Option) required() Option {
	o.Required, o.Default = true, ""
	return o
}

// hostOption is the option host of nearly all types.
var hostOption = Option{Name: "host", Want: "an IP address or a host name", Required: true, Doc: "the host of the service"}

// portOption returns the option port of nearly all types. With def 0 it is required.
func portOption(def uint16) Option { return portNamed("port", def, "its port") }

func portNamed(name string, def uint16, doc string) Option {
	o := Option{Name: name, Want: "a port from 1 to 65535", Required: def == 0, Doc: doc}
	if def != 0 {
		o.Default = strconv.Itoa(int(def))
	}
	return o
}

// The options of types with a login.
var (
	usernameOption = Option{Name: "username", Want: "a user name without control characters", Doc: "the user name to log in with"}
	passwordOption = Option{Name: "password", Want: "a password without a NUL byte", Secret: true, Doc: "the password of that user"}
)

// noVerifyOption is an option of all types over TLS.
var noVerifyOption = Option{Name: "disable_tls_verification", Want: "true or false", Default: "false", Doc: "accept any certificate"}
