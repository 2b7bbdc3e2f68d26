package admin

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"hacheck/internal/cmdline"
	"hacheck/internal/spool"
	"hacheck/internal/textfmt"
)

// options is a command line that has been read but not yet been held against the rules.
type options struct {
	spoolRoot  string
	action     action
	port       uint16 // 0: the whole service
	host       string // as typed; "" when not given
	reason     string // "" asks for the default, as it did in the original
	expiration float64
	lasts      time.Duration
	daemon     daemon
	json       bool
	help       bool
	version    bool
	names      []string

	drain, maint bool // how hadown takes it out
	forceUp      bool // haup: up whatever the check finds
	safe         bool
	wait         time.Duration // for the balancers; 0: not at all
	fall         int           // answers after which a balancer that sends no state has it down

	hasReason, hasExpiration, hasLasts, hasFall, hasDaemon bool
	bareWait                                               bool // --wait without a length of time behind "="
}

// The defaults of --wait and --fall, and what --fall may be.
const (
	defaultWait = 5 * time.Minute
	defaultFall = 3 // HAProxy's own
	maxFall     = 100
)

// latest is the last second of the year 9999. What lies beyond is a number in milliseconds, not a plan.
const latest = 253402300799

// flagSet builds the option table. All five commands take the same options, because -a turns any of
// them into any other and because the original tools did: a script that says `haup -r done web` works.
// What the original did not have is refused where it means nothing, see check.
func flagSet(o *options) *pflag.FlagSet {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.SortFlags = false
	fs.StringVarP(&o.reason, "reason", "r", "", "`TEXT` that says why, for hadown; default: $SUDO_USER,\n$SSH_USER, the user's name or number")
	fs.FuncP("expiration", "e", "end by itself at this `UNIX` time in seconds, for hadown", func(s string) (err error) {
		o.expiration, err = parseUnix(s)
		o.hasExpiration = true
		return err
	})
	fs.Func("for", "end by itself after this `TIME`: 90s, 2h30m, 1d; for hadown", func(s string) (err error) {
		o.lasts, err = parseFor(s)
		o.hasLasts = true
		return err
	})
	fs.FuncP("service-port", "P", "only the instance on port `N`", func(s string) (err error) {
		o.port, err = parsePort(s)
		return err
	})
	fs.StringVarP(&o.host, "service-host", "H", "", "only the instance at address `IP`; needs -P")
	fs.BoolVar(&o.drain, "drain", false, "let what is open go on, but send nothing new; for hadown")
	fs.BoolVar(&o.maint, "maint", false, "down, and HAProxy's agent check shows MAINT; with --wait it\nis a drain first; for hadown")
	fs.BoolVar(&o.forceUp, "force-up", false, "up whatever the service's own check finds, until haup; for haup")
	fs.Var((*waitValue)(o), "wait", "return when every balancer that asks has taken it out, or has\nit back, at the latest after DURATION (default 5m)")
	fs.Lookup("wait").NoOptDefVal = noDuration
	fs.BoolVar(&o.safe, "safe", false, "only if every balancer that asks has another server left; for hadown")
	o.fall = defaultFall
	fs.Func("fall", "with --wait, a balancer that does not tell its state has taken it\nout after `N` answers (default 3); for hadown", func(s string) error {
		n, err := strconv.ParseUint(s, 10, 8)
		if err != nil || n == 0 || n > maxFall {
			return fmt.Errorf("want a number of answers from 1 to %d", maxFall)
		}
		o.fall, o.hasFall = int(n), true
		return nil
	})
	fs.FuncP("action", "a", "act as another command; `ACTION` is up, down, status,\nstatus_downed or list", func(s string) error {
		o.action = action(s)
		for _, a := range commands {
			if a == o.action {
				return nil
			}
		}
		return errors.New("want up, down, status, status_downed or list")
	})
	fs.StringVar(&o.spoolRoot, "spool-root", DefaultSpoolRoot, "`DIR` that holds the overrides")
	o.daemon = defaultDaemon
	fs.FuncP("port", "p", "ask the daemon on `[HOST:]N` (default 127.0.0.1:3333) for --wait,\n--safe, halist, the overview of hastatus, and whether it reads the\noverrides in DIR; -p '' asks none", func(s string) (err error) {
		if o.hasDaemon = true; s == "" {
			o.daemon = daemon{}
			return nil
		}
		o.daemon, err = parseDaemon(s)
		return err
	})
	fs.BoolVar(&o.json, "json", false, "print one JSON document; with --wait one event a line")
	fs.BoolVarP(&o.help, "help", "h", false, "print this help")
	fs.BoolVar(&o.version, "version", false, "print the version")
	return fs
}

// parse reads the command line of a command. Its errors are the user's to read.
func parse(name string, args []string) (options, error) {
	o := options{action: commands[name]}
	fs := flagSet(&o)
	if err := cmdline.Parse(fs, args); err != nil {
		return o, err
	}
	o.names = fs.Args()
	o.hasReason = fs.Changed("reason")
	return o, nil
}

// waitValue is the value of --wait, which is optional.
type waitValue options

