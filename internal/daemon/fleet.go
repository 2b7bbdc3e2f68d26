package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync/atomic"

	"hacheck/internal/config"
	"hacheck/internal/fleet"
	"hacheck/internal/fleet/report"
)

// reloadableFleet is the fleet of this host. A reload may replace the connection behind it, or close it because the
// section fleet was removed. It is safe for concurrent use once open has succeeded. Before that it must not be used.
type reloadableFleet struct {
	options func(*config.Fleet) fleet.Options
	current atomic.Pointer[fleet.Fleet] // nil before the first open; closed while the section is removed
}

// open connects to the fleet that c describes. It blocks for up to start_wait.
func (r *reloadableFleet) open(c *config.Fleet) error {
	f, err := fleet.Open(r.options(c))
	if err == nil {
		r.current.Store(f)
	}
	return err
}

// replace closes the connection to the fleet that old describes, and opens the one of next. If that fails, it opens old
// again. Meanwhile the overrides of the index stay in force.
func (r *reloadableFleet) replace(old, next *config.Fleet) error {
	if err := r.current.Load().Close(); err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	err := r.open(next)
	if err == nil {
		return nil
	}
	if again := r.open(old); again != nil { // the daemon goes on with the overrides that it knows
		err = errors.Join(err, fmt.Errorf("the fleet is closed until the next reload: %w", again))
	}
	return err
}

// service returns the fleet that is open now.
func (r *reloadableFleet) service() fleet.Service { return r.current.Load() }

// TakeDown implements fleetlock.Fleet.
func (r *reloadableFleet) TakeDown(ctx context.Context, t fleet.Takedown, p fleet.Progress) error {
	return r.service().TakeDown(ctx, t, p)
}

// Report implements web.Fleet.
func (r *reloadableFleet) Report(ctx context.Context) (*report.Fleet, error) {
	return r.service().Report(ctx)
}

// Status implements web.Fleet.
func (r *reloadableFleet) Status() report.Status { return r.service().Status() }

// close closes the connection, if there is one.
func (r *reloadableFleet) close() {
	if f := r.current.Load(); f != nil {
		_ = f.Close()
	}
}

// isInFleet reports whether the configuration in force has the section fleet. Then d.fleet is open.
func (d *daemon) isInFleet() bool { return d.config.Load().Fleet != nil }

func (d *daemon) fleetOptions(c *config.Fleet) fleet.Options {
	return fleet.Options{
		Endpoints: c.Endpoints, Prefix: c.Prefix, Host: c.Host, Groups: c.Groups, Member: c.Member,
		Lease: c.Lease, StartWait: c.StartWait, StateDir: c.StateDir, Version: d.version,
		Credentials: func() (fleet.Credentials, error) { return readCredentials(c) },
		Overrides:   d.index, Spool: d.dir, Balancers: d.web.BalancerReport,
		Log: d.log, LogLimit: d.logLimit,
	}
}

// applyFleet puts the section fleet of c in force, also if it is new or was removed. If it cannot, the old one stays in
// force.
func (d *daemon) applyFleet(c *config.Config) error {
	old := d.config.Load().Fleet
	switch {
	case old == nil && c.Fleet == nil:
	case old == nil:
		return d.enterFleet(c.Fleet)
	case c.Fleet == nil:
		d.quitFleet(old)
	case needsNewConnection(*old, *c.Fleet):
		return d.fleet.replace(old, c.Fleet)
	}
	return nil
}

// enterFleet opens the fleet of a section that was added to the configuration.
func (d *daemon) enterFleet(c *config.Fleet) error {
	if err := d.fleet.open(c); err != nil {
		return err
	}
	d.log.Info("the section fleet was added to the configuration: this host is in the fleet from now on", "host", c.Host, "prefix", c.Prefix)
	if d.control.ln == nil && d.opts.controlSocket != "" {
		d.log.Warn("there is no control socket, so commands for a fleet do not work on this host; restart hacheck", "path", d.opts.controlSocket)
	}
	return nil
}

// maxEndedNamed is how many overrides the log names when the section fleet is removed.
const maxEndedNamed = 20

// quitFleet closes the fleet of a section that was removed from the configuration, and ends its overrides on this host.
// The log names them, because services may be up by that.
func (d *daemon) quitFleet(old *config.Fleet) {
	ended := d.fleet.current.Load().Withdraw()
	names := []string{}
	for _, e := range ended[:min(len(ended), maxEndedNamed)] {
		text := fmt.Sprintf("%s for %s: %s by %s", e.Key.Name(), e.Scope, e.State.Word(), e.By)
		if e.Reason != "" {
			text += ": " + e.Reason
		}
		names = append(names, text)
	}
	d.log.Warn("the section fleet was removed from the configuration: this host is in no fleet any more, and the overrides of the fleet end on it",
		"host", old.Host, "ended", len(ended), "overrides", names)
}

// needsNewConnection reports whether two sections differ in more than what is read for each request.
func needsNewConnection(a, b config.Fleet) bool {
	for _, c := range []*config.Fleet{&a, &b} {
		c.Operators, c.FleetLock, c.Insecure = nil, false, false
	}
	return !reflect.DeepEqual(a, b)
}

// fleetLockIfEnabled returns the handler of the FleetLock protocol, which is a page like others while fleet_lock is false.
func (d *daemon) fleetLockIfEnabled() http.Handler {
	lock := d.fleetLockHandler(d.fleet)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := d.config.Load().Fleet; f != nil && f.FleetLock {
			lock.ServeHTTP(w, r)
			return
		}
		d.web.ServeHTTP(w, r)
	})
}

// maxPasswordFile is the longest password file that is read, in bytes.
const maxPasswordFile = 4096

// readCredentials reads the files of the login to etcd. Its errors show no content.
func readCredentials(c *config.Fleet) (fleet.Credentials, error) {
	login := fleet.Credentials{Username: c.Username}
	var err error
	if c.PasswordFile != "" {
		if login.Password, err = readPassword(c.PasswordFile); err != nil {
			return fleet.Credentials{}, fmt.Errorf("fleet: password_file: %w", err)
		}
	}
	if !strings.HasPrefix(c.Endpoints[0], "https:") {
		return login, nil
	}
	login.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		text, err := os.ReadFile(c.CAFile)
		if err != nil {
			return fleet.Credentials{}, fmt.Errorf("fleet: ca_file: %w", err)
		}
		login.TLS.RootCAs = x509.NewCertPool()
		if !login.TLS.RootCAs.AppendCertsFromPEM(text) {
			return fleet.Credentials{}, fmt.Errorf("fleet: ca_file: %s has no certificate in PEM format", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return fleet.Credentials{}, fmt.Errorf("fleet: cert_file and key_file: %w", err)
		}
		login.TLS.Certificates = []tls.Certificate{pair}
	}
	return login, nil
}

// readPassword returns the first line of a file.
func readPassword(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxPasswordFile))
	if err != nil {
		return "", err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
		return "", fmt.Errorf("the first line of %s is empty", path)
	}
	return string(line), nil
}
