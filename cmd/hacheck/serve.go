package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hacheck/internal/agent"
	"hacheck/internal/balancer"
	"hacheck/internal/check"
	"hacheck/internal/clients"
	"hacheck/internal/config"
	"hacheck/internal/health"
	"hacheck/internal/loglimit"
	"hacheck/internal/proxy"
	"hacheck/internal/spool"
	"hacheck/internal/systemd"
	"hacheck/internal/textfmt"
	"hacheck/internal/web"
)

const (
	// stopMargin is how much longer than a check may take the requests in flight have after SIGTERM.
	stopMargin = time.Second
	// stopQuiet is how long after SIGTERM a connection may go on being silent, when no check is under way.
	stopQuiet = time.Second
	// logPatience is how long the end of the process waits for the log to be written.
	logPatience = time.Second
)

// daemon is everything that lives until the process ends.
type daemon struct {
	opts      *options
	log       *slog.Logger
	logLimit  *loglimit.Limiter
	handler   *switchHandler
	sink      *logSink
	dir       *spool.Dir
	index     *spool.Index
	door      *proxy.Server
	web       *web.Server
	conns     *clients.ConnLimiter // of all listeners
	server    *server
	manager   *systemd.Manager
	inherited inherited
	listeners []net.Listener
	accepting []net.Listener // the same, as the door accepts from them
	patience  patience
	conf      atomic.Pointer[config.Config]
	services  serviceDoors
	balancers *balancer.Table
	counters  *health.Counters
	judge     atomic.Pointer[health.Evaluator] // the one in force
	reloads   struct {
		done, failed atomic.Uint64
		last         atomic.Int64 // unix milliseconds
	}
	passes  agent.Successes
	agent   *agent.Agent
	agents  []agentPort    // of -A
	scripts *check.Scripts // one for all, also across reloads: never two of the same script

	modes sync.Mutex // held while warnOfModes looks at files

	mu     sync.Mutex
	judges []*health.Evaluator // the one in force, last, and those before it that still have checks under way
}

// loadConfig reads the configuration file if there is one.
func loadConfig(path string) (*config.Config, []config.Warning, error) {
	if path == "" {
		return config.Default(), nil, nil
	}
	return config.Load(path)
}

// checkConfig is --check-config. Warnings, which do not keep the daemon from starting, are errors here.
func checkConfig(o *options, stdout io.Writer) error {
	if o.configFile == "" {
		return &usageError{errors.New("option --check-config needs a configuration file: -c FILE")}
	}
	_, warnings, err := config.Load(o.configFile)
	if err != nil || len(warnings) > 0 {
		return wrongConfig(warnings, err)
	}
	_, err = fmt.Fprintf(stdout, "%s: ok\n", o.configFile)
	return err
}

// wrongConfig returns an error that lists everything that is to be said about a configuration file.
func wrongConfig(warnings []config.Warning, err error) error {
	var said []string
	for _, w := range warnings {
		said = append(said, w.String())
	}
	if err != nil {
		said = append(said, err.Error())
	}
	return &configError{errors.New(strings.Join(said, "\n"))}
}

// serve is the life of the daemon: from its start until a signal ends it.
func serve(o *options, sig signals) error {
	type outcome struct {
		d   *daemon
		err error
	}
	started := make(chan outcome, 1)
	go func() {
		d, err := start(o)
		started <- outcome{d, err}
	}()
	var d *daemon
	select {
	case <-sig.stop: // nobody has been promised an answer yet
		return nil
	case s := <-started:
		if s.err != nil {
			return s.err
		}
		d = s.d
	}
	return d.run(sig)
}

