package daemon

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"hacheck/internal/check"
)

// aggregateChecks are the options of hacheck aggregate that say what is checked: those of gruntwork's health-checker, of
// its pull requests and of its forks.
type aggregateChecks struct {
	ports, urls, patterns, scripts         []string
	insecureTLS                            bool
	tcpTimeout, httpTimeout, scriptTimeout time.Duration
}

// addFlags defines the options.
func (o *aggregateChecks) addFlags(f *pflag.FlagSet) {
	o.tcpTimeout, o.httpTimeout, o.scriptTimeout = 5*time.Second, 5*time.Second, 5*time.Second
	f.StringArrayVar(&o.ports, "port", nil, "check that `[HOST:]PORT` accepts connections, on 127.0.0.1 without a host; separate several by commas, or repeat")
	f.StringArrayVar(&o.urls, "http", nil, "check that `URL` answers with 2xx, after redirects; repeat for more")
	f.StringArrayVar(&o.patterns, "verify-payload", nil, "the body of the answer must match `REGEX` somewhere; give it once for each --http, in the same order, or not at all")
	f.StringArrayVar(&o.scripts, "script", nil, "check that `COMMAND` exits with 0 (words are split as a shell does, nothing is expanded); repeat for more")
	f.BoolVar(&o.insecureTLS, "allow-insecure-tls", false, "accept any certificate of an https URL")
	f.Var((*secondsFlag)(&o.tcpTimeout), "tcp-dial-timeout", "give up a port after this many `SECONDS`")
	f.Var((*secondsFlag)(&o.httpTimeout), "http-dial-timeout", "give up a URL after this many `SECONDS`, the answer included")
	f.Var((*secondsFlag)(&o.scriptTimeout), "script-timeout", "kill a script after this many `SECONDS`")
}

// secondsFlag is an option of whole seconds.
type secondsFlag time.Duration

// String implements pflag.Value.
func (s *secondsFlag) String() string { return strconv.Itoa(int(time.Duration(*s) / time.Second)) }

// Type implements pflag.Value.
func (s *secondsFlag) Type() string { return "int" }

// Set implements pflag.Value.
func (s *secondsFlag) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 3600 {
		return errors.New("must be from 0 to 3600 seconds")
	}
	*s = secondsFlag(time.Duration(n) * time.Second)
	return nil
}

// checks returns the checks that the options describe.
func (o *aggregateChecks) checks() ([]*check.ConfiguredCheck, error) {
	if len(o.ports)+len(o.urls)+len(o.scripts) == 0 {
		return nil, errors.New("nothing to check: at least one --port, --http or --script is needed")
	}
	if len(o.patterns) > 0 && len(o.patterns) != len(o.urls) {
		return nil, fmt.Errorf("--verify-payload must be given once for each --http, got %d for %d", len(o.patterns), len(o.urls))
	}
	for _, t := range []struct {
		flag string
		d    time.Duration
	}{{"tcp-dial", o.tcpTimeout}, {"http-dial", o.httpTimeout}, {"script", o.scriptTimeout}} {
		if t.d < time.Second {
			return nil, fmt.Errorf("--%s-timeout must be from 1 to 3600 seconds, got 0", t.flag)
		}
	}
	var list []*check.ConfiguredCheck
	defaults := check.Defaults{Scripts: check.NewScripts(check.DefaultScripts)}
	add := func(flag, typ string, timeout time.Duration, options map[string]any) error {
		options["timeout"] = timeout.Seconds()
		c, err := check.Build(check.Spec{Type: typ, Options: options}, defaults)
		if err != nil {
			return fmt.Errorf("--%s %w", flag, err)
		}
		list = append(list, c)
		return nil
	}
	for _, ports := range o.ports {
		for p := range strings.SplitSeq(ports, ",") {
			host, port, err := splitTarget(strings.TrimSpace(p))
			if err != nil {
				return nil, err
			}
			if err := add("port", "tcp", o.tcpTimeout, map[string]any{"host": host, "port": port}); err != nil {
				return nil, err
			}
		}
	}
	for i, u := range o.urls {
		options := map[string]any{
			"url": u, "expected_codes": successCodes(), "allow_redirects": true, "disable_tls_verification": o.insecureTLS,
		}
		if len(o.patterns) > 0 {
			options["expect_body"] = o.patterns[i]
		}
		if err := add("http", "http", o.httpTimeout, options); err != nil {
			return nil, err
		}
	}
	for _, s := range o.scripts {
		if err := add("script", "script", o.scriptTimeout, map[string]any{"command": s}); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// splitTarget returns the host and port of an option --port.
func splitTarget(s string) (host string, port int, err error) {
	host, text := "127.0.0.1", s
	if h, p, err := net.SplitHostPort(s); err == nil {
		host, text = h, p
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, fmt.Errorf("--port must be from 1 to 65535, or a host and such a port as in db.example:5432, got %q", s)
	}
	return host, int(n), nil
}

// successCodes returns 200 to 299.
func successCodes() []any {
	codes := make([]any, 100)
	for i := range codes {
		codes[i] = 200 + i
	}
	return codes
}

// longestTimeout returns how long the checks may take.
func longestTimeout(checks []*check.ConfiguredCheck) (longest time.Duration) {
	for _, c := range checks {
		longest = max(longest, c.Timeout)
	}
	return longest
}

// commands returns the command lines of the scripts.
func (o *aggregateChecks) commands(service string) (commands []scriptCommand) {
	for _, s := range o.scripts {
		if argv, err := check.SplitCommand(s); err == nil { // o.checks has returned this error
			commands = append(commands, scriptCommand{service, argv})
		}
	}
	return commands
}
