package admin

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/spf13/pflag"

	"hacheck/internal/textfmt"
)

// The environment variables that replace the defaults of options. The file Env.Defaults may set them too.
const (
	envPort          = "HACHECK_PORT"           // -p
	envSpoolRoot     = "HACHECK_SPOOL_ROOT"     // --spool-root
	envControlSocket = "HACHECK_CONTROL_SOCKET" // --control-socket
	envOptions       = "HACHECK_OPTIONS"        // of the daemon; only in the file
	envService       = "HACHECK_SERVICE"        // the daemon sets it for scripts of checks
)

// applyDefaults sets the options that the command line does not set: from the environment, else from the file with the
// options of the daemon, else to the values of the packages. An odd line of the file counts as none: the daemon may know
// more options than the command.
func (c *command) applyDefaults(o *options) error {
	file, err := readDefaults(c.Defaults)
	if err != nil {
		c.errorf("warning: %s; the options of the daemon are not known, so the defaults count", textfmt.OneLine(err.Error()))
	}
	daemon := daemonOptions(file[envOptions])
	value := func(name string) string {
		for _, v := range []string{c.environment(name), file[name], daemon[name]} {
			if v != "" {
				return v
			}
		}
		return ""
	}
	if !o.hasDaemon {
		o.daemon = c.daemon
		if v := value(envPort); v != "" {
			var err error
			if o.daemon, err = parseDaemon(v); err != nil {
				where := "in the environment"
				if c.environment(envPort) == "" {
					where = "in " + c.Defaults
				}
				return fmt.Errorf("%s %s: invalid value %q: %w", envPort, where, v, err)
			}
		}
	}
	if v := value(envSpoolRoot); v != "" && !o.hasSpoolRoot {
		o.spoolRoot = v
	}
	if !o.fleet.hasSocket {
		o.fleet.socket = c.controlSocket
		if v := value(envControlSocket); v != "" {
			o.fleet.socket = v
		}
	}
	return nil
}

// environment returns a variable of the environment. For a script of a check HACHECK_PORT is the port of the service.
func (c *command) environment(name string) string {
	if name == envPort && c.Getenv(envService) != "" {
		return ""
	}
	return c.Getenv(name)
}

// daemonOptions returns what the options of the daemon mean for a command, by the name of the variable. Of several ports
// the first one counts, as the daemon names it first.
func daemonOptions(line string) map[string]string {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.ParseErrorsAllowlist.UnknownFlags = true
	ports := fs.StringArrayP("port", "p", nil, "")
	bind := fs.StringP("bind-address", "B", "", "")
	spoolRoot := fs.String("spool-root", "", "")
	controlSocket := fs.String("control-socket", "", "")
	// The other short options, because one may stand before -p in the same word, as in -Sp3334.
	fs.StringP("config-file", "c", "", "")
	fs.StringArrayP("agent-port", "A", nil, "")
	fs.StringP("num-procs", "n", "", "")
	fs.BoolP("verbose", "v", false, "")
	fs.BoolP("no-check-spool-on-http", "S", false, "")
	_ = fs.Parse(splitWords(line)) // with a wrong option the daemon does not start

	options := map[string]string{envSpoolRoot: *spoolRoot, envControlSocket: *controlSocket}
	port := strconv.Itoa(int(defaultDaemon.port))
	if len(*ports) > 0 {
		port = (*ports)[0]
		options[envPort] = port
	}
	if ip, err := netip.ParseAddr(*bind); *bind != "" && (err != nil || !ip.IsUnspecified()) {
		options[envPort] = net.JoinHostPort(*bind, port)
	}
	if _, err := parseDaemon(options[envPort]); err != nil {
		options[envPort] = "" // such as 0, for any free port
	}
	return options
}