// start brings everything up but the answering. What it has opened when it fails, the end of the process
// closes; what it has logged is written before.
func start(o *options) (_ *daemon, err error) {
	manager, err := systemd.Take()
	if err != nil {
		return nil, err
	}
	c, warnings, err := loadConfig(o.configFile)
	if err != nil {
		return nil, wrongConfig(warnings, err)
	}
	if err := setNoFile(c.RlimitNoFile); err != nil {
		return nil, err
	}
	// Only ever down: once it was set, the runtime no longer follows the limits of its container.
	if o.procs > 0 && o.procs < runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(o.procs)
	}
	tuneCollector()
	target, err := openLog(c.LogPath)
	if err != nil {
		return nil, err
	}
	d := &daemon{opts: o, sink: newLogSink(target, lostLine(c.LogFormat)), scripts: check.NewScripts(check.DefaultScripts), manager: manager}
	defer func() {
		if err != nil {
			d.sink.close(logPatience)
		}
	}()
	d.inherited.sockets = manager.Sockets()
	if o.bindGiven {
		d.inherited.bind = o.bind
	}
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	d.handler = newSwitchHandler(level, newHandler(c.LogFormat, d.sink, level))
	d.log = slog.New(d.handler)
	d.logLimit = loglimit.New(d.log)
	d.warn(warnings)
	if len(o.ignored) > 0 {
		d.log.Warn("arguments on the command line that mean nothing were ignored", "arguments", o.ignored)
	}

	if d.dir, err = spool.OpenDir(o.spoolRoot); err != nil {
		return nil, err
	}
	d.index, err = spool.OpenIndex(d.dir, spool.IndexOptions{Log: d.log, LogLimit: d.logLimit, OnChange: d.overrideChanged})
	if err != nil {
		return nil, err
	}
	if d.listeners, err = d.inherited.http(o.bind, o.ports); err != nil {
		return nil, err
	}
	d.balancers = balancer.New()
	d.balancers.SetLogger(d.log)
	d.conns = newConnLimiter(d.log)
	if err := d.openAgents(); err != nil {
		return nil, err
	}
	d.warnOfModes(c)
	d.conf.Store(c)
	d.reloads.last.Store(time.Now().UnixMilli())
	set, pages := d.settings(c)
	d.web = web.New(web.Options{Log: d.log, LogLimit: d.logLimit, Balancers: d.balancers, Overrides: d.index, Metrics: d.metrics()}, pages)
	d.door = proxy.New(proxy.Options{Log: d.log, LogLimit: d.logLimit, Recorder: d.web, Pages: d.web, Conns: d.conns}, set)
	d.services.log, d.services.web, d.services.agent, d.services.conns, d.services.listen = d.log, d.web, d.agent, d.conns, d.inherited.listenAt
	d.services.logLimit = d.logLimit
	doors, err := d.services.prepare(c.Services)
	if err != nil {
		return nil, err
	}
	doors.commit(set.Evaluator)
	d.server = newServer(d.door.HTTPServer(c.HealthcheckTimeout))
	d.patience.Handler, d.server.Handler = d.server.Handler, &d.patience
	if unused := d.inherited.unused(); len(unused) > 0 {
		d.log.Warn("sockets were handed over that nothing listens on: who connects there waits without end", "sockets", unused)
	}
	return d, nil
}

// settings are the part of the HTTP door and of the pages that the configuration decides.
func (d *daemon) settings(c *config.Config) (proxy.Settings, web.Settings) {
	options := check.Options{
		Version:           version,
		ServiceNameHeader: c.ServiceNameHeader,
		TLSVerify:         c.TLSVerify,
		MySQLUsername:     c.MySQLUsername,
		MySQLPassword:     check.Secret(c.MySQLPassword.Reveal()),
		RedisUsername:     c.RedisUsername,
		RedisPassword:     check.Secret(c.RedisPassword.Reveal()),
	}
	options.Services = configured(c, options, d.scripts)
	checks := check.All(options)
	if d.counters == nil {
		d.counters = health.NewCounters(checks)
	}
	judge := health.New(health.Options{
		Overrides:       d.index,
		Checks:          checks,
		CacheTime:       c.CacheTime,
		CacheTimeDown:   c.CacheTimeDown,
		CacheMaxEntries: c.CacheMaxEntries,
		CacheMaxBytes:   c.CacheMaxBytes,
		Timeout:         c.HealthcheckTimeout,
		MaxClients:      c.MaxClients,
		Allowed:         c.CheckHostsAllowed,
		IgnoreOverrides: d.opts.noSpoolOnHTTP,
		Counters:        d.counters,
		OnResult:        d.passes.CheckFinished,
		Log:             d.log,
		LogLimit:        d.logLimit,
	})
	d.judge.Store(judge)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.judges = append(slices.DeleteFunc(d.judges, func(j *health.Evaluator) bool { return j.Stats().InFlight == 0 }), judge)
	return proxy.Settings{
		Evaluator:     judge,
		Checks:        checks,
		CheckHost:     c.CheckHost,
		HeadersToCopy: options.HeadersToCopy(c.HTTPHeadersToCopy),
		Remote: proxy.Remote{
			Enabled: c.AllowRemoteSpoolChanges,
			Allowed: c.RemoteSpoolAllowed,
			Token:   c.RemoteSpoolToken.Reveal(),
			Spool:   d.dir,
		},
	}, web.Settings{Evaluator: judge, AgentOnly: d.opts.noSpoolOnHTTP, StatusAllowed: c.StatusAllowed}
}

