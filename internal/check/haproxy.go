package check

import (
	"context"
	"encoding/csv"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
)

const (
	// maxStats is how many bytes of a statistics page are read: some 100,000 servers.
	maxStats = 64 << 20
	// maxStatsRow is the longest row of a statistics page in bytes. A real one has some 600.
	maxStatsRow = 64 << 10
)

// newHAProxy returns the haproxy check of check URLs. It reads the statistics page of a HAProxy (`stats uri /`) as CSV, and is
// healthy when the backend with the service's name is UP. Otherwise it answers 503 and never 404, which HAProxy
// understands as a drain.
func newHAProxy(o Options) Func {
	h := newHAProxyStats(o)
	return func(ctx context.Context, t Target) Result {
		return ask(ctx, t, func(x *exchange) Result { return h.check(x, t.Service) })
	}
}

// haproxyStats reads statistics pages.
type haproxyStats struct{ client *httpClient }

func newHAProxyStats(o Options) haproxyStats {
	return haproxyStats{newHTTPClient(Options{Version: o.Version})}
}

// check is healthy when the page shows the backend UP.
func (h haproxyStats) check(x *exchange, backend string) Result {
	x.t.Header = nil // the client's headers are for the service, not for this page
	x.raw.SetMaxRead(maxHead + maxStats)
	b := newHTTPBuffers()
	defer b.free()
	resp, r, ok := h.client.roundTrip(x, b, "/;csv") //nolint:bodyclose // closing reads the rest of the page
	if !ok {
		return r
	}
	if resp.StatusCode != http.StatusOK {
		return x.serviceError(503, "The statistics page of %s answers %d %s", x.addr(), resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	x.phase = phaseRead
	status, err := backendStatus(io.LimitReader(resp.Body, maxStats), backend)
	switch {
	case errors.Is(err, errNotStats), errors.Is(err, errLongRow):
		return x.protocolError("What %s answers to GET /;csv is not HAProxy's statistics: %s", x.addr(), err)
	case err != nil:
		return x.failBody(err)
	case status == "":
		return x.serviceError(503, "%s is not found", excerpt(backend, 200))
	case status != "UP":
		return x.serviceError(503, "%s is %s", excerpt(backend, 200), excerpt(status, 100))
	}
	return Result{Code: 200, Body: []byte(excerpt(backend, 200) + " is UP")}
}

// haproxyType is the configured check. It has an option for the backend.
var haproxyType = Type{
	Name: "haproxy",
	Doc:  "the statistics page of a HAProxy shows a backend UP",
	Options: []Option{
		hostOption,
		portOption(0),
		{Name: "backend", Want: "a backend's name without control characters", Required: true, Doc: "the backend that has to be UP"},
	},
	build: func(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
		l := o.login(d, 0, 0)
		h, backend := newHAProxyStats(d.Options), o.plainText("backend", "")
		return l.newConfigured("haproxy", "", "haproxy:"+l.addr(), func(x *exchange) Result { return h.check(x, backend) }), nil
	},
}

var (
	errNotStats = errors.New("no pxname, svname and status in the first row")
	errLongRow  = errors.New("a row is too long")
)

// backendStatus returns the status of a backend in a statistics page, "" if the page does not have the backend.
func backendStatus(page io.Reader, backend string) (string, error) {
	limited := &rowLimiter{page: page}
	r := csv.NewReader(limited)
	r.FieldsPerRecord, r.LazyQuotes, r.ReuseRecord = -1, true, true
	nextRow := func() ([]string, error) {
		limited.left = maxStatsRow
		return r.Read()
	}
	head, err := nextRow()
	if err == io.EOF { //nolint:errorlint // csv.Reader does not wrap it
		return "", errNotStats
	}
	if err != nil {
		return "", err
	}
	head[0] = strings.TrimPrefix(head[0], "# ")
	px, sv, st := slices.Index(head, "pxname"), slices.Index(head, "svname"), slices.Index(head, "status")
	if px < 0 || sv < 0 || st < 0 {
		return "", errNotStats
	}
	for {
		row, err := nextRow()
		if err == io.EOF { //nolint:errorlint // as above
			return "", nil
		}
		if err != nil {
			return "", err
		}
		if len(row) > max(px, sv, st) && row[px] == backend && row[sv] == "BACKEND" {
			return row[st], nil
		}
	}
}

// rowLimiter is the reader under csv.Reader, which limits neither the length of a row nor needs its end. It returns
// errLongRow when a row needs more than left bytes, and io.ErrUnexpectedEOF when the page does not end with a newline.
type rowLimiter struct {
	page io.Reader
	left int
	last byte
}

func (l *rowLimiter) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, errLongRow
	}
	n, err := l.page.Read(b[:min(len(b), l.left)])
	l.left -= n
	if n > 0 {
		l.last = b[n-1]
	}
	if err == io.EOF && l.last != '\n' && l.last != 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
