package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SecretLocations returns the places in the configuration that hold a password or a token, or what may be one: the key,
// or the service, the type of the check and its option. It returns each place once, and no values.
func (c *Config) SecretLocations() (places []string) {
	for _, s := range []struct {
		key    string
		secret Secret
	}{
		{"mysql_password", c.MySQLPassword},
		{"redis_password", c.RedisPassword},
		{"remote_spool_token", c.RemoteSpoolToken},
	} {
		if s.secret.IsSet() {
			places = append(places, s.key)
		}
	}
	seen := map[string]bool{}
	for _, s := range c.Services {
		for _, one := range s.Checks {
			for _, option := range one.secretOptionNames() {
				place := "services: " + s.Name + ": " + one.Spec.Type + " " + option
				if !seen[place] {
					seen[place] = true
					places = append(places, place)
				}
			}
		}
	}
	return places
}

// secretOptionNames returns the options of a check that hold a secret, or what may be one.
func (c Check) secretOptionNames() (options []string) {
	for name, secret := range secretOptions(c.Spec.Type) {
		if value := c.Spec.Options[name]; secret && holdsSecret(name, value) {
			options = append(options, name)
		}
	}
	slices.Sort(options)
	if argv := c.scriptWords(); len(argv) > 0 && mayHoldSecret(argv[1:]) {
		options = append(options, "command")
	}
	return options
}

// holdsSecret reports whether the value of an option that is marked as secret holds one. Some of these options, such as
// url, often hold none.
func holdsSecret(option string, value any) bool {
	switch v := value.(type) {
	case nil:
		return false
	case string:
		if option == "url" || option == "proxy_url" {
			u, err := url.Parse(v)
			return err == nil && u.User != nil
		}
		return v != ""
	case []any:
		if option == "headers" {
			return slices.ContainsFunc(v, func(pair any) bool {
				p, ok := pair.([]any)
				return ok && len(p) > 0 && !isPlainHeader(fmt.Sprint(p[0]))
			})
		}
		return len(v) > 0
	case map[string]any:
		if option == "headers" {
			for name := range v {
				if !isPlainHeader(name) {
					return true
				}
			}
			return false
		}
		return len(v) > 0
	}
	return true // a password may be a number
}

// plainHeaders are headers that hold no secret. Any other header may.
var plainHeaders = []string{
	"accept", "accept-charset", "accept-encoding", "accept-language", "cache-control", "connection", "content-type", "date",
	"forwarded", "from", "host", "if-match", "if-modified-since", "if-none-match", "origin", "pragma", "range", "referer",
	"user-agent", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip", "x-request-id",
}

func isPlainHeader(name string) bool { return slices.Contains(plainHeaders, strings.ToLower(name)) }

// mayHoldSecret reports whether one of the arguments of a command may be a password.
func mayHoldSecret(args []string) bool {
	named := false // the argument before names a secret
	for _, arg := range args {
		if named && !strings.HasPrefix(arg, "-") || mayBeSecret(arg) {
			return true
		}
		named = strings.HasPrefix(arg, "-") && namesSecret(arg)
	}
	return false
}

// namesSecret reports whether the name of an option or a variable suggests that its value is a secret.
func namesSecret(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc([]string{"pass", "pwd", "secret", "token", "key", "auth", "cred", "community"}, func(part string) bool {
		return strings.Contains(name, part)
	})
}

// mayBeSecret reports whether an argument may be a password. It returns false for a number, a time, a path, an address
// and the name of an option.
func mayBeSecret(arg string) bool {
	name, value, hasValue := strings.Cut(arg, "=")
	_, notNumber := strconv.ParseFloat(arg, 64)
	_, notTime := time.ParseDuration(arg)
	_, notAddr := netip.ParseAddr(arg)
	_, notAddrPort := netip.ParseAddrPort(arg)
	switch {
	case strings.Contains(arg, "://"):
		u, err := url.Parse(arg)
		return err != nil || u.User != nil || u.RawQuery != ""
	case hasValue:
		return value != "" && (namesSecret(name) || mayBeSecret(value))
	case arg == "", arg == "localhost", strings.HasPrefix(arg, "localhost:"), strings.HasPrefix(arg, "/"), strings.HasPrefix(arg, "./"),
		notNumber == nil, notTime == nil, notAddr == nil, notAddrPort == nil, strings.HasPrefix(arg, "--"):
		return false
	case strings.HasPrefix(arg, "-") && len(arg) > 2: // "-timeout" is a name, "-ps3cret" and "-p=x" are not
		return !consistsOf(arg[1:], letters+"-") && mayBeSecret(arg[2:])
	}
	return !strings.HasPrefix(arg, "-")
}