// run answers until a signal says otherwise.
func (d *daemon) run(sig signals) error {
	failed := make(chan error, len(d.listeners))
	addrs := make([]string, len(d.listeners))
	for i, ln := range d.listeners {
		addrs[i] = ln.Addr().String()
		door := d.door.Listener(ln)
		d.accepting = append(d.accepting, door)
		go func() { failed <- d.server.Serve(&acceptLog{Listener: door, log: d.log}) }()
	}
	d.serveAgents()
	d.log.Info("hacheck answers", "version", version, "listen", addrs, "spool", d.dir.Root(),
		"config", d.opts.configFile, "pid", os.Getpid())
	d.tellReady(addrs)
	defer d.sink.close(logPatience)
	defer d.logLimit.Flush()

	for {
		select {
		case <-sig.reload:
			// In the loop: while the file is read nothing else is to be done but to stop, and a second
			// SIGHUP waits its turn.
			if stop := d.reloadUnless(sig.stop); stop != nil {
				return d.stop(stop, sig)
			}
		case s := <-sig.stop:
			return d.stop(s, sig)
		case err := <-failed:
			d.log.Error("cannot go on answering", "err", err)
			return fmt.Errorf("answer requests: %w", err)
		}
	}
}

// reloadUnless reloads and returns nil, or gives up waiting for it (a file server may have died) and
// returns the signal to stop.
func (d *daemon) reloadUnless(stop <-chan os.Signal) os.Signal {
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.reload()
	}()
	select {
	case <-done:
		return nil
	case s := <-stop:
		return s
	}
}

