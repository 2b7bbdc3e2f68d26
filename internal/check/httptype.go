package check

import (
	"cmp"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// httpType is conn-check's check of an HTTP request, with any method, header and body. The protocol http of check URLs
// only makes the GET that balancers send.
var httpType = Type{
	Name:    "http",
	Aliases: []string{"https"},
	Doc:     "an HTTP request is answered with the expected code",
	Options: append([]Option{
		{Name: "url", Want: "a URL that begins with http:// or https://", Required: true, Secret: true, Doc: "the URL; its user and password are used as auth and never shown"},
		{Name: "method", Want: "an HTTP method", Default: "GET", Doc: "the method"},
		{Name: "expected_code", Want: "a whole number from 100 to 599", Default: "200", Doc: "the healthy status code"},
		{Name: "expected_codes", Want: "a list of whole numbers from 100 to 599", Doc: "the healthy status codes, instead of expected_code"},
		{Name: "expect_body", Want: "a regular expression (RE2)", Doc: "what the first 64 KiB of the body have to match somewhere"},
		{Name: "headers", Want: "a mapping of names to a text or a list of texts, or a list of pairs", Secret: true, Doc: "headers to send"},
		{Name: "params", Want: "a mapping of names to a text or a list of texts", Secret: true, Doc: "parameters that are added to the query"},
		{Name: "cookies", Want: "a mapping of names to texts", Secret: true, Doc: "cookies to send"},
		{Name: "body", Want: "a text", Secret: true, Doc: "the request's body"},
		{Name: "auth", Want: "a list of a user name and a password", Secret: true, Doc: "basic authentication"},
		{Name: "digest_auth", Want: "a list of a user name and a password", Secret: true, Doc: "digest authentication (MD5, SHA-256 or SHA-512-256)"},
		{Name: "allow_redirects", Want: "true or false", Default: "false", Doc: "follow redirects, ten at most"},
		{Name: "proxy_url", Want: "a URL that begins with http:// or https://", Secret: true, Doc: "the proxy; hacheck sends its user and password to the proxy"},
		{Name: "proxy_host", Want: "an IP address or a host name", Doc: "an HTTP proxy, instead of proxy_url (which wins)"},
		portNamed("proxy_port", 8000, "its port"),
		{Name: "socket", Want: "the absolute path of a Unix socket", Doc: "a Unix socket to connect to, instead of the host in url"},
		sendProxyOption,
		noVerifyOption,
	}, certificateOptions...),
	build: buildHTTP,
}

func buildHTTP(o *optionReader, d Defaults) (*ConfiguredCheck, error) {
	r := &httpRequest{
		method: strings.ToUpper(o.text("method", "GET")), userAgent: newHTTPClient(d.Options).userAgent, header: http.Header{},
		body: o.text("body", ""), redirects: o.boolean("allow_redirects", false),
		auth: o.pair("auth"), digest: o.pair("digest_auth"),
	}
	r.expected, r.expectBody = o.expectedCodes(), o.pattern("expect_body")
	if !validName(r.method) {
		o.addValueError("method", r.method)
	}
	u := o.url("url", "http", "https")
	shown := excerpt(hideUser(o.text("url", "")), 2<<10)
	r.proxy = o.proxy()
	headers, params, cookies := o.fields("headers"), o.texts("params"), o.texts("cookies")
	settings := o.tls(d, true)
	r.tls, r.otherTLS = settings.config, settings.config.Clone()
	r.otherTLS.ServerName, r.otherTLS.GetClientCertificate = "", nil
	socket, preamble := o.socket(), o.sendProxy()
	if r.proxy != nil && (socket != "" || preamble != "") {
		o.addError("proxy_url", "a proxy excludes socket and send_proxy")
	}
	if u == nil || len(o.errs) > 0 {
		return nil, nil // o has the errors
	}
	r.setURL(u, params)
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		for _, value := range headers[name] {
			if !validName(name) || !validValue(value) {
				o.addError("headers", "expected header lines, got one with a name or value that cannot be sent (not shown)")
				return nil, nil
			}
			r.header.Add(name, value)
		}
	}
	withCookies := http.Request{Header: r.header}
	for _, name := range slices.Sorted(maps.Keys(cookies)) {
		for _, value := range cookies[name] {
			withCookies.AddCookie(&http.Cookie{Name: name, Value: value}) //nolint:gosec // it is sent, not set
		}
	}
	r.endpoint = endpointOf(cmp.Or(r.proxy, u))
	prefix := "http:" + shown + ":"
	first := tcpStep(r.endpoint.Host, r.endpoint.Port)
	first.Name = prefix + first.Name
	c := &ConfiguredCheck{
		Name:     "http:" + shown,
		Steps:    []Step{first, {Name: prefix, Info: r.method + " " + shown, run: r.check}},
		Endpoint: r.endpoint,
		socket:   socket, preamble: preamble,
	}
	if socket != "" { // nothing is sent over the network
		c.Steps, c.Endpoint = c.Steps[1:], Endpoint{}
	}
	return c, nil
}

