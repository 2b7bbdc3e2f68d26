package web

import (
	"crypto/sha256"
	_ "embed" // for the page
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

// indexHTML is the page: one file with its style and its script. It shows /overview and inserts everything as text.
//
//go:embed index.html
var indexHTML string

// index answers /: the page for a browser, and its content as text for curl.
//
// It answers 404 to a plain "option httpchk GET /", which must not find a healthy service here. Such a request has
// neither Accept nor User-Agent; each program of a person sends one of them.
func (s *Server) index(w http.ResponseWriter, r *http.Request) {
	accept := r.Header["Accept"]
	if accept == nil && r.Header["User-Agent"] == nil {
		notFound(w)
		return
	}
	h := w.Header()
	h["Vary"] = []string{"Accept"}
	if !strings.Contains(strings.Join(accept, ","), "text/html") {
		h["Cache-Control"] = []string{"no-store"}
		servePage(s, w, r, s.pages.text, func(t overviewText) {
			if t.empty {
				t.body = appendFirstSteps(slices.Clone(t.body), hostFor(r))
			}
			writeBody(w, textType, t.body)
		})
		return
	}
	s.readers.serve(w, r, func() {
		limitReadTime(w)
		serveIndex(w, r)
	})
}

// serveIndex answers with the page for a browser.
func serveIndex(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["Content-Type"] = htmlType
	setPageHeaders(h, contentPolicy(indexHTML))
	h["Cache-Control"] = []string{"no-cache"} // the browser asks whether the page has changed, so an upgrade shows at once
	sum := sha256.Sum256([]byte(indexHTML))
	h["Etag"] = []string{`"` + hex.EncodeToString(sum[:12]) + `"`}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(indexHTML))
}

// setPageHeaders sets the headers of a page for a browser.
func setPageHeaders(h http.Header, policy string) {
	h["Content-Security-Policy"] = []string{policy}
	h["X-Frame-Options"] = []string{"DENY"} // frame-ancestors, for old browsers
	h["Referrer-Policy"] = []string{"no-referrer"}
	h["Cross-Origin-Opener-Policy"] = []string{"same-origin"}
	h["Cross-Origin-Resource-Policy"] = []string{"same-origin"}
}

// overviewPage answers /overview.
func (s *Server) overviewPage(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["Cache-Control"] = []string{"no-store"}
	h["Cross-Origin-Resource-Policy"] = []string{"same-origin"}
	servePage(s, w, r, s.pages.overview, func(body []byte) { writeBody(w, jsonType, body) })
}

// contentPolicy allows the one style and the one script of a page, and requests of that script to this server. It allows
// nothing else.
func contentPolicy(page string) string {
	return "default-src 'none'; script-src " + sourceHash(page, "script") + "; style-src " + sourceHash(page, "style") +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// sourceHash is the hash of an element's content as a Content-Security-Policy names it.
func sourceHash(page, element string) string {
	_, rest, _ := strings.Cut(page, "<"+element+">")
	content, _, _ := strings.Cut(rest, "</"+element+">")
	sum := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// hostFor returns the host that r was sent to, for examples.
func hostFor(r *http.Request) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:_[]"
	if r.Host != "" && strings.Trim(r.Host, plain) == "" {
		return r.Host
	}
	return "127.0.0.1:3333"
}
