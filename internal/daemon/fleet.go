package daemon

import (
	"bytes"
	"cmp"
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
	"time"

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
func (r *reloadableFleet) open(c *config.Fleet) error { return r.store(fleet.Open(r.options(c))) }

// openCopy opens the copy of the overrides without etcd, and reports whether overrides of it are in force.
func (r *reloadableFleet) openCopy(c *config.Fleet) (bool, error) {
	f, err := fleet.OpenCopy(r.options(c))
	if f == nil {
		return false, err
	}
	return true, r.store(f, nil)
}

// replace closes the connection to the fleet that old describes, and opens the one of next. If that fails, it opens old
// again. The overrides that are in force stay in force.
func (r *reloadableFleet) replace(old, next *config.Fleet) error {
	f := r.current.Load()
	err := r.store(f.Reopen(r.options(next)))
	if err == nil || isWithoutEtcd(old) {
		return err
	}
	if again := r.store(f.Reopen(r.options(old))); again != nil { // the daemon goes on with the overrides that it knows
		err = errors.Join(err, fmt.Errorf("the fleet is closed until the next reload: %w", again))
	}
	return err
}

func (r *reloadableFleet) store(f *fleet.Fleet, err error) error {
	if err == nil {
		r.current.Store(f)
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

// isInFleet reports whether the configuration in force has the section fleet, or one of keepFleet. Then d.fleet is open.
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
		return d.quitFleet(old, c)
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

// quitFleet closes the fleet of a section that is gone from the configuration. It returns an error if overrides of the
// fleet are in force on this host: the file may be cut off, and nothing may be up by that.
func (d *daemon) quitFleet(old *config.Fleet, c *config.Config) error {
	err := d.fleet.current.Load().Quit()
	if _, inForce := errors.AsType[*fleet.InForceError](err); inForce && isWithoutEtcd(old) {
		c.Fleet = old // there was no section before either
		return nil
	}
	if err == nil {
		d.log.Warn("the section fleet was removed from the configuration: this host is in no fleet any more", "host", old.Host)
	}
	return err
}

// keepFleet gives c, which has no section fleet, one without endpoints, and opens it, if the local copy says that overrides
// of a fleet are in force on this host: the file may be cut off, and nothing may be up by that.
func (d *daemon) keepFleet(c *config.Config) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	section := &config.Fleet{Prefix: "/", Host: host, Lease: time.Minute, StateDir: stateDirectory()}
	kept, err := d.fleet.openCopy(section)
	if err != nil {
		d.log.Warn("the configuration has no section fleet, and the copy of the overrides of an earlier fleet cannot be read; the spool alone counts",
			"state_dir", section.StateDir, "err", err)
	}
	if kept {
		c.Fleet = section
	}
}

// isWithoutEtcd reports whether a section is one of keepFleet.
func isWithoutEtcd(c *config.Fleet) bool { return len(c.Endpoints) == 0 }

// stateDirectory returns the directory of the local copy for a configuration that does not say it: the state directory
// that systemd has made, or else the default of state_dir.
func stateDirectory() string {
	first, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	return cmp.Or(first, config.DefaultStateDir)
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
