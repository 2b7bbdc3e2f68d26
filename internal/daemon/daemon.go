package daemon

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hacheck/internal/agent"
	"hacheck/internal/balancer"
	"hacheck/internal/certificate"
	"hacheck/internal/check"
	"hacheck/internal/check/conn"
	"hacheck/internal/clients"
	"hacheck/internal/config"
	"hacheck/internal/health"
	"hacheck/internal/loglimit"
	"hacheck/internal/proxy"
	"hacheck/internal/spool"
	"hacheck/internal/systemd"
	"hacheck/internal/web"
)

// maxLogins is how many checks with a driver run at once. A machine has a handful of databases; the rest of a burst waits
// some milliseconds.
const maxLogins = 64

// daemon is what lives from the start until the process ends. newDaemon, open and run fill it, in this order.
type daemon struct {
	version  string
	opts     *options
	log      *slog.Logger
	logLimit *loglimit.Limiter
	logs     *logOutput // behind log
	manager  *systemd.Manager
	sockets  *inheritedSockets
	conns    *clients.ConnLimiter // of all listeners

	config     atomic.Pointer[config.Config] // in force
	reloads    reloadCounters
	counters   *health.Counters
	scripts    *check.Scripts // kept across reloads, so that a script never runs twice at once
	logins     *conn.Limit    // also kept across reloads
	sources    *check.Sources // also kept across reloads
	evaluators evaluators
	dir        *spool.Dir
	index      *spool.Index
	balancers  *balancer.Table

	proxy          *proxy.Server
	web            *web.Server
	http           mainServer
	successes      agent.PassedChecks
	certificate    certificate.Store // of tls_listen
	certWatch      sync.Once         // starts the watch of its files
	agent          *agent.Agent
	fleet          *reloadableFleet // open if isInFleet
	control        controlServer
	agentListeners []net.Listener // of -A, opened before anything is answered
	agentServers   []*agent.Server
	services       atomic.Pointer[serviceEndpoints] // nil until open has made them

	permissions sync.Mutex // held while warnAboutPermissions reads files
}

// mainServer is the HTTP server of the ports of -p.
type mainServer struct {
	*server
	deadline  *writeDeadlineHandler
	listeners []net.Listener
}

// serve runs the daemon from its start until a signal ends it.
func serve(o *options, version string, sig signals) error {
	var d *daemon
	started := make(chan error, 1)
	go func() {
		var err error
		d, err = start(o, version)
		started <- err
	}()
	select {
	case <-sig.stop: // no request has been accepted yet
		return nil
	case err := <-started:
		if err != nil {
			return err
		}
	}
	return d.run(sig)
}

// start sets the limits of the process, opens the log and returns a daemon whose ports are open but not served. If it
// fails, the log is flushed; open descriptors are left to the end of the process.
func start(o *options, version string) (*daemon, error) {
	manager, err := systemd.FromEnv()
	if err != nil {
		return nil, err
	}
	c, warnings, err := loadConfig(o.configFile)
	if err != nil {
		return nil, joinConfigErrors(warnings, err)
	}
	if _, err := setNoFile(c.RlimitNoFile); err != nil {
		return nil, err
	}
	// The limit is only ever lowered: once it is set, the runtime no longer follows the limits of its container.
	if o.procs > 0 && o.procs < runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(o.procs)
	}
	tuneGC()
	file, err := openLog(c.LogPath)
	if err != nil {
		return nil, err
	}
	d := newDaemon(o, version, manager, newLogOutput(file, c.LogFormat, o.verbose))
	d.warnAboutConfig(warnings)
	if len(o.ignored) > 0 {
		d.log.Warn("arguments on the command line that mean nothing were ignored", "arguments", o.ignored)
	}
	if err := d.open(c); err != nil {
		d.logs.close(logTimeout)
		return nil, err
	}
	return d, nil
}

// newDaemon returns a daemon that has opened nothing yet.
func newDaemon(o *options, version string, manager *systemd.Manager, logs *logOutput) *daemon {
	log := slog.New(logs)
	d := &daemon{
		version: version, opts: o, manager: manager, logs: logs, log: log, logLimit: loglimit.New(log),
		sockets:   &inheritedSockets{sockets: manager.Sockets()},
		conns:     newConnLimiter(log),
		scripts:   check.NewScripts(check.DefaultScripts),
		logins:    conn.NewLimit(maxLogins),
		sources:   check.NewSources(time.Now()),
		counters:  health.NewCounters(check.All(check.Options{})),
		balancers: balancer.New(),
	}
	if o.bindGiven {
		d.sockets.bind = o.bind
	}
	d.balancers.SetLogger(log)
	return d
}

