package check

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
)

const (
	// maxStats is how much of a statistics page is read, in bytes: some 100,000 servers.
	maxStats = 64 << 20
	// maxStatsRow is the longest row of it, in bytes; a real one has some 600.
	maxStatsRow = 64 << 10
)

// newHAProxy returns the haproxy check: the statistics page of the HAProxy on that port (`stats uri /`),
// read as CSV, says that the backend with the service's name is UP. A backend that is not UP or not there
// is 503: HAProxy takes 404 as an order to drain.
func newHAProxy(o Options) Func {
	c := newHTTPClient(Options{Version: o.Version})
	return func(ctx context.Context, t Target) Result {
		t.Header = nil // the client's headers are meant for the service, not for this page
		return ask(ctx, t, func(x *exchange) Result {
			s := newScratch()
			defer s.free()
			resp, r, ok := c.roundTrip(x, s, "/;csv") //nolint:bodyclose // closing reads the rest of the page
			if !ok {
				return r
			}
			if resp.StatusCode != http.StatusOK {
				return x.failed(503, "The statistics page of %s answers %d %s", x.addr(), resp.StatusCode, http.StatusText(resp.StatusCode))
			}
			x.phase = phaseRead
			status, err := backendStatus(io.LimitReader(resp.Body, maxStats), t.Service)
			switch {
			case errors.Is(err, errNotStats), errors.Is(err, errLongRow):
				return x.protocol("What %s answers to GET /;csv is not HAProxy's statistics: %s", x.addr(), err)
			case err != nil:
				return x.failBody(err)
			case status == "":
				return x.failed(503, "%s is not found", oneLine(t.Service, 200))
			case status != "UP":
				return x.failed(503, "%s is %s", oneLine(t.Service, 200), oneLine(status, 100))
			}
			return Result{Code: 200, Body: []byte(oneLine(t.Service, 200) + " is UP")}
		})
	}
}

// haproxyType is the configured check, which names the backend itself.
var haproxyType = Type{
	Name: "haproxy",
	Doc:  "the statistics page of a HAProxy shows a backend UP",
	Options: []Option{
		hostOption,
		portOption(0),
		{Name: "backend", Want: "a backend's name without control characters", Required: true, Doc: "the backend that has to be UP"},
	},
	build: func(o *values, d Defaults) (*Configured, error) {
		l := o.login(d, 0, 0)
		check, backend := newHAProxy(d.Options), o.plainText("backend", "")
		return l.newConfigured("haproxy", "", "haproxy:"+l.addr(), func(ctx context.Context, t Target) Result {
			t.Host, t.Port, t.Service = l.host, l.port, backend
			return check(ctx, t)
		}), nil
	},
}

var (
	errNotStats = errors.New("no pxname, svname and status in the first row")
	errLongRow  = errors.New("a row is too long")
)

// backendStatus finds the row of backend in a statistics page and returns its status, "" if there is no such row.
func backendStatus(page io.Reader, backend string) (string, error) {
	r := csvReader{r: bufio.NewReader(page)}
	head, err := r.row()
	if err == io.EOF { //nolint:errorlint // csvReader wraps nothing
		return "", errNotStats
	}
	if err != nil {
		return "", err
	}
	head[0] = bytes.TrimPrefix(head[0], []byte("# "))
	column := func(name string) int {
		return slices.IndexFunc(head, func(field []byte) bool { return string(field) == name })
	}
	px, sv, st := column("pxname"), column("svname"), column("status")
	if px < 0 || sv < 0 || st < 0 {
		return "", errNotStats
	}
	for {
		row, err := r.row()
		if err == io.EOF { //nolint:errorlint // as above
			return "", nil
		}
		if err != nil {
			return "", err
		}
		if len(row) > max(px, sv, st) && string(row[px]) == backend && string(row[sv]) == "BACKEND" {
			return string(row[st]), nil
		}
	}
}

// csvReader reads rows of CSV as HAProxy writes them: fields that need it are in quotes, with quotes in
// them doubled, and every row ends with a newline. Unlike encoding/csv it bounds a row, whatever is in it.
type csvReader struct {
	r      *bufio.Reader
	buf    []byte
	ends   []int
	fields [][]byte
}

// row returns the fields of the next row, valid until the next call; io.EOF after the last one, and
// io.ErrUnexpectedEOF if that has no end.
func (c *csvReader) row() ([][]byte, error) {
	c.buf, c.ends, c.fields = c.buf[:0], c.ends[:0], c.fields[:0]
	quoted, start := false, true // in quotes; at the first byte of a field
	for n := 0; ; n++ {
		b, err := c.r.ReadByte()
		switch {
		case err == io.EOF && n > 0:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case n >= maxStatsRow:
			return nil, errLongRow
		case b == '"' && start:
			quoted, start = true, false
			continue
		case b == '"' && quoted:
			// Two of them are one, one ends the quotes.
			if next, err := c.r.Peek(1); err == nil && next[0] == '"' {
				_, _ = c.r.ReadByte()
				c.buf = append(c.buf, '"')
				continue
			}
			quoted = false
			continue
		case !quoted && (b == ',' || b == '\n'):
			from := 0
			if len(c.ends) > 0 {
				from = c.ends[len(c.ends)-1]
			}
			if b == '\n' && len(c.buf) > from && c.buf[len(c.buf)-1] == '\r' {
				c.buf = c.buf[:len(c.buf)-1]
			}
			c.ends = append(c.ends, len(c.buf))
			start = true
			if b == '\n' {
				from = 0
				for _, end := range c.ends {
					c.fields = append(c.fields, c.buf[from:end])
					from = end
				}
				return c.fields, nil
			}
			continue
		}
		start = false
		c.buf = append(c.buf, b)
	}
}
