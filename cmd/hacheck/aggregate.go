package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"

	"hacheck/internal/aggregate"
	"hacheck/internal/check"
	"hacheck/internal/health"
	"hacheck/internal/loglimit"
	"hacheck/internal/proxy/fastpath"
	"hacheck/internal/spool"
)

const (
	aggregateListener = "0.0.0.0:5500"
	portTimeout       = 5 * time.Second // health-checker's, for a TCP port
	// aggregateChecks is twice the number of requests that are checked at once, each with all checks: all of them are
	// for one service, and that may have half of the slots.
	aggregateChecks = 1024
)

const aggregateAbout = `Usage: hacheck aggregate [options]

Answer any URL with 200 while every port accepts connections and every script exits with 0, and with
504 and what failed otherwise, as gruntwork's health-checker does. Nothing is kept: each request checks.

`

// aggregateOptions are the command line of hacheck aggregate.
type aggregateOptions struct {
	listener      string
	ports         []string
	scripts       []string
	scriptTimeout int
	singleflight  bool
	logLevel      string
	service       string
	spoolRoot     string
}

func runAggregate(args []string, sig signals, stdout, stderr io.Writer) int {
	var o aggregateOptions
	f := pflag.NewFlagSet("hacheck aggregate", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&o.listener, "listener", aggregateListener, "answer on this `IP:PORT`")
	f.StringArrayVar(&o.ports, "port", nil, "check that 127.0.0.1 accepts connections on `PORT`; repeat for more")
	f.StringArrayVar(&o.scripts, "script", nil, "check that `COMMAND` exits with 0 (words are split as a shell does, nothing is expanded); repeat for more")
	f.IntVar(&o.scriptTimeout, "script-timeout", 5, "kill a script after this many `SECONDS`")
	f.BoolVar(&o.singleflight, "singleflight", false, "requests that come while another one checks share its result")
	f.StringVar(&o.logLevel, "log-level", "info", "log `LEVEL` and above to stdout: debug, info, warning or error")
	f.StringVar(&o.service, "service", "", "obey the overrides of service `NAME`, besides those of all")
	f.StringVar(&o.spoolRoot, "spool-root", defaultSpoolRoot, "`DIR` that holds the overrides; when it does not exist there are none")
	if done, code := parseSub(f, aggregateAbout, args, stdout, stderr); done {
		return code
	}
	if f.NArg() > 0 {
		return usage(f, stderr, fmt.Errorf("unexpected argument %q; ports and scripts are named with --port and --script", f.Arg(0)))
	}
	if !isListener(o.listener) {
		return usage(f, stderr, fmt.Errorf("--listener must be an address and a port, such as %s, got %q", aggregateListener, o.listener))
	}
	configured, err := o.checks()
	if err != nil {
		return usage(f, stderr, err)
	}
	level, ok := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warning": slog.LevelWarn, "warn": slog.LevelWarn,
		"error": slog.LevelError, "fatal": slog.LevelError, "panic": slog.LevelError,
	}[o.logLevel]
	if !ok {
		return usage(f, stderr, fmt.Errorf("--log-level must be debug, info, warning or error, got %q", o.logLevel))
	}
	if o.service != "" && !spool.ValidService(o.service) {
		return usage(f, stderr, fmt.Errorf("--service %q is no service name: use letters, digits, '.', '_' and '-'", o.service))
	}
	if err := o.serve(configured, slog.New(newHandler("text", stdout, level)), sig); err != nil {
		complain(stderr, "hacheck aggregate: %v", err)
		return 1
	}
	return 0
}

// isListener reports whether s is an address, or none, and a port. Whether the address is one of this
// machine is found out when it is listened on.
func isListener(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil || port == "" {
		return false
	}
	_, err = net.LookupPort("tcp", port)
	return err == nil
}