// open opens the spool directory and every port, and builds what c describes. No request is answered yet.
func (d *daemon) open(c *config.Config) (err error) {
	if d.dir, err = spool.OpenDir(d.opts.spoolRoot); err != nil {
		return err
	}
	d.index, err = spool.OpenIndex(d.dir, spool.IndexOptions{Log: d.log, LogLimit: d.logLimit, OnChange: d.overrideChanged, OnWeight: d.weightChanged})
	if err != nil {
		return err
	}
	pair, err := readCertificate(d.opts.configFile, c)
	if err != nil {
		return err
	}
	d.useCertificate(pair)
	if d.http.listeners, err = d.sockets.listenHTTP(d.opts.bind, d.opts.ports, d.opts.agentPorts, configuredListeners(c)); err != nil {
		return err
	}
	if err := d.openAgents(); err != nil {
		return err
	}
	d.warnAboutPermissions(c)
	d.config.Store(c)
	d.reloads.last.Store(time.Now().UnixMilli())

	settings := d.proxySettings(c)
	d.fleet = &reloadableFleet{options: d.fleetOptions}
	d.web = d.newWeb(d.webSettings(c, settings.Evaluator))
	if c.Fleet != nil { // before anything is answered, because it may take services out
		if err := d.fleet.open(c.Fleet); err != nil {
			return err
		}
	} else {
		d.keepFleet(c)
		d.web.SetSettings(d.webSettings(c, settings.Evaluator))
	}
	d.proxy = d.newProxy(settings)
	services := &serviceEndpoints{
		log: d.log, logLimit: d.logLimit, web: d.web, agent: d.agent, conns: d.conns, sockets: d.sockets, evaluators: &d.evaluators,
		proxy: d.proxy, certificate: &d.certificate, proxyFrom: d.proxyFrom, onRefused: d.proxy.LogRefused,
	}
	d.services.Store(services)
	reload, err := services.prepare(c)
	if err != nil {
		return err
	}
	d.evaluators.replace(settings.Evaluator)
	reload.commit()

	d.http.server = newServer(d.proxy.HTTPServer(c.HealthcheckTimeout))
	d.http.deadline = &writeDeadlineHandler{Handler: d.http.Handler}
	d.http.Handler = d.http.deadline
	d.openControl()
	d.warnAboutSockets(c)
	return nil
}

// warnAboutSockets logs the sockets of systemd that nothing uses with c, at the start and when a reload changes them.
func (d *daemon) warnAboutSockets(c *config.Config) {
	if unused := d.sockets.newlyUnused(configuredListeners(c)); len(unused) > 0 {
		d.log.Warn("systemd handed over sockets that nothing uses: clients that connect to them wait without end", "sockets", unused)
	}
}

// run answers requests until a signal or an error ends it.
func (d *daemon) run(sig signals) error {
	defer d.logs.close(logTimeout)
	defer d.logLimit.Flush()
	failed := make(chan error, len(d.http.listeners))
	addrs := make([]string, len(d.http.listeners))
	for i, ln := range d.http.listeners {
		addrs[i] = ln.Addr().String()
		accepting := d.proxy.Listener(ln)
		d.http.listeners[i] = accepting
		go func() { failed <- d.http.Serve(&acceptErrorLogger{Listener: accepting, log: d.log}) }()
	}
	d.serveAgents()
	d.serveControl()
	d.log.Info("hacheck answers", "version", d.version, "listen", addrs, "spool", d.dir.Root(),
		"config", d.opts.configFile, "pid", os.Getpid())
	d.logNotifyError(d.manager.Ready("Answering on " + strings.Join(addrs, ", ")))
	if interval := d.manager.Watchdog(); interval > 0 {
		go d.feedWatchdog(interval) // until the process ends
	}

	for {
		select {
		case <-sig.reload:
			// The loop waits for the reload, so that a second SIGHUP comes after it.
			if stop := d.reloadUnlessStopped(sig.stop); stop != nil {
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