// reload reads the configuration again. Either all of it is in force for the requests that come from now
// on, or nothing has changed but that the log file was reopened.
func (d *daemon) reload() {
	ended := d.tellReload()
	d.sink.reopenFile()
	if d.opts.configFile == "" {
		ended(nil)
		d.log.Info("reopened the log; there is no configuration file to reload")
		return
	}
	c, warnings, err := config.Load(d.opts.configFile)
	if err == nil {
		err = d.use(c)
	}
	d.warn(warnings)
	ended(err)
	if err != nil {
		d.reloads.failed.Add(1)
		d.log.Error("the configuration was not reloaded, the old one stays in force",
			"config", d.opts.configFile, "err", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	d.reloads.done.Add(1)
	d.reloads.last.Store(time.Now().UnixMilli())
	d.log.Info("reloaded the configuration", "config", d.opts.configFile)
	d.warnOfModes(c)
}

// use puts c in force. What can fail comes first, and what it has done by then is undone.
func (d *daemon) use(c *config.Config) error {
	old := d.conf.Load()
	doors, err := d.services.prepare(c.Services)
	if err != nil {
		return err
	}
	var target *logTarget
	if c.LogPath != old.LogPath {
		t, err := openLog(c.LogPath)
		if err != nil {
			doors.abandon()
			return err
		}
		target = t
	}
	if err := setNoFile(c.RlimitNoFile); err != nil {
		doors.abandon()
		target.close()
		return err
	}
	d.sink.use(target, lostLine(c.LogFormat))
	d.handler.use(newHandler(c.LogFormat, d.sink, d.handler.level))
	d.patience.raise(c.HealthcheckTimeout, d.server.Server)
	set, pages := d.settings(c)
	d.door.SetSettings(set)
	d.web.SetSettings(pages)
	doors.commit(set.Evaluator)
	d.conf.Store(c)
	return nil
}

func (d *daemon) warn(warnings []config.Warning) {
	for _, w := range warnings {
		d.log.Warn("the configuration has a key that means nothing", "where", w.String())
	}
}

// stop answers the requests in flight and returns nil, or an error when the second signal cuts them off.
func (d *daemon) stop(s os.Signal, sig signals) error {
	defer d.scripts.Stop() // those whose askers have gone
	limit := d.conf.Load().HealthcheckTimeout + stopMargin
	d.log.Info("stopping; requests in flight are answered first", "signal", s.String(), "limit", limit)
	d.told(d.manager.Stopping(limit+logPatience, "Answering the requests in flight"))
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	done := make(chan error, 1)
	d.closeAgents()
	doors, cutDoors := context.WithCancel(ctx)
	defer cutDoors()
	go func() {
		var all sync.WaitGroup
		all.Go(func() { d.services.stop(doors) })
		err := d.server.Shutdown(ctx)
		all.Wait()
		done <- err
	}()
	go whenQuiet(ctx, d.checking, func() {
		cutDoors()
		_ = d.server.Close()
	})
	// The spool and its watcher need no end of their own: the process is about to end, nothing there is
	// ever half done, and a directory that hangs must not keep the port from whoever starts next.
	select {
	case err := <-done:
		if err != nil {
			_ = d.server.Close()
			d.log.Warn("stopped; some connections had to be cut off", "err", err)
			return nil
		}
		d.log.Info("stopped")
		return nil
	case s := <-sig.stop:
		return fmt.Errorf("a second signal (%v): requests in flight were cut off", s)
	}
}

// checking reports whether a check is under way that somebody may be waiting for.
func (d *daemon) checking() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, j := range d.judges {
		if j.Stats().InFlight > 0 {
			return true
		}
	}
	return false
}

// maxLoggedReason is how much of a reason is in a line of the log, in bytes; hastatus shows all of it.
const maxLoggedReason = 300

// overrideChanged writes one line about a change in the spool. Who did it is in the reason, as far as
// anybody knows: hadown puts the user's name there.
func (d *daemon) overrideChanged(c spool.Change) {
	d.services.changed()
	d.passes.OverrideChanged(c)
	what, e := "override set", c.New
	switch {
	case c.New == nil && c.Old == nil:
		return
	case c.New == nil && c.Expired:
		what, e = "override expired", c.Old
	case c.New == nil:
		what, e = "override lifted", c.Old
	case c.Old != nil: // by somebody, or because a stronger one expired
		what = "override changed"
	}
	if !d.logLimit.Allow(loglimit.Override, c.Key.Service, what) {
		return
	}
	args := []any{"service", c.Key.Name(), "state", e.State.String(), "reason", textfmt.Excerpt(e.Reason, maxLoggedReason)}
	if !e.Created.IsZero() {
		args = append(args, "since", e.Created.Format(time.RFC3339))
	}
	if !e.Expires.IsZero() {
		args = append(args, "until", e.Expires.Format(time.RFC3339))
	}
	d.log.Info(what, args...)
}

// patience gives answers more time once a reload has made checks take longer than the server, whose
// limits are fixed when it is made, was made for.
type patience struct {
	http.Handler
	limit atomic.Int64 // of a whole answer, as a time.Duration; 0: the server's own will do
}

func (p *patience) raise(checkTimeout time.Duration, server *http.Server) {
	if limit := checkTimeout + answerMargin; limit > server.WriteTimeout {
		p.limit.Store(int64(limit))
	} else {
		p.limit.Store(0)
	}
}

// answerMargin is how long an answer may take to be written once the check is done.
const answerMargin = 20 * time.Second

// ServeHTTP implements http.Handler.
func (p *patience) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if limit := p.limit.Load(); limit > 0 {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Duration(limit)))
	}
	p.Handler.ServeHTTP(w, r)
}
