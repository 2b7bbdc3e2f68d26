package web_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hacheck/internal/spool"
	"hacheck/internal/web"
	"hacheck/test/checktest"
	"hacheck/test/proxytest"
)

const browser = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

// TestIndex: a browser gets the page, curl the text, and no balancer an answer that looks healthy.
func TestIndex(t *testing.T) {
	t.Parallel()
	d := proxytest.Start(t, slog.LevelInfo)
	ask := func(line string, headers ...string) proxytest.Reply {
		t.Helper()
		method, _, _ := strings.Cut(line, " ")
		return d.Send(t, method, line+"\r\n"+strings.Join(append(headers, "Connection: close"), "\r\n")+"\r\n\r\n")
	}
	page := ask("GET / HTTP/1.1", browser)
	if page.Code != 200 || page.Header.Get("Content-Type") != "text/html; charset=utf-8" || page.Body != indexHTML(t) {
		t.Fatalf("to a browser: %d %v %d bytes", page.Code, page.Header, len(page.Body))
	}
	if r := ask("GET //?x=1 HTTP/1.0", browser); r.Code != 200 || r.Body != indexHTML(t) {
		t.Errorf("with two slashes and a query: %d", r.Code)
	}
	if r := ask("GET / HTTP/1.1", "Accept: */*"); r.Code != 200 || r.Header.Get("Content-Type") != "text/plain; charset=utf-8" || !strings.HasPrefix(r.Body, "hacheck") {
		t.Errorf("to curl: %+v", r)
	}
	if r := ask("HEAD / HTTP/1.1", browser); r.Code != 200 || r.Body != "" || r.Header.Get("Etag") != page.Header.Get("Etag") {
		t.Errorf("HEAD: %+v", r)
	}
	if r := ask("HEAD / HTTP/1.1", "Accept: */*"); r.Code != 200 || r.Body != "" {
		t.Errorf("HEAD by curl: %+v", r)
	}
	if r := ask("GET / HTTP/1.1", browser, "If-None-Match: "+page.Header.Get("Etag")); r.Code != 304 || r.Body != "" {
		t.Errorf("not modified: %+v", r)
	}
	for _, c := range []struct {
		line    string
		headers []string
		code    int
	}{
		{"GET / HTTP/1.0", nil, 404}, // option httpchk GET /
		{"HEAD / HTTP/1.0", nil, 404},
		{"GET / HTTP/1.1", []string{"Host: www"}, 404},
		{"GET / HTTP/1.1", []string{"User-Agent: Go-http-client/1.1"}, 200},
		{"OPTIONS / HTTP/1.0", nil, 405}, // option httpchk
		{"OPTIONS / HTTP/1.1", []string{browser}, 405},
		{"GET / HTTP/1.0", []string{browser, "X-Haproxy-Server-State: UP"}, 404},
		{"GET /overview HTTP/1.0", []string{browser, "x-haproxy-server-state: UP"}, 404},
		{"OPTIONS / HTTP/1.0", []string{"X-Haproxy-Server-State: UP"}, 404},
		{"OPTIONS /overview HTTP/1.0", nil, 405},
		{"POST / HTTP/1.1", []string{browser, "Content-Length: 0"}, 405},
		{"POST /overview HTTP/1.1", []string{browser, "Content-Length: 0"}, 405},
		{"GET /index.html HTTP/1.1", []string{browser}, 404},
		{"GET /web/index.html HTTP/1.1", []string{browser}, 404},
	} {
		if r := ask(c.line, c.headers...); r.Code != c.code {
			t.Errorf("%s %q: %d, want %d", c.line, c.headers, r.Code, c.code)
		}
	}
}

