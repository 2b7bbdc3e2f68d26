package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"hacheck/internal/check"
)

// Service is the configuration of one service.
type Service struct {
	Name string
	// Checks have each been built once, so that Build with other defaults cannot fail. There is at least one, unless
	// agent_listen is the only endpoint.
	Checks []Check

	HTTPListen   string        // http_listen: host:port that answers any URL; "" for none
	FailureCode  int           // failure_code: the status if a check fails, default 504
	BeaconListen string        // beacon_listen: host:port that is open while the service is healthy; "" for none
	Interval     time.Duration // interval: between two checks of the beacon, default 5 s
	AgentListen  string        // agent_listen: host:port for HAProxy's agent-check; "" for none
}

const (
	maxServices        = 10_000
	defaultFailureCode = 504
	defaultInterval    = 5 * time.Second
	maxServiceName     = 200
)

// services reads the value of the key services, a mapping of service names to their configuration.
func (l *loader) services(c *Config, at, n *yaml.Node) {
	const want = "expected a mapping of service names, as in {web: {checks: [{type: tcp, port: 8080}]}}, got %s"
	if n.Kind != yaml.MappingNode || !hasCoreTag(n) {
		l.errorf(at.Line, "services", want, describeKind(n))
		return
	}
	d := decoder{loader: l}
	taken := map[string]string{} // service by address
	for _, e := range d.entries(n, 0) {
		if len(c.Services) >= maxServices {
			l.errorf(e.line, "services", "expected at most %d services", maxServices)
			return
		}
		if !isService(e.name) {
			l.errorf(e.line, quoteKey(e.name), "expected a service name: letters, digits, '.', '_' and '-'")
			continue
		}
		s := l.service(&d, e)
		for _, addr := range []string{s.HTTPListen, s.BeaconListen, s.AgentListen} {
			if other, ok := taken[addr]; ok && addr != "" && !strings.HasSuffix(addr, ":0") {
				l.errorf(e.line, e.name, "expected an address of its own, got %s, which %s has", addr, other)
			}
			taken[addr] = e.name
		}
		c.Services = append(c.Services, s)
	}
}

// service reads the configuration of one service.
func (l *loader) service(d *decoder, e entry) Service {
	s := Service{Name: e.name, FailureCode: defaultFailureCode, Interval: defaultInterval}
	n := resolveAlias(e.at)
	if n.Kind != yaml.MappingNode || !hasCoreTag(n) {
		l.errorf(e.line, e.name, "expected what is configured for the service, as in {checks: [{type: tcp, port: 8080}]}, got %s", describeKind(n))
		return s
	}
	listed, agent := false, false
	for _, f := range d.entries(n, 1) {
		v := resolveAlias(f.at)
		wrong := func(want string) { l.errorf(f.line, f.name, "expected %s, got %s", want, describe(v)) }
		switch f.name {
		case "checks":
			listed = true
			s.Checks = l.builtChecks(v)
			if len(s.Checks) == 0 && v.Kind == yaml.SequenceNode && len(v.Content) == 0 {
				wrong("at least one check")
			}
		case "http_listen", "beacon_listen", "agent_listen":
			agent = agent || f.name == "agent_listen"
			if v.Kind != yaml.ScalarNode || !isListen(v.Value) {
				wrong("an IP address and a port, such as 0.0.0.0:5500 or \"[::]:5500\"")
				break
			}
			*map[string]*string{"http_listen": &s.HTTPListen, "beacon_listen": &s.BeaconListen, "agent_listen": &s.AgentListen}[f.name] = v.Value
		case "failure_code":
			if code, ok := parseWhole(v, 400, 599); ok {
				s.FailureCode = int(code)
			} else {
				wrong("an HTTP status from 400 to 599")
			}
		case "interval":
			if sec, ok := parseDecimal(v); ok && sec >= 0.1 && sec <= maxTimeout {
				s.Interval = time.Duration(sec * float64(time.Second))
			} else {
				wrong("a number of seconds from 0.1 to 3600")
			}
		default:
			l.warnUnknown(f.line, f.name, "checks", "http_listen", "failure_code", "beacon_listen", "interval", "agent_listen")
		}
	}
	if !listed && (!agent || s.HTTPListen+s.BeaconListen != "") { // an agent answers by overrides alone
		l.errorf(e.line, e.name, "expected checks, as in {checks: [{type: tcp, port: 8080}]}")
	}
	return s
}

// builtChecks reads a list of checks, builds each with a default host, and reports the errors.
func (l *loader) builtChecks(n *yaml.Node) []Check {
	list := l.checks(n)
	for _, c := range list {
		if _, err := c.Build(check.Defaults{Host: "127.0.0.1"}); err != nil {
			for _, e := range err.(Errors) { //nolint:errorlint // Build returns nothing else
				l.errorf(e.Line, e.Key, "%s", e.Text)
			}
		}
	}
	return list
}

func isService(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= maxServiceName && consistsOf(s, letters+digits+"._-")
}

// isListen reports whether s is a port to listen on, with or without an IP address.
func isListen(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host != "" && net.ParseIP(host) == nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// Scripts returns the command line of each script check of the service: the program, then its arguments.
func (s Service) Scripts() (commands [][]string) {
	for _, c := range s.Checks {
		if argv := c.scriptWords(); len(argv) > 0 {
			commands = append(commands, argv)
		}
	}
	return commands
}

// FileOption is an option of a check, or a key of the configuration, whose value is a file.
type FileOption struct{ Key, Path string }

// Files returns the files of certificates, keys and authorities that the checks of the service read.
func (s Service) Files() (files []FileOption) {
	for _, c := range s.Checks {
		for _, key := range []string{"ca_file", "cert_file", "key_file"} {
			if path, ok := c.Spec.Options[key].(string); ok && path != "" {
				files = append(files, FileOption{key, path})
			}
		}
	}
	return files
}

// scriptWords returns the command line of a script check, nil for a check of another type.
func (c Check) scriptWords() (argv []string) {
	if c.Spec.Type != "script" {
		return nil
	}
	switch v := c.Spec.Options["command"].(type) {
	case string:
		argv, _ = check.SplitCommand(v) // there is no error: the check was built when the file was read
	case []any:
		for _, word := range v {
			argv = append(argv, fmt.Sprint(word))
		}
	}
	return argv
}