// checks are what the command line asks for.
func (o *aggregateOptions) checks() ([]*check.Configured, error) {
	if len(o.ports)+len(o.scripts) == 0 {
		return nil, errors.New("nothing to check: at least one --port or --script is needed")
	}
	if o.scriptTimeout < 1 || o.scriptTimeout > 3600 {
		return nil, fmt.Errorf("--script-timeout must be from 1 to 3600 seconds, got %d", o.scriptTimeout)
	}
	var list []*check.Configured
	defaults := check.Defaults{Scripts: check.NewScripts(check.DefaultScripts)}
	add := func(flag string, s check.Spec) error {
		c, err := check.Build(s, defaults)
		if err != nil {
			return fmt.Errorf("--%s %w", flag, err)
		}
		list = append(list, c)
		return nil
	}
	for _, p := range o.ports {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("--port must be from 1 to 65535, got %q", p)
		}
		if err := add("port", check.Spec{Type: "tcp", Options: map[string]any{
			"host": "127.0.0.1", "port": int(n), "timeout": portTimeout.Seconds(),
		}}); err != nil {
			return nil, err
		}
	}
	for _, s := range o.scripts {
		if err := add("script", check.Spec{Type: "script", Options: map[string]any{"command": s, "timeout": o.scriptTimeout}}); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// commands are the scripts, which checks has split without an error.
func (o *aggregateOptions) commands(service string) (commands []command) {
	for _, s := range o.scripts {
		if argv, err := check.SplitCommand(s); err == nil {
			commands = append(commands, command{service, argv})
		}
	}
	return commands
}

func (o *aggregateOptions) serve(configured []*check.Configured, log *slog.Logger, sig signals) error {
	service := o.service
	if service == "" {
		service = spool.All
	}
	overrides, err := openOverrides(o.spoolRoot, log)
	if err != nil {
		return err
	}
	limit := portTimeout
	for _, c := range configured {
		limit = max(limit, c.Timeout)
	}
	judge := health.New(health.Options{
		Overrides: overrides,
		Checks:    check.All(check.Options{Version: version, Services: map[string][]*check.Configured{service: configured}}),
		// Nothing is kept; the judge is there for overrides, limits and the log.
		CacheMaxEntries: 1, Timeout: limit + time.Second, MaxClients: aggregateChecks, Log: log, LogLimit: loglimit.New(log),
	})
	ask := health.Request{Target: check.Target{Protocol: "checks", Service: service, Host: "127.0.0.1"}, Local: true, NoCache: true, NoShare: !o.singleflight}
	srv := newServer(aggregate.Server(&aggregate.Handler{
		Evaluate: func(hops uint8) health.Verdict {
			a := ask
			a.Target.Hops = hops
			return judge.Evaluate(&a)
		},
		Log: log,
	}, limit))
	host, _, _ := net.SplitHostPort(o.listener) // isListener has seen it
	ln, err := net.Listen(networkOf(host), o.listener)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", o.listener, err)
	}
	go warnOfScripts(log, o.commands(service)) // a script may be on a file server that hangs
	log.Info("hacheck aggregate answers", "listen", ln.Addr().String(), "checks", len(configured), "service", service)
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(newConnLimiter(log).Listener(fastpath.HostLines(ln))) }()
	select {
	case err := <-failed:
		return fmt.Errorf("answer requests: %w", err)
	case s := <-sig.stop:
		log.Info("stopping; requests in flight are answered first", "signal", s.String())
		ctx, cancel := context.WithTimeout(context.Background(), limit+stopMargin)
		defer cancel()
		go whenQuiet(ctx, func() bool { return judge.Stats().InFlight > 0 }, func() { _ = srv.Close() })
		if err := srv.Shutdown(ctx); err != nil {
			_ = srv.Close()
		}
		return nil
	}
}

// openOverrides follows the spool directory of a door that can do without one: as long as it does not exist,
// nothing is said about anything. One that cannot be read is an error, or an operator would be ignored.
func openOverrides(root string, log *slog.Logger) (health.Overrides, error) {
	late := &lateOverrides{root: root, log: log}
	if late.missing() {
		log.Info("no spool directory, so there are no overrides", "spool", root)
		return late, nil
	}
	return late.open()
}

// lateOverrides are those of a directory that did not exist at the start: none, until the first hadown on
// this host makes it.
type lateOverrides struct {
	root  string
	log   *slog.Logger
	index atomic.Pointer[spool.Index] // nil until there is a directory

	mu     sync.Mutex // of who opens it
	failed bool       // it is there and could not be read, and the log has it
}

func (l *lateOverrides) missing() bool {
	_, err := os.Lstat(path.Clean(l.root))
	return errors.Is(err, fs.ErrNotExist)
}

func (l *lateOverrides) open() (*spool.Index, error) {
	dir, err := spool.OpenDir(l.root)
	if err != nil {
		return nil, err
	}
	warnOfSpool(l.log, dir.Root())
	return spool.OpenIndex(dir, spool.IndexOptions{Log: l.log, LogLimit: loglimit.New(l.log)})
}

// Lookup implements health.Overrides. It looks for the directory each time, so that what hadown has said
// holds once it has returned.
func (l *lateOverrides) Lookup(service, host string, port uint16, here bool) spool.View {
	if l.index.Load() == nil {
		l.appear()
	}
	if x := l.index.Load(); x != nil {
		return x.Lookup(service, host, port, here)
	}
	return spool.View{}
}

// appear opens the directory if it is there now.
func (l *lateOverrides) appear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.index.Load() != nil || l.missing() {
		return
	}
	x, err := l.open()
	switch {
	case err == nil:
		l.index.Store(x)
		l.log.Info("there is a spool directory now, its overrides are obeyed", "spool", l.root)
	case !l.failed:
		l.failed = true
		l.log.Error("there is a spool directory now, but it cannot be read: its overrides are not obeyed", "spool", l.root, "err", err)
	}
}
