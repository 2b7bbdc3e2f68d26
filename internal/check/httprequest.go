package check

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"
)

// maxDigestLogins is how many challenges of a server are answered: the first, that of a page that the login redirects
// to, and one that says that its nonce was too old.
const maxDigestLogins = 3

// maxRedirects is how many redirects are followed if allow_redirects is true.
const maxRedirects = 10

var errRedirects = fmt.Errorf("more than %d redirects", maxRedirects)

// httpRequest is the request of a configured http check. It is made again for each check.
type httpRequest struct {
	method, userAgent string
	url               *url.URL // without user and password
	header            http.Header
	params            []string // secret values in the query of url, each plain and escaped
	body              string
	expected          []int          // the healthy status codes
	expectBody        *regexp.Regexp // what the body has to match; nil: anything
	redirects         bool
	auth, digest      *credentials
	tls               *tls.Config
	otherTLS          *tls.Config // for a proxy and the targets of redirects: without server_name and the client's certificate
	proxy             *url.URL    // nil for none; the proxy of the environment is never used
	endpoint          Endpoint    // where the check connects to: the proxy, if there is one
}

// check makes the request.
func (r *httpRequest) check(x *exchange) Result {
	res := r.run(x)
	if res.Reason == ReasonProtocol && r.quotesSecret(string(res.Body)) {
		return x.protocolError("The answer of %s is not HTTP, or not valid (its words are not shown, a password may be among them)", x.addr())
	}
	return res
}

// quotesSecret reports whether a text, which quotes the service, repeats something that was sent and can be a
// password: a value of a header, a cookie or a parameter, a part of the body, or a login.
func (r *httpRequest) quotesSecret(text string) bool {
	const minPart = 4 // any text contains parts that are shorter
	containsPartOf := func(sent string) bool {
		return slices.ContainsFunc(strings.FieldsFunc(sent, func(r rune) bool {
			return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._~+/", r)
		}), func(part string) bool { return len(part) >= minPart && strings.Contains(text, part) })
	}
	for _, c := range []*credentials{r.auth, r.digest, credentialsOf(r.proxy)} {
		if c == nil || c.password == "" {
			continue
		}
		basic := base64.StdEncoding.EncodeToString([]byte(c.user + ":" + string(c.password)))
		if strings.Contains(text, string(c.password)) || strings.Contains(text, basic) {
			return true
		}
	}
	for _, values := range r.header {
		if slices.ContainsFunc(values, containsPartOf) {
			return true
		}
	}
	return slices.ContainsFunc(r.params, containsPartOf) || containsPartOf(r.body)
}

func (r *httpRequest) run(x *exchange) Result {
	if err := x.ctx.Err(); err != nil {
		return x.networkError(err)
	}
	t := &transport{request: r, x: x}
	defer t.free()
	resp, body, res, ok := t.do(r.method, r.url, "") //nolint:bodyclose // it is a NopCloser
	if !ok {
		return res
	}
	answered := "" // the URL of the last challenge
	for range maxDigestLogins {
		method, at, challenges := resp.Request.Method, resp.Request.URL, resp.Header.Values("WWW-Authenticate")
		if resp.StatusCode != http.StatusUnauthorized || r.digest == nil || at.Host != r.url.Host ||
			at.String() == answered && !isStale(challenges) { // the server refuses the login
			break
		}
		answered = at.String()
		request := digestRequest{method, at.RequestURI(), r.bodyFor(method), clientNonce()}
		authorization, err := r.digest.digestAuthorization(challenges, request)
		if err != nil {
			return x.serviceError(503, "%s cannot be logged in to: %s", x.addr(), err)
		}
		if resp, body, res, ok = t.do(method, at, authorization); !ok { //nolint:bodyclose // as above
			return res
		}
	}
	if !slices.Contains(r.expected, resp.StatusCode) {
		return x.serviceError(503, "Unexpected response code: %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	if r.expectBody != nil && !r.expectBody.Match(body) {
		return x.serviceError(503, "%s answered %d, but the body does not match expect_body", r.method, resp.StatusCode)
	}
	return x.healthy(fmt.Sprintf("%s answered %d", r.method, resp.StatusCode))
}

// bodyFor returns the body of a request with this method. A redirect may have changed the method to GET.
func (r *httpRequest) bodyFor(method string) string {
	if method != r.method {
		return ""
	}
	return r.body
}

// newRequest returns the request for one URL. authorization, if set, replaces basic authentication.
func (r *httpRequest) newRequest(x *exchange, method string, at *url.URL, authorization string) (*http.Request, error) {
	var body io.Reader
	if text := r.bodyFor(method); text != "" {
		body = strings.NewReader(text)
	}
	req, err := http.NewRequestWithContext(x.ctx, method, at.String(), body)
	if err != nil {
		return nil, err
	}
	req.Close = r.digest == nil // the requests of a digest login use one connection
	req.Header = r.header.Clone()
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", r.userAgent)
	}
	req.Header.Set(HopsHeader, nextHops(&x.t)) // also if the configuration has this header
	switch {
	case authorization != "":
		req.Header.Set("Authorization", authorization)
	case r.auth != nil:
		req.SetBasicAuth(r.auth.user, string(r.auth.password))
	}
	return req, nil
}

