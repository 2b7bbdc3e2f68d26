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

// reloadableFleet is the fleet of this host. A reload may replace the connection behind it. It is safe for concurrent
// use once open has succeeded.
type reloadableFleet struct {
	options func(*config.Fleet) fleet.Options
	current atomic.Pointer[fleet.Fleet]
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

// newFleet returns the fleet of the daemon, not opened yet, or nil if c has none.
func (d *daemon) newFleet(c *config.Config) *reloadableFleet {
	if c.Fleet == nil {
		return nil
	}
	return &reloadableFleet{options: d.fleetOptions}
}

func (d *daemon) fleetOptions(c *config.Fleet) fleet.Options {
	return fleet.Options{
		Endpoints: c.Endpoints, Prefix: c.Prefix, Host: c.Host, Groups: c.Groups, Member: c.Member,
		Lease: c.Lease, StartWait: c.StartWait, StateDir: c.StateDir, Version: d.version,
		Credentials: func() (fleet.Credentials, error) { return readCredentials(c) },
		Overrides:   d.index, Spool: d.dir, Balancers: d.web.BalancerReport,
		Log: d.log, LogLimit: d.logLimit,
	}
}

// applyFleet puts the section fleet of c in force. If it cannot, the old one stays in force.
func (d *daemon) applyFleet(c *config.Config) error {
	old := d.config.Load().Fleet
	switch {
	case (old == nil) != (c.Fleet == nil):
		d.log.Warn("the section fleet was added to the configuration or removed; restart hacheck to put that in force")
		c.Fleet = old
	case old != nil && needsNewConnection(*old, *c.Fleet):
		return d.fleet.replace(old, c.Fleet)
	}
	return nil
}

// needsNewConnection reports whether two sections differ in more than what is read for each request.
func needsNewConnection(a, b config.Fleet) bool {
	for _, c := range []*config.Fleet{&a, &b} {
		c.Operators, c.FleetLock, c.Insecure = nil, false, false
	}
	return !reflect.DeepEqual(a, b)
}

// fleetLockIfEnabled returns the handler of the FleetLock protocol, which is a page like others while fleet_lock is false.
// It returns nil without a fleet.
func (d *daemon) fleetLockIfEnabled() http.Handler {
	if d.fleet == nil {
		return nil
	}
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
