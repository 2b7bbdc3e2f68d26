package admin

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"hacheck/internal/cmdline"
	"hacheck/internal/spool"
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