// transport makes a request and those that it leads to: redirects, and the second request of a digest login. It
// implements http.RoundTripper for http.Client, which knows the rules of redirects. http.Transport opens connections in
// the background, keeps them after the check, and logs what a service sends without a request.
type transport struct {
	request *httpRequest
	x       *exchange
	buffers *httpBuffers
	// reusable reports whether the service keeps the connection open for another request: the last answer of do was
	// read to its end, nothing came after it, and it does not announce a close.
	reusable bool
}

// resultError carries a Result through http.Client.
type resultError struct{ result Result }

func (e *resultError) Error() string { return string(e.result.Body) }

// do makes a request and reads the final answer to its end, or up to MaxBody bytes. If there is no answer, it returns
// a Result that says why, and false.
func (t *transport) do(method string, at *url.URL, authorization string) (*http.Response, []byte, Result, bool) {
	client := &http.Client{Transport: t, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if authorization != "" {
			req.Header.Del("Authorization") // a digest is for one URL
		}
		switch {
		case !t.request.redirects:
			return http.ErrUseLastResponse
		case len(via) > maxRedirects:
			return errRedirects
		}
		return nil
	}}
	var resp *http.Response
	req, err := t.request.newRequest(t.x, method, at, authorization)
	if err == nil {
		resp, err = client.Do(req)
	}
	var failure *resultError
	switch {
	case errors.As(err, &failure):
		return nil, nil, failure.result, false
	case errors.Is(err, errRedirects):
		return nil, nil, t.x.serviceError(503, "%s redirects more than %d times", t.x.addr(), maxRedirects), false
	case err != nil:
		// A Location that cannot be followed. The client's own error quotes the URL, which is not to be shown.
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, nil, t.x.protocolError("%s redirects to a URL that cannot be used: %s", t.x.addr(), excerpt(err.Error(), 200)), false
	}
	t.x.phase = phaseRead
	var body bytes.Buffer
	to := io.Discard
	if t.request.expectBody != nil {
		to = &body
	}
	_, err = io.CopyN(to, resp.Body, MaxBody)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, t.x.failBody(err), false
	}
	t.reusable = err != nil && !req.Close && !resp.Close && t.buffers.unread() == 0
	return resp, body.Bytes(), Result{}, true
}

// RoundTrip makes one request over a connection of its own, which stays open until the next request. The first request
// uses the connection that the tcp step has opened. The second request of a digest login uses the connection of the
// first if the service keeps it open.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, r, ok := t.roundTrip(req)
	if !ok {
		return nil, &resultError{r}
	}
	// Closing a body would read the rest of it, however long it is.
	resp.Body = io.NopCloser(resp.Body)
	resp.Request = req
	return resp, nil
}

