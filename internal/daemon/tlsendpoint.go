package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"hacheck/internal/certificate"
	"hacheck/internal/config"
)

// certificatePoll is how often the files of the certificate are looked at.
const certificatePoll = 2 * time.Second

// tlsEndpoint is tls_listen: what the ports of -p answer, by TLS.
type tlsEndpoint struct{ server *server }

func (s *serviceEndpoints) serveTLS(addr string, ln net.Listener) *tlsEndpoint {
	e := &tlsEndpoint{newServer(s.proxy.HTTPServer(time.Hour))} // the evaluator's timeout is shorter, and a reload changes it
	go func() {
		accepting := &acceptErrorLogger{Listener: s.proxy.TLSListener(ln, s.certificate.Config()), log: s.log}
		if err := e.server.Serve(accepting); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("the TLS listener ended", "listen", addr, "err", err)
		}
	}()
	s.log.Info("hacheck answers by TLS", "listen", ln.Addr().String(), "expires", s.certificate.Status().Expires)
	return e
}

func (e *tlsEndpoint) apply(endpointSettings)    {}
func (e *tlsEndpoint) close()                    { e.server.closeListeners() }
func (e *tlsEndpoint) drain(ctx context.Context) { _ = e.server.Shutdown(ctx) } // an error: some were cut off

// certificateFiles returns the files of tls_listen.
func certificateFiles(c *config.Config) certificate.Files {
	return certificate.Files{Cert: c.TLSCertFile, Key: c.TLSKeyFile, ClientCA: c.TLSClientCAFile}
}

// readCertificate reads the certificate of tls_listen, nil without one. An error names the configuration file.
func readCertificate(configFile string, c *config.Config) (*certificate.Pair, error) {
	if c.TLSListen == "" {
		return nil, nil
	}
	p, err := certificate.Read(certificateFiles(c))
	if err != nil {
		return nil, &configError{fmt.Errorf("%s: %w", configFile, err)}
	}
	return p, nil
}

// reloadCertificate reads the certificate that c names. It fails only if c names other files than those in force; those
// may be about to be replaced, and the old certificate stays in force.
func (d *daemon) reloadCertificate(c *config.Config) (*certificate.Pair, error) {
	if c.TLSListen == "" {
		return nil, nil
	}
	p, err := d.certificate.ReadAgain(certificateFiles(c))
	if err != nil && p != nil {
		d.certificateChanged(err)
		return p, nil
	}
	return p, err
}

// useCertificate puts a certificate in force, nil for none. Its files are watched from the first one on: a daemon without
// one wakes up for nothing.
func (d *daemon) useCertificate(p *certificate.Pair) {
	d.certificate.Use(p)
	if p != nil {
		d.certWatch.Do(func() {
			go d.certificate.Watch(nil, certificatePoll, d.certificateChanged) // until the process ends
		})
	}
}

// certificateChanged logs that the files of the certificate were read again.
func (d *daemon) certificateChanged(err error) {
	expires := d.certificate.Status().Expires
	if err != nil {
		d.log.Error("the changed certificate of tls_listen cannot be used, the old one stays in force; mend the files, they are read again then",
			"err", err, "expires", expires)
		return
	}
	d.log.Info("the certificate of tls_listen was read again", "expires", expires)
}