// noDuration is what pflag sets for --wait without a value, and what it shows in the help.
const noDuration = "DURATION"

// String returns "", so that the help shows the default in words.
func (w *waitValue) String() string { return "" }

// Type returns the one that needs no value of its own.
func (w *waitValue) Type() string { return "bool" }

// Set reads a length of time.
func (w *waitValue) Set(s string) error {
	w.bareWait = s == noDuration
	if w.bareWait {
		w.wait = defaultWait
		return nil
	}
	d, err := parseFor(s)
	if errors.Is(err, errTooLong) {
		err = errors.New("that is more than a hundred years")
	}
	w.wait = d
	return err
}

// check holds the command line against the rules and returns what it is about, in the order given.
// Every name is looked at before any is touched: a command does all of what it was told or none of it.
func (o *options) check(now time.Time) ([]target, error) {
	switch o.action {
	case actUp, actDown:
		if len(o.names) == 0 {
			return nil, fmt.Errorf("expected args for action %s: name a service, or all", o.action)
		}
	case actStatus:
		if len(o.names) == 0 && (o.port != 0 || o.host != "") {
			return nil, fmt.Errorf("expected args for action %s: name a service, or all", o.action)
		}
	case actDowned, actList:
		if len(o.names) > 0 {
			return nil, fmt.Errorf("unexpected args for action %s: %q", o.action, o.names)
		}
	}
	if o.spoolRoot == "" {
		return nil, errors.New("option --spool-root: a directory is needed")
	}
	o.spoolRoot = filepath.Clean(o.spoolRoot) // "spool/" has the parent of "spool"
	if o.host != "" && o.port == 0 {
		return nil, fmt.Errorf("service port required if service host specified for action %s: add -P", o.action)
	}
	if o.hasLasts && o.action != actDown { // "haup web --for 30m" would not be down again after it
		return nil, fmt.Errorf("option --for is for hadown, it means nothing for action %s", o.action)
	}
	if err := o.checkWays(); err != nil {
		return nil, err
	}
	if o.daemon.none() && (o.wait != 0 || o.safe || o.action == actList) {
		return nil, errors.New("option -p, --port: it says to ask no daemon, and --wait, --safe and halist are about what the daemon knows")
	}
	if o.action == actDown {
		if o.hasExpiration && o.hasLasts {
			return nil, errors.New("-e and --for both say when it ends, give one of them")
		}
		if o.hasExpiration && o.expiration <= unix(now) {
			return nil, fmt.Errorf("option -e, --expiration: %s is in the past; to end in half an hour write --for 30m",
				strconv.FormatFloat(o.expiration, 'f', -1, 64))
		}
	}
	targets := make([]target, 0, len(o.names))
	for _, name := range o.names {
		t, err := newTarget(o.writes(), name, o.host, o.port)
		if err != nil {
			return nil, err
		}
		if (o.action == actUp || o.action == actDown) && slices.ContainsFunc(targets, func(u target) bool { return u.key == t.key }) {
			continue // named twice is once
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// checkWays holds the ways to go up and down, and to wait for it, against the action and each other.
func (o *options) checkWays() error {
	for _, way := range []struct {
		given bool
		name  string
		who   string
		in    []action
	}{
		{o.drain, "--drain", "hadown", []action{actDown}},
		{o.maint, "--maint", "hadown", []action{actDown}},
		{o.safe, "--safe", "hadown", []action{actDown}},
		{o.hasFall, "--fall", "hadown", []action{actDown}},
		{o.forceUp, "--force-up", "haup", []action{actUp}},
		{o.wait != 0, "--wait", "hadown and haup", []action{actDown, actUp}},
	} {
		if way.given && !slices.Contains(way.in, o.action) {
			return fmt.Errorf("option %s is for %s, it means nothing for action %s", way.name, way.who, o.action)
		}
	}
	switch {
	case o.drain && o.maint:
		return errors.New("--drain and --maint exclude each other; --maint --wait drains first")
	case o.hasFall && o.wait == 0:
		return errors.New("--fall is about --wait, and means nothing without it")
	case o.forceUp && o.hasReason: // haup takes and ignores it elsewhere, as the original did
		return errors.New("option -r, --reason is for hadown; --force-up notes who it was by itself")
	case o.forceUp && o.hasExpiration:
		return errors.New("option -e, --expiration is for hadown; --force-up ends with haup")
	}
	if o.bareWait {
		for _, name := range o.names {
			long := name
			if name != "" && strings.Trim(name, "0123456789") == "" {
				long += "s"
			}
			if _, err := parseFor(long); err == nil {
				return fmt.Errorf("%q would be taken for a service; how long to wait is written --wait=%s", name, long)
			}
		}
	}
	return nil
}

// writes says whether the command puts an override in force, rather than lifting or showing it.
func (o *options) writes() bool { return o.action == actDown || o.forceUp }

// state is the override that the command writes.
func (o *options) state() spool.State {
	switch {
	case o.forceUp:
		return spool.ForceUp
	case o.drain:
		return spool.Drain
	case o.maint:
		return spool.Maint
	}
	return spool.Down
}

// expires says when an override written now ends by itself; zero when it does not.
func (o *options) expires(now time.Time) time.Time {
	switch {
	case o.hasExpiration:
		whole, part := math.Modf(o.expiration)
		return time.Unix(int64(whole), int64(part*1e9))
	case o.hasLasts:
		return now.Add(o.lasts)
	}
	return time.Time{}
}

// target is one service, or one instance of one, that a command line names.
type target struct {
	key   spool.Key   // the override that is written
	also  []spool.Key // other names an override of the same target may have
	label string      // as hastatus prints it: svc, svc::port or svc:host:port
}

// keys are all the overrides that are about the target and nothing else.
func (t target) keys() []spool.Key { return append([]spool.Key{t.key}, t.also...) }

// loopback is the host whose instances have no host in their name, because the original tools dropped
// it when they wrote and the original daemon looks for nothing else.
const loopback = "127.0.0.1"

func newTarget(writes bool, name, host string, port uint16) (target, error) {
	t := target{key: spool.Key{Service: name, Port: port}, label: name}
	if host != "" {
		ip, err := parseHost(host)
		if err != nil {
			return t, err
		}
		if writes && (ip == "0.0.0.0" || ip == "::") { // a balancer that names these has named none
			return t, fmt.Errorf("option -H, --service-host: no instance is at %s, that would change nothing; leave -H away for port %d on this machine", ip, port)
		}
		if ip == loopback {
			t.also = []spool.Key{{Service: name, Host: ip, Port: port}}
		} else {
			t.key.Host = ip
		}
		host = ip
	}
	if port != 0 {
		t.label = fmt.Sprintf("%s:%s:%d", name, host, port)
	}
	if service, rest, found := strings.Cut(name, ":"); found && spool.ValidService(service) {
		// What hashowdowned shows, or the name of a spool file, typed back.
		hint := ""
		if _, err := parsePort(rest[strings.LastIndexByte(rest, ':')+1:]); err == nil {
			hint = fmt.Sprintf("; one instance is written %s -P %s", service, rest[strings.LastIndexByte(rest, ':')+1:])
		}
		return t, fmt.Errorf("%q is no service name, it has a colon%s", textfmt.OneLine(name), hint)
	}
	err := t.key.Check()
	if errors.Is(err, spool.ErrAllInstance) {
		if !writes {
			return t, nil // the original tools may have left one behind: it can be looked at and lifted
		}
		err = fmt.Errorf("%w; name all, or one service with -P %d", err, port)
	}
	return t, err
}

// parsePort reads a TCP port, 1 to 65535, decimal.
func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("want a port from 1 to 65535")
	}
	return uint16(n), nil
}

// parseHost reads the address of an instance and returns it in the form the daemon looks it up by.
func parseHost(s string) (string, error) {
	host := spool.CanonicalHost(s)
	if ip, err := netip.ParseAddr(host); err != nil || ip.Zone() != "" {
		return "", fmt.Errorf("option -H, --service-host: invalid value %q: want the IP address of the instance", s)
	}
	return host, nil
}

// parseUnix reads seconds since 1970, with or without a fraction.
func parseUnix(s string) (float64, error) {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange):
		return 0, errors.New("want a unix time in seconds; to end in half an hour write --for 30m")
	case math.IsNaN(f) || math.IsInf(f, 0):
		return 0, errors.New("that moment never comes; leave -e away, or write --for 30m to end in half an hour")
	case f > latest:
		return 0, errors.New("that is after the year 9999; want seconds, not milliseconds, or --for 30m")
	}
	return f, nil
}