func (t *transport) roundTrip(req *http.Request) (*http.Response, Result, bool) {
	x, proxy := t.x, t.request.proxy
	if t.reusable {
		t.reusable = false // a redirect leads elsewhere
		resp, r, ok := t.send(req)
		// A service may close an idle connection at any time. Only then is there no answer and no byte of one.
		if ok || x.ctx.Err() != nil || !isClosed(r.Err) || t.buffers.limited.N < maxHead {
			return resp, r, ok
		}
		if req.GetBody != nil {
			req.Body, _ = req.GetBody() // never fails for a text
		}
	}
	if t.buffers != nil { // not the first request
		t.free()
		x.close(Result{})
	}
	target := endpointOf(req.URL)
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" || target.Host == "" || target.Port == 0 {
		return nil, x.protocolError("%s redirects to what is no HTTP", x.addr()), false
	}
	at := target
	if proxy != nil {
		at = t.request.endpoint
	}
	x.t.Host, x.t.Port = at.Host, at.Port
	if r, ok := x.connect(); !ok {
		return nil, r, false
	}
	t.buffers = newHTTPBuffers()

	if proxy != nil && proxy.Scheme == "https" {
		x.serverName = ""
		if r, ok := x.handshake(t.request.otherTLS); !ok {
			return nil, r, false
		}
	}
	if req.URL.Scheme == "https" {
		if proxy != nil {
			if r, ok := t.connect(target); !ok {
				return nil, r, false
			}
		}
		x.serverName = nameInHost(req.Host)
		config := t.request.tls
		if target != endpointOf(t.request.url) {
			config = t.request.otherTLS
		}
		if r, ok := x.handshake(config); !ok {
			return nil, r, false
		}
	}
	return t.send(req)
}

// isClosed reports whether err says that the other side has closed the connection.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// send writes a request over the open connection, in the form for a proxy if one forwards it, and reads the head of the
// answer. A tunnel of a proxy leads to the service.
func (t *transport) send(req *http.Request) (*http.Response, Result, bool) {
	if t.request.proxy == nil || req.URL.Scheme == "https" {
		return t.write(req, req.Write)
	}
	// A clone: http.Client copies the header of its own request to the targets of redirects.
	req = req.Clone(t.x.ctx)
	setProxyAuth(req, t.request.proxy)
	return t.write(req, req.WriteProxy)
}

// write writes a request with the given method of it and reads the head of the answer.
func (t *transport) write(req *http.Request, write func(io.Writer) error) (*http.Response, Result, bool) {
	var request bytes.Buffer
	if err := write(&request); err != nil {
		return nil, result(500, ReasonConfig, err, "The request to %s cannot be made: %s", t.x.addr(), excerpt(err.Error(), 200)), false
	}
	return t.x.sendHTTP(t.buffers, request.Bytes(), req)
}

// connect asks the proxy for a tunnel to target.
func (t *transport) connect(target Endpoint) (Result, bool) {
	x := t.x
	to := net.JoinHostPort(target.Host, strconv.Itoa(int(target.Port)))
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: to}, Host: to, Header: http.Header{
		"User-Agent": {t.request.userAgent}, HopsHeader: {nextHops(&x.t)},
	}}
	setProxyAuth(req, t.request.proxy)
	resp, r, ok := t.write(req, req.Write) //nolint:bodyclose // there is none
	switch {
	case !ok:
		return r, false
	case resp.StatusCode != http.StatusOK:
		return x.serviceError(503, "The proxy %s answers CONNECT with %d %s", x.addr(), resp.StatusCode, http.StatusText(resp.StatusCode)), false
	case t.buffers.unread() > 0:
		return x.protocolError("The proxy %s speaks before it is spoken to", x.addr()), false
	}
	x.t.Host, x.t.Port = target.Host, target.Port // messages name the service from here on
	return Result{}, true
}

// setProxyAuth sets the header with the user and password in the proxy's URL.
func setProxyAuth(req *http.Request, proxy *url.URL) {
	if c := credentialsOf(proxy); c != nil {
		login := &http.Request{Header: http.Header{}}
		login.SetBasicAuth(c.user, string(c.password))
		req.Header.Set("Proxy-Authorization", login.Header.Get("Authorization"))
	}
}

// free frees the buffers of the last request, if there was one.
func (t *transport) free() {
	if t.buffers != nil {
		t.buffers.free()
		t.buffers = nil
	}
}
