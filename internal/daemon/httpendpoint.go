package daemon

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"hacheck/internal/aggregate"
	"hacheck/internal/health"
	"hacheck/internal/proxy/fastpath"
)

// httpEndpoint is the http_listen of a service.
type httpEndpoint struct {
	server   *server
	settings atomic.Pointer[endpointSettings]
}

func (s *serviceEndpoints) serveHTTP(addr string, settings endpointSettings, ln net.Listener) *httpEndpoint {
	e := &httpEndpoint{}
	e.apply(settings)
	handler := &aggregate.Handler{
		Evaluate: func(hops uint8) health.Verdict {
			request := checksRequest(e.settings.Load().service)
			request.Target.Hops = hops
			return s.evaluators.current.Load().Evaluate(request)
		},
		FailureCode: func() int { return e.settings.Load().failureCode },
		OnAnswer: func(r *http.Request, v *health.Verdict, code int) {
			s.web.RecordEndpointAnswer(e.settings.Load().service, "http://"+addr+r.RequestURI, r, v, code)
		},
		Log: s.log,
	}
	e.server = newServer(aggregate.NewServer(handler, time.Hour, s.conns, aggregate.Timeouts{})) // the evaluator's timeout is shorter, and a reload changes it
	go func() {
		if err := e.server.Serve(fastpath.ListenPlain(ln, fastpath.Options{Conns: s.conns, ProxyFrom: s.proxyFrom, OnRefused: s.onRefused})); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("a service's listener ended", "service", e.settings.Load().service, "listen", addr, "err", err)
		}
	}()
	s.log.Info("service listens", "service", settings.service, "http", ln.Addr().String())
	return e
}

func (e *httpEndpoint) apply(settings endpointSettings) { e.settings.Store(&settings) }
func (e *httpEndpoint) close()                          { e.server.closeListeners() }
func (e *httpEndpoint) drain(ctx context.Context)       { _ = e.server.Shutdown(ctx) } // an error: some were cut off
