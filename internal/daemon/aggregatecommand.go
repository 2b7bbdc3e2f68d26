package daemon

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"hacheck/internal/aggregate"
	"hacheck/internal/check"
	"hacheck/internal/health"
	"hacheck/internal/httpserver"
	"hacheck/internal/loglimit"
	"hacheck/internal/proxy/fastpath"
	"hacheck/internal/spool"
)

const (
	defaultListener = "0.0.0.0:5500"
	// aggregateMaxClients is twice the number of requests that are checked at once: all of them are for one service,
	// and a service may have half of MaxClients.
	aggregateMaxClients = 1024
)

const aggregateAbout = `Usage: hacheck aggregate [options]

Answer any URL with 200 while every port accepts connections, every URL answers 2xx and every script exits
with 0, and with 504 and what failed otherwise, as gruntwork's health-checker does. It has no cache: each
request runs all checks.

`

// aggregateOptions are the command line of hacheck aggregate.
type aggregateOptions struct {
	aggregateChecks
	listener     string
	timeouts     aggregate.Timeouts
	singleflight bool
	detailed     bool
	logLevel     string
	service      string
	spoolRoot    string
}

func runAggregate(args []string, env Env) int {
	sig := prepareProcess()
	var o aggregateOptions
	f := pflag.NewFlagSet("hacheck aggregate", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&o.listener, "listener", defaultListener, "answer on this `IP:PORT`")
	o.addFlags(f)
	o.timeouts.Read, o.timeouts.Idle = httpserver.HeadTimeout, httpserver.IdleTimeout
	f.Var((*secondsFlag)(&o.timeouts.Read), "http-read-timeout", "how many `SECONDS` a request may take to arrive")
	f.Var((*secondsFlag)(&o.timeouts.Write), "http-write-timeout", "how many `SECONDS` an answer may take, the checks included; 0: as long as they take")
	f.Var((*secondsFlag)(&o.timeouts.Idle), "http-idle-timeout", "how many `SECONDS` a connection may wait for its next request")
	f.BoolVar(&o.detailed, "detailed-status", false, "answer in JSON: status, elapsed_time and the errors")
	f.BoolVar(&o.singleflight, "singleflight", false, "requests that come while another one checks share its result")
	f.StringVar(&o.logLevel, "log-level", "info", "log `LEVEL` and above to stdout: debug, info, warning or error")
	f.StringVar(&o.service, "service", "", "obey the overrides of service `NAME` too, not only those of all")
	f.StringVar(&o.spoolRoot, "spool-root", defaultSpoolRoot, "`DIR` that holds the overrides; when it does not exist there are none")
	if done, code := parseSubcommand(f, aggregateAbout, args, env); done {
		return code
	}
	if f.NArg() > 0 {
		return usage(f, env, fmt.Errorf("unexpected argument %q; what to check is named with --port, --http and --script", f.Arg(0)))
	}
	if !isListener(o.listener) {
		return usage(f, env, fmt.Errorf("--listener must be an address and a port, such as %s, got %q", defaultListener, o.listener))
	}
	configured, err := o.checks()
	if err != nil {
		return usage(f, env, err)
	}
	if longest := longestTimeout(configured); o.timeouts.Write > 0 && o.timeouts.Write <= longest {
		return usage(f, env, fmt.Errorf("--http-write-timeout must be longer than the longest check, which may take %v, got %v", longest, o.timeouts.Write))
	}
	level, ok := map[string]slog.Level{
		"trace": slog.LevelDebug, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warning": slog.LevelWarn, "warn": slog.LevelWarn,
		"error": slog.LevelError, "fatal": slog.LevelError, "panic": slog.LevelError,
	}[strings.ToLower(o.logLevel)]
	if !ok {
		return usage(f, env, fmt.Errorf("--log-level must be debug, info, warning or error, got %q", o.logLevel))
	}
	if o.service != "" && !spool.ValidService(o.service) {
		return usage(f, env, fmt.Errorf("--service %q is no service name: use letters, digits, '.', '_' and '-'", o.service))
	}
	if err := o.serve(configured, env.Version, slog.New(newStreamHandler(env.Stdout, level)), sig); err != nil {
		printError(env.Stderr, "hacheck aggregate: %v", err)
		return 1
	}
	return 0
}

// isListener reports whether s is a port with or without an address. It does not check that this machine has the
// address.
func isListener(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil || port == "" {
		return false
	}
	_, err = net.LookupPort("tcp", port)
	return err == nil
}

func (o *aggregateOptions) serve(configured []*check.ConfiguredCheck, version string, log *slog.Logger, sig signals) error {
	service := cmp.Or(o.service, spool.All)
	overrides, err := openOverrides(o.spoolRoot, log)
	if err != nil {
		return err
	}
	limit := longestTimeout(configured)
	evaluator := health.New(health.Options{
		Overrides: overrides,
		Checks:    check.All(check.Options{Version: version, Services: map[string][]*check.ConfiguredCheck{service: configured}}),
		// Each request skips the cache; the evaluator applies overrides and limits, and logs.
		CacheMaxEntries: 1, Timeout: limit + time.Second, MaxClients: aggregateMaxClients, Log: log, LogLimit: loglimit.New(log),
	})
	template := health.Request{Target: check.Target{Protocol: "checks", Service: service, Host: "127.0.0.1"}, Local: true, NoCache: true, NoShare: !o.singleflight}
	conns := newConnLimiter(log)
	srv := newServer(aggregate.NewServer(&aggregate.Handler{
		Evaluate: func(hops uint8) health.Verdict {
			request := template
			request.Target.Hops = hops
			return evaluator.Evaluate(&request)
		},
		Log: log, Detailed: o.detailed,
	}, limit, conns, o.timeouts))
	host, _, _ := net.SplitHostPort(o.listener) // isListener has returned true
	ln, err := net.Listen(networkOf(host), o.listener)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", o.listener, err)
	}
	go warnAboutScripts(log, o.commands(service)) // in the background: a script may be on a file server that hangs
	log.Info("hacheck aggregate answers", "listen", ln.Addr().String(), "checks", len(configured), "service", service)
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(fastpath.ListenPlain(ln, fastpath.Options{Conns: conns})) }()
	select {
	case err := <-failed:
		return fmt.Errorf("answer requests: %w", err)
	case s := <-sig.stop:
		log.Info("stopping; requests in flight are answered first", "signal", s.String())
		ctx, cancel := context.WithTimeout(context.Background(), limit+stopMargin)
		defer cancel()
		go whenIdle(ctx, func() bool { return evaluator.Stats().InFlight > 0 }, func() { _ = srv.Close() })
		_ = srv.Shutdown(ctx) // an error: some connections were cut off
		return nil
	}
}
