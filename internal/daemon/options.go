package daemon

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"hacheck/internal/cmdline"
	"hacheck/internal/config"
	"hacheck/internal/control"
)

const (
	defaultPort      = 3333
	defaultBind      = "0.0.0.0"
	defaultSpoolRoot = "/var/spool/hacheck"
)

// options are the options of the daemon's command line.
type options struct {
	configFile         string // "" is none
	ports              []uint16
	agentPorts         []uint16
	bind               string
	bindGiven          bool // on the command line
	spoolRoot          string
	controlSocket      string // "" is none
	controlSocketGiven bool   // on the command line
	procs              int    // 0: as many processors as there are
	verbose            bool
	agentOnly          bool
	checkConfig        bool
	checkReload        bool
	ignored            []string // positional arguments; the original ignored them too
}

const about = `hacheck answers the health checks of load balancers, by default on port 3333. An override that
an operator has set with hadown or haup decides. Without one, a check of the service decides.`

const signalsAndExitStatus = `Signals:
  SIGTERM, SIGINT, SIGQUIT   accept no more, answer the requests in flight, exit with 0;
                             the second one exits at once, with 1
  SIGHUP                     read the configuration file again and reopen the log; a wrong file changes
                             nothing and is logged

Exit status: 0 stopped by a signal, 1 the machine does not let it start, 2 the command line or the
configuration file is wrong. A crash ends it by SIGABRT.
`

// parseOptions parses the command line of the daemon. It prints --help and --version to env.Stdout, and then returns
// nil and no error.
func parseOptions(args []string, env Env) (*options, error) {
	o := &options{}
	f := pflag.NewFlagSet("hacheck", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	f.SortFlags = false
	f.StringVarP(&o.configFile, "config-file", "c", "", "read the configuration from `FILE` (YAML, keys see below)")
	f.VarP((*portList)(&o.ports), "port", "p", "answer on port `N`; repeat for more ports (default 3333)")
	f.VarP((*portList)(&o.agentPorts), "agent-port", "A", "answer HAProxy's agent-check on port `N`; repeat for more ports; a\nbalancer that sends no service gets the answer for all")
	f.StringVarP(&o.bind, "bind-address", "B", defaultBind, "answer on this `ADDRESS`; :: is IPv6 and IPv4")
	f.StringVar(&o.spoolRoot, "spool-root", defaultSpoolRoot, "`DIR` with the overrides, made with mode 0750 if missing")
	f.StringVar(&o.controlSocket, "control-socket", control.DefaultSocket, "answer the commands of this host on the socket `PATH`; '' is none")
	f.IntVarP(&o.procs, "num-procs", "n", 0, "use at most `N` processors; the original needed a process for\neach; hacheck is one process that uses all of them (0, the default)")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log every request")
	f.BoolVarP(&o.agentOnly, "no-check-spool-on-http", "S", false, "answer HTTP checks as the service does, whatever overrides say;\nthe agent (-A), /spool/... and force-up still obey them")
	f.BoolVar(&o.checkConfig, "check-config", false, "print what is wrong with the configuration file and exit, with 2\nif anything is, also for an unknown key")
	f.BoolVar(&o.checkReload, "check-reload", false, "print what would make a reload fail and exit, with 2 if anything\nwould, but not for an unknown key; systemctl reload does this first")
	showHelp := f.BoolP("help", "h", false, "print this help")
	showVersion := f.Bool("version", false, "print the version")

	if err := cmdline.Parse(f, args); err != nil {
		return nil, &usageError{err}
	}
	if *showHelp {
		_, _ = io.WriteString(env.Stdout, help(f))
		return nil, nil
	}
	if *showVersion {
		_, _ = fmt.Fprintf(env.Stdout, "hacheck %s\n", env.Version)
		return nil, nil
	}
	o.ignored = f.Args()
	o.bindGiven = f.Changed("bind-address")
	o.controlSocketGiven = f.Changed("control-socket")
	if err := o.check(); err != nil {
		return nil, &usageError{err}
	}
	return o, nil
}

// check returns an error if options are wrong or exclude each other. It sets the default port.
func (o *options) check() error {
	if o.procs < 0 {
		return fmt.Errorf("option -n, --num-procs: invalid value %q: want a number of processors, or 0 for all", strconv.Itoa(o.procs))
	}
	if o.spoolRoot == "" {
		return errors.New("option --spool-root: invalid value \"\": want a directory")
	}
	if len(o.ports) == 0 {
		o.ports = []uint16{defaultPort}
	}
	for _, port := range o.agentPorts {
		if port != 0 && slices.Contains(o.ports, port) {
			return fmt.Errorf("option -A, --agent-port: port %d answers HTTP already (-p); the agent needs one of its own", port)
		}
	}
	if strings.HasPrefix(o.bind, "[") || strings.HasPrefix(o.bind, ":") && !isAddr(o.bind) {
		return fmt.Errorf("option -B, --bind-address: invalid value %q: want an address without brackets and port, or a host name", o.bind)
	}
	return nil
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// portList is the value of -p and -A. A port that is given twice counts once, as in the original.
type portList []uint16

// String returns "", so that the help shows the default in words.
func (p *portList) String() string { return "" }

// Type names the value in the help where the usage text does not.
func (p *portList) Type() string { return "port" }

// Set adds a port.
func (p *portList) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return errors.New("want a port from 1 to 65535, or 0 for any that is free")
	}
	if port := uint16(n); port == 0 || !slices.Contains(*p, port) {
		*p = append(*p, port)
	}
	return nil
}

// help returns the text of --help.
func help(f *pflag.FlagSet) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: hacheck [options]\n       hacheck %s ... (see hacheck SUBCOMMAND --help)\n\n%s\n\nOptions:\n%s\n", strings.Join(slices.Sorted(maps.Keys(subcommands)), "|"), about, f.FlagUsages())
	b.WriteString("Keys of the configuration file:\n")
	for _, k := range config.Keys() {
		def := k.Default
		if def == "" {
			def = "none"
		}
		fmt.Fprintf(&b, "  %-28s%s\n%30s%s; default %s\n", k.Name, k.Doc, "", k.Want, def)
	}
	return b.String() + "\n" + signalsAndExitStatus
}
