package check

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxRedirects is how many redirects are followed where they are.
const maxRedirects = 10

// httpType is conn-check's check of an HTTP request, which may be any; the protocol http of check URLs is
// the GET that balancers send.
var httpType = Type{
	Name:    "http",
	Aliases: []string{"https"},
	Doc:     "an HTTP request is answered with the expected code",
	Options: []Option{
		{Name: "url", Want: "a URL that begins with http:// or https://", Required: true, Secret: true, Doc: "what to ask for; a user and password in it are used as auth and never shown"},
		{Name: "method", Want: "an HTTP method", Default: "GET", Doc: "the method"},
		{Name: "expected_code", Want: "a whole number from 100 to 599", Default: "200", Doc: "the healthy status code"},
		{Name: "headers", Want: "a mapping of names to a text or a list of texts, or a list of pairs", Secret: true, Doc: "headers to send"},
		{Name: "params", Want: "a mapping of names to a text or a list of texts", Secret: true, Doc: "what to add to the query"},
		{Name: "cookies", Want: "a mapping of names to texts", Secret: true, Doc: "cookies to send"},
		{Name: "body", Want: "a text", Secret: true, Doc: "the request's body"},
		{Name: "auth", Want: "a list of a user name and a password", Secret: true, Doc: "basic authentication"},
		{Name: "digest_auth", Want: "a list of a user name and a password", Secret: true, Doc: "digest authentication (MD5 or SHA-256)"},
		{Name: "allow_redirects", Want: "true or false", Default: "false", Doc: "follow redirects, ten at most"},
		{Name: "proxy_url", Want: "a URL that begins with http:// or https://", Secret: true, Doc: "the proxy to go by; a user and password in it are shown to the proxy"},
		{Name: "proxy_host", Want: "an IP address or a host name", Doc: "the same in two options: an HTTP proxy; not looked at with proxy_url"},
		portNamed("proxy_port", 8000, "its port"),
		noVerifyOption,
	},
	build: buildWeb,
}

// web is one request that can be made again and again.
type web struct {
	method, userAgent string
	url               *url.URL // without user and password
	header            http.Header
	params            []string // values that are added to url and not shown, as they are and as they are sent
	body              string
	expected          int
	redirects         bool
	auth, digest      *credentials
	tls               *tls.Config
	proxy             *url.URL // nil for none; not even then is the environment's asked
	endpoint          Endpoint // where it connects to: the proxy if there is one
}

type credentials struct {
	user     string
	password Secret
}

// credentialsOf returns the user and password in a URL, nil when it has none.
func credentialsOf(u *url.URL) *credentials {
	if u == nil || u.User == nil {
		return nil
	}
	password, _ := u.User.Password()
	return &credentials{u.User.Username(), Secret(password)}
}

func buildWeb(o *values, d Defaults) (*Configured, error) {
	w := &web{
		method: strings.ToUpper(o.text("method", "GET")), userAgent: newHTTPClient(d.Options).userAgent, header: http.Header{},
		body: o.text("body", ""), expected: o.whole("expected_code", 200, 100, 599), redirects: o.flag("allow_redirects", false),
		auth: o.pair("auth"), digest: o.pair("digest_auth"),
	}
	if !validName(w.method) {
		o.unexpected("method", w.method)
	}
	u := o.url("url", "http", "https")
	shown := oneLine(hideUser(o.text("url", "")), 2<<10)
	proxy, proxyEndpoint := o.proxy()
	headers, params, cookies := o.fields("headers"), o.texts("params"), o.texts("cookies")
	w.tls = tlsConfig(!o.flag(noVerifyOption.Name, false), d.TLSRoots)
	if u == nil || len(o.errs) > 0 {
		return nil, nil // o knows why
	}
	if u.User != nil && w.auth == nil && w.digest == nil {
		w.auth = credentialsOf(u)
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	if len(params) > 0 {
		for _, values := range params {
			for _, v := range values {
				w.params = append(w.params, v, url.QueryEscape(v))
			}
		}
		query := url.Values(params).Encode()
		u.RawQuery = strings.TrimPrefix(u.RawQuery+"&"+query, "&")
	}
	w.url = u
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		for _, value := range headers[name] {
			if !validName(name) || !validValue(value) {
				o.wrong("headers", "expected header lines, got one with a name or value that cannot be sent (not shown)")
				return nil, nil
			}
			w.header.Add(name, value)
		}
	}
	r := http.Request{Header: w.header}
	for _, name := range sortedKeys(o.mapping("cookies")) {
		for _, value := range cookies[name] {
			r.AddCookie(&http.Cookie{Name: name, Value: value}) //nolint:gosec // it is sent, not set
		}
	}
	w.proxy, w.endpoint = proxy, endpointOf(u)
	if proxy != nil {
		w.endpoint = proxyEndpoint
	}
	prefix := "http:" + shown + ":"
	first := tcpStep(w.endpoint.Host, w.endpoint.Port)
	first.Name = prefix + first.Name
	return &Configured{
		Name:     "http:" + shown,
		Steps:    []Step{first, {Name: prefix, Info: w.method + " " + shown, Run: w.check}},
		Endpoint: w.endpoint,
	}, nil
}