// expectedCodes returns the healthy status codes.
func (o *optionReader) expectedCodes() []int {
	one := o.integer("expected_code", 200, 100, 599)
	var codes []int
	for _, v := range o.list("expected_codes") {
		n, ok := wholeNumber(v)
		if !ok || n < 100 || n > 599 {
			o.addValueError("expected_codes", o.spec.Options["expected_codes"])
			return nil
		}
		codes = append(codes, n)
	}
	switch {
	case codes == nil && o.isSet("expected_codes"):
		o.addError("expected_codes", "expected at least one code")
	case codes != nil && o.isSet("expected_code"):
		o.addError("expected_codes", "excludes expected_code")
	case codes == nil:
		codes = []int{one}
	}
	return codes
}

// pattern returns a regular expression, nil if there is none.
func (o *optionReader) pattern(name string) *regexp.Regexp {
	text := o.text(name, "")
	if text == "" {
		return nil
	}
	re, err := regexp.Compile(text)
	if err != nil {
		o.addError(name, "expected "+o.option(name).Want+", got "+cutTo(err.Error(), 200))
	}
	return re
}

// socket returns the path of a Unix socket, "" if there is none.
func (o *optionReader) socket() string {
	path := o.plainText("socket", "")
	if path != "" && !strings.HasPrefix(path, "/") || len(path) > maxSocketPath {
		o.addValueError("socket", path)
	}
	return path
}

// setURL sets the URL, with params added to its query and its login moved to r.auth.
func (r *httpRequest) setURL(u *url.URL, params map[string][]string) {
	if u.User != nil && r.auth == nil && r.digest == nil {
		r.auth = credentialsOf(u)
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	for _, values := range params {
		for _, v := range values {
			r.params = append(r.params, v, url.QueryEscape(v))
		}
	}
	if len(params) > 0 {
		u.RawQuery = strings.TrimPrefix(u.RawQuery+"&"+url.Values(params).Encode(), "&")
	}
	r.url = u
}

// credentials are a user name and a password.
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

// endpointOf returns the host and port of a URL. The port is 0 if neither the URL nor its scheme has one.
func endpointOf(u *url.URL) Endpoint {
	port, _ := strconv.ParseUint(cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme]), 10, 16)
	return Endpoint{"tcp", u.Hostname(), uint16(port)}
}

// hideUser replaces user and password in the text of a URL.
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
func (o *optionReader) url(name string, schemes ...string) *url.URL {
	if !o.isSet(name) {
		return nil
	}
	text := o.text(name, "")
	if u, err := url.Parse(text); err == nil && u.Hostname() != "" && slices.Contains(schemes, u.Scheme) {
		if port, err := strconv.Atoi(u.Port()); u.Port() == "" || err == nil && port >= 1 && port <= 65535 {
			return u
		}
	}
	o.addValueError(name, text)
	return nil
}

// proxy returns the proxy that the options name, nil for none. As in conn-check, proxy_url overrides the other two.
func (o *optionReader) proxy() *url.URL {
	u := o.url("proxy_url", "http", "https")
	host, port := o.host("proxy_host"), o.port("proxy_port", 8000)
	if u == nil && host != "" {
		return &url.URL{Scheme: "http", Host: net.JoinHostPort(host, strconv.Itoa(int(port)))}
	}
	return u
}

// fields returns texts by name. It takes a mapping or, as conn-check does, a list of names and values in pairs.
func (o *optionReader) fields(name string) map[string][]string {
	list, ok := o.spec.Options[name].([]any)
	if !ok {
		return o.texts(name)
	}
	all := map[string][]string{}
	for _, v := range list {
		pair, _ := v.([]any)
		if len(pair) != 2 {
			o.addValueError(name, list)
			return nil
		}
		key, keyOK := scalar(pair[0])
		text, ok := scalar(pair[1])
		if !keyOK || !ok {
			o.addValueError(name, list)
			return nil
		}
		all[key] = append(all[key], text)
	}
	return all
}

// texts returns a mapping of names to texts. A name may have a list of them.
func (o *optionReader) texts(name string) map[string][]string {
	all := map[string][]string{}
	for key, value := range o.mapping(name) {
		list, ok := value.([]any)
		if !ok {
			list = []any{value}
		}
		for _, v := range list {
			text, ok := scalar(v)
			if !ok {
				o.addValueError(name, "")
				return nil
			}
			all[key] = append(all[key], text)
		}
	}
	return all
}
