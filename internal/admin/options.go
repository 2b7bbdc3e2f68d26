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

// options is a parsed command line that validate has not checked yet.
type options struct {
	spoolRoot  string
	action     action
	port       uint16 // 0: the whole service
	host       string // as typed; "" when not given
	reason     string // "" for the default, as in the original tools
	expiration float64
	duration   time.Duration
	daemon     daemonAddr
	json       bool
	help       bool
	version    bool
	names      []string

	untilBoot    bool // hadown: the override ends with the next start of the machine
	drain, maint bool // how hadown takes the service out
	forceUp      bool // haup: up whatever the check finds
	weight       int  // haup: the part of its traffic in percent; 0 without --weight
	safe         bool
	wait         time.Duration // for the balancers; 0 without --wait
	fall         int           // answers after which a balancer that sends no state has the service out
	allowUnknown bool          // --wait succeeds for a service that no balancer asks about
	connections  bool          // --wait also waits for the connections that the kernel knows
	watch        time.Duration // between two frames of hastatus; 0 without --watch
	fleet        fleetOptions

	hasReason, hasExpiration, hasDuration, hasFall, hasDaemon, hasSpoolRoot bool
	isWaitBare, isWatchBare                                                 bool // --wait, --watch without "=DURATION"
}

// The defaults of --wait and --fall, and the largest --fall.
const (
	defaultWait = 5 * time.Minute
	defaultFall = 3 // HAProxy's own
	maxFall     = 100
)

// flagSet returns the options. All five commands take the same options, because -a turns any command into another and
// because scripts for the original tools use options that mean nothing, as in `haup -r done web`. validate refuses such
// uses of newer options.
func flagSet(o *options) *pflag.FlagSet {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.SortFlags = false
	fs.StringVarP(&o.reason, "reason", "r", "", "the `TEXT` of the reason; default: $SUDO_USER, $SSH_USER, the user's\nname or number")
	fs.FuncP("expiration", "e", "end by itself at this `UNIX` time in seconds", func(s string) (err error) {
		o.expiration, err = parseUnix(s)
		o.hasExpiration = true
		return err
	})
	fs.Func("for", "end by itself after this `TIME`: 90s, 2h30m, 1d", func(s string) (err error) {
		o.duration, err = parseDuration(s)
		o.hasDuration = true
		return err
	})
	fs.BoolVar(&o.untilBoot, "until-boot", false, "end with the next start of this machine; an override\nthat is there already is not replaced")
	fs.FuncP("service-port", "P", "only the instance on port `N`", func(s string) (err error) {
		o.port, err = parsePort(s)
		return err
	})
	fs.StringVarP(&o.host, "service-host", "H", "", "only the instance at address `IP`; needs -P")
	fs.BoolVar(&o.drain, "drain", false, "let open sessions end, but send no new ones")
	fs.BoolVar(&o.maint, "maint", false, "down, and MAINT by HAProxy's agent check; with --wait it\ndrains first")
	fs.BoolVar(&o.forceUp, "force-up", false, "up whatever the service's own check finds, until the next\nhaup")
	fs.Func("weight", "up with this `PERCENT` of the weight that HAProxy has\nconfigured: 1% to 100%; its agent check reads it; with --for\nit ends by itself", func(s string) (err error) {
		o.weight, err = parseWeight(s)
		return err
	})
	fs.Var((*waitValue)(o), "wait", "return when every balancer that asks has taken the service\nout, or has it back up, or after DURATION\n(default 5m)")
	fs.Lookup("wait").NoOptDefVal = noDuration
	fs.BoolVar(&o.connections, "connections", false, "with --wait, wait also for the connections to the service's\nports on this host that the kernel knows")
	fs.BoolVar(&o.allowUnknown, "allow-unknown", false, "with --wait, succeed also if no balancer asks about the\nservice, as on a new host")
	fs.BoolVar(&o.safe, "safe", false, "change nothing unless every balancer that asks has another\nserver left")
	o.fall = defaultFall
	fs.Func("fall", "with --wait, a balancer that sends no state has the service\nout after `N` answers (default 3)", func(s string) error {
		n, err := strconv.ParseUint(s, 10, 8)
		if err != nil || n == 0 || n > maxFall {
			return fmt.Errorf("want a number of answers from 1 to %d", maxFall)
		}
		o.fall, o.hasFall = int(n), true
		return nil
	})
	o.fleet.addFlags(fs)
	fs.FuncP("action", "a", "act as another command, with its options; `ACTION` is up, down,\nstatus, status_downed or list", func(s string) error {
		o.action = action(s)
		for _, a := range commands {
			if a == o.action {
				return nil
			}
		}
		return errors.New("want up, down, status, status_downed or list")
	})
	fs.StringVar(&o.spoolRoot, "spool-root", DefaultSpoolRoot, "the overrides are in `DIR`")
	o.daemon = defaultDaemon
	fs.FuncP("port", "p", "the daemon is on `[HOST:]N` (default 127.0.0.1:3333); every\ncommand asks it whether it reads DIR, --wait, --safe, halist\nand hastatus ask for more; -p '': ask no daemon", func(s string) (err error) {
		if o.hasDaemon = true; s == "" {
			o.daemon = daemonAddr{}
			return nil
		}
		o.daemon, err = parseDaemon(s)
		return err
	})
	fs.Var((*watchValue)(o), "watch", "show it every DURATION (default 2s), on a terminal in place,\nwith a star before lines that have changed in the last 5s; q\nor ^C ends it")
	fs.Lookup("watch").NoOptDefVal = noDuration
	fs.BoolVar(&o.json, "json", false, "print one JSON document; with --wait one event per line")
	fs.BoolVarP(&o.help, "help", "h", false, "print this help")
	fs.BoolVar(&o.version, "version", false, "print the version")
	return fs
}

// parse reads the command line of a command. Its errors are messages for the user.
func parse(name string, args []string) (options, error) {
	o := options{action: commands[name]}
	fs := flagSet(&o)
	if err := cmdline.Parse(fs, args); err != nil {
		return o, err
	}
	o.names = fs.Args()
	o.hasReason = fs.Changed("reason")
	o.hasSpoolRoot = fs.Changed("spool-root")
	o.fleet.hasSocket = fs.Changed("control-socket")
	return o, nil
}

// waitValue is the optional value of --wait.
type waitValue options

// noDuration is the value that pflag sets for --wait without a value, and shows in the help.
const noDuration = "DURATION"

// String returns "", because the help has the default in words.
func (w *waitValue) String() string { return "" }

// Type returns the type for which pflag does not require a value.
func (w *waitValue) Type() string { return "bool" }

// Set reads a duration.
func (w *waitValue) Set(s string) error {
	w.isWaitBare = s == noDuration
	if w.isWaitBare {
		w.wait = defaultWait
		return nil
	}
	d, err := parseDuration(s)
	if errors.Is(err, errTooLong) {
		err = errors.New("that is more than a hundred years")
	}
	w.wait = d
	return err
}

// writesOverride reports whether the command writes an override, rather than lifts or shows one.
func (o *options) writesOverride() bool { return o.action == actDown || o.forceUp }

// state returns the state of the override that the command writes.
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

// expiresAt returns when an override that is written now ends by itself, zero for never.
func (o *options) expiresAt(now time.Time) time.Time {
	switch {
	case o.hasExpiration:
		whole, part := math.Modf(o.expiration)
		return time.Unix(int64(whole), int64(part*1e9))
	case o.hasDuration:
		return now.Add(o.duration)
	}
	return time.Time{}
}