var errRedirects = fmt.Errorf("more than %d redirects", maxRedirects)

// check makes the request.
func (w *web) check(ctx context.Context, t Target) Result {
	t.Host, t.Port = w.endpoint.Host, w.endpoint.Port
	x := &exchange{ctx: ctx, t: t, start: time.Now(), phase: phaseConnect}
	r := w.run(x)
	if r.Reason == ReasonProtocol && w.repeats(string(r.Body)) {
		r = x.protocol("The answer of %s is not HTTP, or not valid (its words are not shown, a password may be among them)", x.addr())
	}
	r.Took = time.Since(x.start)
	return r
}

// repeats tells whether a text, which quotes the service, has something in it that was sent and may be a
// password: a value of a header, a cookie or a parameter, a part of the body, or a login.
func (w *web) repeats(text string) bool {
	const shortest = 4 // of what is a part of something; any text has shorter ones
	parts := func(sent string) bool {
		return slices.ContainsFunc(strings.FieldsFunc(sent, func(r rune) bool {
			return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._~+/", r)
		}), func(part string) bool { return len(part) >= shortest && strings.Contains(text, part) })
	}
	for _, c := range []*credentials{w.auth, w.digest, credentialsOf(w.proxy)} {
		if c == nil || c.password == "" {
			continue
		}
		both := base64.StdEncoding.EncodeToString([]byte(c.user + ":" + string(c.password)))
		if strings.Contains(text, string(c.password)) || strings.Contains(text, both) {
			return true
		}
	}
	for _, values := range w.header {
		if slices.ContainsFunc(values, parts) {
			return true
		}
	}
	return slices.ContainsFunc(w.params, parts) || parts(w.body)
}

func (w *web) run(x *exchange) Result {
	if err := x.ctx.Err(); err != nil {
		return x.fail(err)
	}
	h := &hops{web: w, x: x}
	defer h.close()
	resp, r, ok := h.do(w.method, w.url, "") //nolint:bodyclose // it is a NopCloser
	if !ok {
		return r
	}
	if at := resp.Request.URL; resp.StatusCode == http.StatusUnauthorized && w.digest != nil && at.Host == w.url.Host {
		method := resp.Request.Method
		authorization, err := w.digest.digestAuthorization(resp.Header.Values("WWW-Authenticate"), method, at.RequestURI(), clientNonce())
		if err != nil {
			return x.failed(503, "%s cannot be logged in to: %s", x.addr(), err)
		}
		if resp, r, ok = h.do(method, at, authorization); !ok { //nolint:bodyclose // as above
			return r
		}
	}
	if resp.StatusCode != w.expected {
		return x.failed(503, "Unexpected response code: %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	if conn, ok := x.conn.(*tls.Conn); ok {
		_ = conn.CloseWrite() // a goodbye, as https says one
	}
	return Result{Code: 200, Body: fmt.Appendf(nil, "%s answered %d in %.2fs", w.method, resp.StatusCode, time.Since(x.start).Seconds())}
}

// hops makes a request and what it leads to: redirects, and the second request of a digest login. It is
// what net/http's Client, which knows about redirects, finds in the place of its Transport. That one opens
// connections in the background, outlives the question, and logs what a service says unasked.
type hops struct {
	web     *web
	x       *exchange
	scratch *scratch
	conn    net.Conn
	stop    func() bool
}

// webFailure is a result on its way through net/http's Client.
type webFailure struct{ result Result }

func (e *webFailure) Error() string { return string(e.result.Body) }

// do makes a request and reads the final answer to its end, or up to MaxBody bytes. If there is none it
// says why and returns false.
func (h *hops) do(method string, at *url.URL, authorization string) (*http.Response, Result, bool) {
	client := &http.Client{Transport: h, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		switch {
		case !h.web.redirects:
			return http.ErrUseLastResponse
		case len(via) > maxRedirects:
			return errRedirects
		}
		return nil
	}}
	resp, err := h.web.send(h.x, client, method, at, authorization)
	var failure *webFailure
	switch {
	case errors.As(err, &failure):
		return nil, failure.result, false
	case errors.Is(err, errRedirects):
		return nil, h.x.failed(503, "%s redirects more than %d times", h.x.addr(), maxRedirects), false
	case err != nil:
		// A Location that cannot be followed. The client's own error quotes the URL, which is not to be shown.
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, h.x.protocol("%s redirects to where nobody can follow: %s", h.x.addr(), oneLine(err.Error(), 200)), false
	}
	h.x.phase = phaseRead
	if _, err := io.CopyN(io.Discard, resp.Body, MaxBody); err != nil && !errors.Is(err, io.EOF) {
		return nil, h.x.failBody(err), false
	}
	return resp, Result{}, true
}

