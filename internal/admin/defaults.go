package admin

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
)

// The environment variables that replace the defaults of options. The file Env.Defaults may set them too.
const (
	envPort          = "HACHECK_PORT"           // -p
	envSpoolRoot     = "HACHECK_SPOOL_ROOT"     // --spool-root
	envControlSocket = "HACHECK_CONTROL_SOCKET" // --control-socket
	envOptions       = "HACHECK_OPTIONS"        // of the daemon; only in the file
)

// maxDefaults bounds how much of the file Env.Defaults is read.
const maxDefaults = 64 << 10

// applyDefaults sets the options that the command line does not set: from the environment, else from the file with the
// options of the daemon, else to the values of the packages. An odd line of the file counts as none: the daemon may know
// more options than the command.
func (c *command) applyDefaults(o *options) error {
	file := readDefaults(c.Defaults)
	daemon := daemonOptions(file[envOptions])
	value := func(name string) string {
		for _, v := range []string{c.Getenv(name), file[name], daemon[name]} {
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
				return fmt.Errorf("%s: invalid value %q: %w", envPort, v, err)
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

// readDefaults reads lines NAME=VALUE as systemd reads an EnvironmentFile, without lines that go on in the next one. A file
// that cannot be read has no lines.
func readDefaults(path string) map[string]string {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	values := map[string]string{}
	for lines := bufio.NewScanner(io.LimitReader(f, maxDefaults)); lines.Scan(); {
		name, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if n := len(value); n > 1 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		values[name] = value
	}
	return values
}

// daemonOptions returns what the options of the daemon mean for a command, by the name of the variable. Of several ports
// the first one counts, as the daemon names it first.
func daemonOptions(line string) map[string]string {
	long := map[string]string{"-p": "--port", "-B": "--bind-address"}
	given := map[string]string{}
	words := strings.Fields(line)
	for i := 0; i < len(words); i++ {
		name, value, hasValue := strings.Cut(words[i], "=")
		if len(name) > 2 && name[1] != '-' && !hasValue { // -p3334
			name, value, hasValue = name[:2], name[2:], true
		}
		if full, ok := long[name]; ok {
			name = full
		}
		switch name {
		case "--port", "--bind-address", "--spool-root", "--control-socket":
		default:
			continue
		}
		if !hasValue && i+1 < len(words) {
			i++
			value = words[i]
		}
		if name != "--port" || given[name] == "" {
			given[name] = strings.Trim(value, `"'`)
		}
	}
	options := map[string]string{envPort: given["--port"], envSpoolRoot: given["--spool-root"], envControlSocket: given["--control-socket"]}
	if ip, err := netip.ParseAddr(given["--bind-address"]); err == nil && !ip.IsUnspecified() {
		port := options[envPort]
		if port == "" {
			port = fmt.Sprint(defaultDaemon.port)
		}
		options[envPort] = ip.String() + ":" + port
		if ip.Is6() {
			options[envPort] = "[" + ip.String() + "]:" + port
		}
	}
	if _, err := parseDaemon(options[envPort]); err != nil {
		options[envPort] = "" // such as 0, for any free port
	}
	return options
}