var errTooLong = errors.New("that is more than a hundred years; leave --for away and it ends with haup")

// parseFor reads a length of time as time.ParseDuration does, and also days and weeks, the units in
// which downtimes are planned. Days are 24 hours, whatever the clocks do.
func parseFor(s string) (time.Duration, error) {
	const longest = 100 * 365 * 24 * time.Hour
	var total time.Duration
	rest := s
	for rest != "" {
		number := strings.IndexFunc(rest, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if number <= 0 {
			return 0, errors.New("want a number with a unit: 90s, 30m, 2h30m, 1d")
		}
		end := number + 1
		for end < len(rest) && rest[end] != '.' && (rest[end] < '0' || rest[end] > '9') {
			end++
		}
		unit := map[string]float64{"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}[rest[number:end]]
		n, err := strconv.ParseFloat(rest[:number], 64)
		if err != nil || unit == 0 {
			return 0, errors.New("want a number with a unit (s, m, h, d or w): 90s, 30m, 2h30m, 1d")
		}
		if n*unit > longest.Seconds() {
			return 0, errTooLong
		}
		total += time.Duration(n * unit * float64(time.Second))
		if total > longest { // after every step: three times a hundred years would overflow
			return 0, errTooLong
		}
		rest = rest[end:]
	}
	if total <= 0 {
		return 0, errors.New("want more than nothing: 90s, 30m, 2h30m, 1d")
	}
	return total, nil
}

// unix is a moment in the seconds of spool files and of /recent, to the last digit as the daemon says it.
func unix(t time.Time) float64 { return float64(t.Unix()) + float64(t.Nanosecond())/1e9 }