// RoundTrip makes one request over a connection of its own.
func (h *hops) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, r, ok := h.roundTrip(req)
	if !ok {
		return nil, &webFailure{r}
	}
	// Closing would read the rest, however long it is.
	resp.Body = io.NopCloser(resp.Body)
	resp.Request = req
	return resp, nil
}

func (h *hops) roundTrip(req *http.Request) (*http.Response, Result, bool) {
	h.close()
	x, w := h.x, h.web
	target, proxy := endpointOf(req.URL), w.proxy
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" || target.Host == "" || target.Port == 0 {
		return nil, x.protocol("%s redirects to what is no HTTP", x.addr()), false
	}
	at := target
	if proxy != nil {
		at = w.endpoint
	}
	x.t.Host, x.t.Port, x.phase = at.Host, at.Port, phaseConnect
	conn, err := dialTCP(x.ctx, x.addr())
	if err != nil {
		return nil, x.fail(err), false
	}
	h.conn, x.conn, h.scratch = conn, conn, newScratch()
	h.stop = context.AfterFunc(x.ctx, func() { _ = conn.SetDeadline(longAgo) })

	if proxy != nil && proxy.Scheme == "https" {
		if _, r, ok := x.handshake(w.tls); !ok {
			return nil, r, false
		}
	}
	if req.URL.Scheme == "https" {
		if proxy != nil {
			if r, ok := h.connect(target); !ok {
				return nil, r, false
			}
		}
		if _, r, ok := x.handshake(w.tls); !ok {
			return nil, r, false
		}
		proxy = nil // it is behind us
	}

	x.phase = phaseWait
	write := req.Write
	if proxy != nil {
		// Not the client's request, whose header a redirect would repeat to others.
		req = req.Clone(x.ctx)
		setProxyAuth(req, proxy)
		write = req.WriteProxy
	}
	var request bytes.Buffer
	if err := write(&request); err != nil {
		return nil, result(500, ReasonConfig, err, "The request to %s cannot be made: %s", x.addr(), oneLine(err.Error(), 200)), false
	}
	if _, err := x.conn.Write(request.Bytes()); err != nil && x.ctx.Err() != nil {
		return nil, x.fail(err), false
	}
	// Any other error of the write is left to the read: a service that answers early has still answered.
	return x.readAnswer(h.scratch, req)
}

// connect asks the proxy for a connection to target.
func (h *hops) connect(target Endpoint) (Result, bool) {
	x := h.x
	x.phase = phaseWait
	to := net.JoinHostPort(target.Host, strconv.Itoa(int(target.Port)))
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: to}, Host: to, Header: http.Header{
		"User-Agent": {h.web.userAgent}, HopsHeader: {nextHops(&x.t)},
	}}
	setProxyAuth(req, h.web.proxy)
	var request bytes.Buffer
	if err := req.Write(&request); err != nil {
		return result(500, ReasonConfig, err, "The request to %s cannot be made: %s", x.addr(), oneLine(err.Error(), 200)), false
	}
	if _, err := x.conn.Write(request.Bytes()); err != nil && x.ctx.Err() != nil {
		return x.fail(err), false
	}
	resp, r, ok := x.readAnswer(h.scratch, req) //nolint:bodyclose // there is none
	switch {
	case !ok:
		return r, false
	case resp.StatusCode != http.StatusOK:
		return x.failed(503, "The proxy %s answers CONNECT with %d %s", x.addr(), resp.StatusCode, http.StatusText(resp.StatusCode)), false
	case h.scratch.reader.Buffered() > 0:
		return x.protocol("The proxy %s speaks before it is spoken to", x.addr()), false
	}
	x.t.Host, x.t.Port = target.Host, target.Port // from here on it is whom we speak with
	return Result{}, true
}

// setProxyAuth shows a proxy the user and password in its URL.
func setProxyAuth(req *http.Request, proxy *url.URL) {
	if proxy.User == nil {
		return
	}
	password, _ := proxy.User.Password()
	login := &http.Request{Header: http.Header{}}
	login.SetBasicAuth(proxy.User.Username(), password)
	req.Header.Set("Proxy-Authorization", login.Header.Get("Authorization"))
}

// close closes the connection of the last request.
func (h *hops) close() {
	if h.conn == nil {
		return
	}
	h.stop()
	_ = h.conn.Close()
	h.scratch.free()
	h.conn, h.scratch = nil, nil
}