// TestIndexPolicy: the policy allows this script, this style and requests to this server, and nothing else.
func TestIndexPolicy(t *testing.T) {
	t.Parallel()
	d := proxytest.Start(t, slog.LevelInfo)
	page := d.Get(t, "/", browser)
	hash := func(element string) string {
		all := regexp.MustCompile(`(?s)<`+element+`[^>]*>(.*?)</`+element+`>`).FindAllStringSubmatch(page.Body, -1)
		if len(all) != 1 {
			t.Fatalf("%d elements %s", len(all), element)
		}
		sum := sha256.Sum256([]byte(all[0][1]))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	want := http.Header{
		"Content-Security-Policy": {"default-src 'none'; script-src " + hash("script") + "; style-src " + hash("style") +
			"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
		"X-Content-Type-Options": {"nosniff"}, "X-Frame-Options": {"DENY"}, "Referrer-Policy": {"no-referrer"},
		"Cross-Origin-Opener-Policy": {"same-origin"}, "Cross-Origin-Resource-Policy": {"same-origin"},
		"Cache-Control": {"no-cache"}, "Vary": {"Accept"},
	}
	for name, v := range want {
		if diff := cmp.Diff(v, page.Header[name]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	// What the policy would refuse, or what could turn data into code, is not in the page in the first place.
	for _, bad := range []string{` on[a-z]+=`, ` style=`, `\bsrc=`, `//[a-z]+\.[a-z]`, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|javascript:|srcdoc`} {
		text := strings.ReplaceAll(page.Body, "http://www.w3.org/2000/svg", "")
		if hit := regexp.MustCompile(bad).FindString(text); hit != "" {
			t.Errorf("the page has %q", hit)
		}
	}
	doc := d.Get(t, "/overview")
	for name, v := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Type": "application/json; charset=utf-8", "Cross-Origin-Resource-Policy": "same-origin"} {
		if got := doc.Header.Get(name); got != v {
			t.Errorf("/overview: %s is %q, want %q", name, got, v)
		}
	}
}

// scene returns an endpoint with services in every state.
func scene(t *testing.T) *proxytest.Server {
	d := proxytest.Start(t, slog.LevelInfo)
	state := func(node, name, rest string) string {
		return "X-Haproxy-Server-State: " + rest + "; name=" + name + "; node=" + node
	}
	d.Get(t, "/http/up/PORT/", state("lb1", "be/up1", "UP; scur=1/2; qcur=3"))
	d.Get(t, "/http/up/PORT/", state("lb2", "be/up1", "UP 2/3; scur=14/20; qcur=0"))
	d.Get(t, "/http/failing/PORT/code/500")
	d.Get(t, fmt.Sprintf("/http/refused/%d/", checktest.ClosedPort(t)), state("<b>lb</b>", "be/<script>", "DOWN; scur=0/2; qcur=0"))
	d.Get(t, "/http/half/PORT/", state("lb1", "be/half1", "UP"))
	d.Get(t, "/http/half/PORT/code/503", state("lb1", "be/half2", "UP"))
	d.Get(t, "/spool/web/0/")
	d.Get(t, "/http/lifted/PORT/")
	created := time.UnixMicro(1_500_000_000_250_000)
	d.Overrides.Set(spool.Entry{Key: spool.Key{Service: "lifted"}, State: spool.Down})
	d.Get(t, "/http/lifted/PORT/")
	d.Overrides.Remove("lifted")
	d.Overrides.Set(spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down, Reason: "<script>alert(1)</script>\x1b[2J\nrm \u202e", Created: created, Expires: time.Unix(1<<40, 0)})
	d.Get(t, "/http/web/PORT/", state("lb1", "be/web1", "UP; scur=7/7; qcur=0"))
	d.Overrides.Set(spool.Entry{Key: spool.Key{Service: "forced"}, State: spool.ForceUp})
	d.Get(t, "/http/forced/PORT/")
	d.Overrides.Set(spool.Entry{Key: spool.Key{Service: "typo"}, State: spool.Drain, Reason: strings.Repeat("ä", 400)})
	d.Overrides.Set(spool.Entry{Key: spool.Key{Service: "up", Port: uint16(d.Service.Port)}, State: spool.Maint, Reason: "instance"})
	return d
}

// overviewDoc reads the document, without what changes from run to run.
func overviewDoc(t *testing.T, d *proxytest.Server) *web.Overview {
	t.Helper()
	doc := new(web.Overview)
	if err := json.Unmarshal([]byte(d.Get(t, "/overview").Body), doc); err != nil {
		t.Fatal(err)
	}
	if doc.Now < 1.7e9 || doc.Uptime <= 0 || doc.Slot != 10 {
		t.Errorf("now %v, uptime %v, slot %v", doc.Now, doc.Uptime, doc.Slot)
	}
	if name, _ := os.Hostname(); doc.Host != name {
		t.Errorf("host %q, want %q", doc.Host, name)
	}
	for _, rows := range [][]web.OverviewRow{doc.Overrides, doc.Services} {
		for i := range rows {
			r := &rows[i]
			if r.Port == uint16(d.Service.Port) {
				r.Port = 8080
			}
			if a := r.Last; a != nil {
				if a.Ago < 0 || a.Ago > 60 || a.Age > 60 || len(r.Answers) != web.HistorySlots || len(r.Took) != web.HistorySlots {
					t.Errorf("%s: %+v %q %q", r.Service, a, r.Answers, r.Took)
				}
				if took := a.Took; took != nil && (*took <= 0 || *took > 60) {
					t.Errorf("%s: took %v", r.Service, *took)
				}
				a.Ago, a.Age = 0, 0
				r.Answers, r.Took = strings.Trim(r.Answers, "."), ""
				if n := len(r.Answers); n > 0 && strings.Trim(r.Answers, r.Answers[:1]) == "" {
					r.Answers = r.Answers[:1] // the scene may have seen the end of a slot
				}
			}
			for j := range r.Balancers {
				r.Balancers[j].Ago = 0
			}
		}
	}
	return doc
}

// TestOverview: what each state is shown for, and in which order.
func TestOverview(t *testing.T) {
	t.Parallel()
	d := scene(t)
	n := func(i int) *int { return &i }
	f := func(f float64) *float64 { return &f }
	took := f(0)
	doc := overviewDoc(t, d)
	want := &web.Overview{
		Overrides: []web.OverviewRow{
			{Service: "forced", State: "force-up", Last: &web.OverviewAnswer{Code: 200, Override: "force-up"}, Answers: "f"},
			{Service: "typo", State: "drain", Reason: strings.Repeat("ä", 250) + "…"},
			{
				Service: "up", Port: 8080, State: "maint", Reason: "instance",
				Balancers: []web.OverviewBalancer{
					{Name: "lb1", Server: "be/up1", State: "UP", Sessions: n(1), Queued: 3, Code: 200},
					{Name: "lb2", Server: "be/up1", State: "UP 2/3", Sessions: n(14), Code: 200},
				},
			},
			{
				Service: "web", State: "down", Reason: "<script>alert(1)</script> [2J rm  ", Since: f(1_500_000_000.25), Until: f(1 << 40),
				Last: &web.OverviewAnswer{Code: 503, Override: "down"}, Answers: "o",
				Balancers: []web.OverviewBalancer{{Name: "lb1", Server: "be/web1", State: "UP", Sessions: n(7), Code: 503}},
			},
		},
		Services: []web.OverviewRow{
			{Service: "failing", State: "failing", Last: &web.OverviewAnswer{Code: 500, Took: took}, Answers: "x"},
			{
				Service: "half", State: "failing", Last: &web.OverviewAnswer{Code: 503, Took: took}, Answers: "x",
				Balancers: []web.OverviewBalancer{
					{Name: "lb1", Server: "be/half1", State: "UP", Code: 200}, {Name: "lb1", Server: "be/half2", State: "UP", Code: 503},
				},
			},
			{
				Service: "refused", State: "failing", Last: &web.OverviewAnswer{Code: 503, Why: "refused", Took: took}, Answers: "x",
				Balancers: []web.OverviewBalancer{{Name: "<b>lb</b>", Server: "be/<script>", State: "DOWN", Sessions: n(0), Code: 503}},
			},
			{Service: "lifted", State: "unasked", Last: &web.OverviewAnswer{Code: 503, Override: "down"}, Answers: "o"},
			{
				Service: "up", State: "up", Last: &web.OverviewAnswer{Code: 200, Took: took}, Answers: "u",
				Balancers: []web.OverviewBalancer{
					{Name: "lb1", Server: "be/up1", State: "UP", Sessions: n(1), Queued: 3, Code: 200},
					{Name: "lb2", Server: "be/up1", State: "UP 2/3", Sessions: n(14), Code: 200},
				},
			},
		},
	}
	options := []cmp.Option{
		cmpopts.IgnoreUnexported(web.Overview{}), cmpopts.IgnoreUnexported(web.OverviewBalancer{}),
		cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Took" && p.Index(-2).Type() == reflectAnswer }, cmp.Comparer(func(a, b *float64) bool { return (a == nil) == (b == nil) })),
	}
	if diff := cmp.Diff(want, doc, options...); diff != "" {
		t.Error(diff)
	}
	if body := d.Get(t, "/overview").Body; strings.ContainsAny(body, "<>") {
		t.Error("the document has < or >, which a careless reader may take for markup")
	}

	// What covers the whole host comes first, and decides everywhere else.
	d.Overrides.Set(spool.Entry{Key: spool.Key{Service: spool.All}, State: spool.Maint, Reason: "host"})
	d.Overrides.Set(spool.Entry{Key: spool.Key{Service: "aaa"}, State: spool.Down})
	doc = overviewDoc(t, d)
	if doc.Overrides[0].Service != spool.All || len(doc.Overrides) != 6 {
		t.Errorf("%+v", doc.Overrides)
	}
	for _, r := range doc.Services {
		if r.State != "maint" || r.Covering != spool.All {
			t.Errorf("under all: %+v", r)
		}
	}
}

var reflectAnswer = reflect.TypeFor[web.OverviewAnswer]()

// TestOverviewAsText: the text that curl gets shows nothing that a terminal obeys.
func TestOverviewAsText(t *testing.T) {
	t.Parallel()
	d := scene(t)
	body := d.Get(t, "/", "Accept: */*", "Host: app1").Body
	if strings.ContainsAny(body, "\x1b\u202e") || !strings.Contains(body, "<script>alert(1)</script> [2J rm\n        lb1 be/web1: UP, 7 sessions\n") {
		t.Errorf("%s", body)
	}
}

// indexHTML is the page as its file has it.
func indexHTML(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("index.html")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