// send makes one request with the client.
func (w *web) send(x *exchange, client *http.Client, method string, at *url.URL, authorization string) (*http.Response, error) {
	var body io.Reader
	if w.body != "" && method == w.method { // a redirect may have made a GET of it
		body = strings.NewReader(w.body)
	}
	req, err := http.NewRequestWithContext(x.ctx, method, at.String(), body)
	if err != nil {
		return nil, err
	}
	req.Close = true
	req.Header = w.header.Clone()
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", w.userAgent)
	}
	req.Header.Set(HopsHeader, nextHops(&x.t)) // whatever the configuration says
	switch {
	case authorization != "":
		req.Header.Set("Authorization", authorization)
	case w.auth != nil:
		req.SetBasicAuth(w.auth.user, string(w.auth.password))
	}
	return client.Do(req)
}

func splitAddr(addr string) (Endpoint, bool) {
	host, text, err := net.SplitHostPort(addr)
	port, err2 := strconv.ParseUint(text, 10, 16)
	return Endpoint{"tcp", host, uint16(port)}, err == nil && err2 == nil
}

// endpointOf is where a URL of a known scheme leads.
func endpointOf(u *url.URL) Endpoint {
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if p := u.Port(); p != "" {
		port = p
	}
	at, _ := splitAddr(net.JoinHostPort(u.Hostname(), port))
	return at
}

// hideUser takes user and password out of a URL, in the text as it was written.
func hideUser(text string) string {
	scheme, rest, ok := strings.Cut(text, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	at := strings.LastIndexByte(rest[:end], '@')
	if !ok || at < 0 {
		return text
	}
	return scheme + "://***" + rest[at:]
}

// url returns a URL of one of the schemes with a host; nil if there is none.
func (o *values) url(name string, schemes ...string) *url.URL {
	text := o.text(name, "")
	if text == "" {
		if o.given(name) {
			o.unexpected(name, text)
		}
		return nil
	}
	u, err := url.Parse(text)
	if err == nil && u.Hostname() != "" {
		port, portErr := strconv.Atoi(u.Port())
		for _, s := range schemes {
			if u.Scheme == s && (u.Port() == "" || portErr == nil && port >= 1 && port <= 65535) {
				return u
			}
		}
	}
	o.unexpected(name, text)
	return nil
}

// proxy returns the proxy that the options name, nil for none, and where it is.
func (o *values) proxy() (*url.URL, Endpoint) {
	u := o.url("proxy_url", "http", "https")
	host, port := o.host("proxy_host"), o.port("proxy_port", 8000)
	switch {
	case u != nil: // as in conn-check, whatever the other two say
		return u, endpointOf(u)
	case host == "":
		return nil, Endpoint{}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return &url.URL{Scheme: "http", Host: net.JoinHostPort(host, strconv.Itoa(int(port)))}, Endpoint{"tcp", host, port}
	}
	return &url.URL{Scheme: "http", Host: host + ":" + strconv.Itoa(int(port))}, Endpoint{"tcp", host, port}
}

// pair returns a user name and a password, nil if there is none.
func (o *values) pair(name string) *credentials {
	var two [2]string
	list := o.list(name)
	switch {
	case list == nil:
		return nil
	case len(list) != len(two):
		o.unexpected(name, list)
		return nil
	}
	for i, v := range list {
		text, ok := scalar(v)
		if !ok || i == 0 && (text == "" || !validValue(text)) {
			o.unexpected(name, list)
			return nil
		}
		two[i] = text
	}
	return &credentials{two[0], Secret(two[1])}
}

// fields is texts of a mapping or, as conn-check has them too, of a list of names and values in pairs.
func (o *values) fields(name string) map[string][]string {
	list, ok := o.spec.Options[name].([]any)
	if !ok {
		return o.texts(name)
	}
	all := map[string][]string{}
	for _, v := range list {
		pair, _ := v.([]any)
		if len(pair) != 2 {
			o.unexpected(name, list)
			return nil
		}
		key, keyOK := scalar(pair[0])
		text, ok := scalar(pair[1])
		if !keyOK || !ok {
			o.unexpected(name, list)
			return nil
		}
		all[key] = append(all[key], text)
	}
	return all
}

// texts returns a mapping of names to texts, of which there may be several for one name.
func (o *values) texts(name string) map[string][]string {
	all := map[string][]string{}
	for key, value := range o.mapping(name) {
		list, ok := value.([]any)
		if !ok {
			list = []any{value}
		}
		for _, v := range list {
			text, ok := scalar(v)
			if !ok {
				o.unexpected(name, "")
				return nil
			}
			all[key] = append(all[key], text)
		}
	}
	return all
}

// scalar is a text, or a number or boolean as it is written.
func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case int, float64, bool:
		return fmt.Sprint(v), true
	}
	return "", false
}
