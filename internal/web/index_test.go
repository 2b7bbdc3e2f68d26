package proxy

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hacheck/internal/balancer"
	"hacheck/internal/spool"
	"hacheck/test/checktest"
)

var update = flag.Bool("update", false, "write the golden files anew")

const browser = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

// TestIndex: a browser gets the page, curl the text, and no balancer an answer that looks healthy.
func TestIndex(t *testing.T) {
	t.Parallel()
	d := newDoor(t, slog.LevelInfo)
	ask := func(line string, headers ...string) reply {
		t.Helper()
		method, _, _ := strings.Cut(line, " ")
		return d.send(t, method, line+"\r\n"+strings.Join(append(headers, "Connection: close"), "\r\n")+"\r\n\r\n")
	}
	page := ask("GET / HTTP/1.1", browser)
	if page.Code != 200 || page.Header.Get("Content-Type") != "text/html; charset=utf-8" || page.Body != indexHTML {
		t.Fatalf("to a browser: %d %v %d bytes", page.Code, page.Header, len(page.Body))
	}
	if r := ask("GET //?x=1 HTTP/1.0", browser); r.Code != 200 || r.Body != indexHTML {
		t.Errorf("with two slashes and a query: %d", r.Code)
	}
	if r := ask("GET / HTTP/1.1", "Accept: */*"); r.Code != 200 || r.Header.Get("Content-Type") != textType[0] || !strings.HasPrefix(r.Body, "hacheck") {
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

// TestIndexPolicy: the browser is told to run this script, apply this style, ask us, and nothing else.
func TestIndexPolicy(t *testing.T) {
	t.Parallel()
	d := newDoor(t, slog.LevelInfo)
	page := d.get(t, "/", browser)
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
	doc := d.get(t, "/overview")
	for name, v := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Type": jsonType[0], "Cross-Origin-Resource-Policy": "same-origin"} {
		if got := doc.Header.Get(name); got != v {
			t.Errorf("/overview: %s is %q, want %q", name, got, v)
		}
	}
}

// scene is a door that was asked about services in every state there is.
func scene(t *testing.T) *door {
	d := newDoor(t, slog.LevelInfo)
	state := func(node, name, rest string) string {
		return "X-Haproxy-Server-State: " + rest + "; name=" + name + "; node=" + node
	}
	d.get(t, "/http/up/PORT/", state("lb1", "be/up1", "UP; scur=1/2; qcur=3"))
	d.get(t, "/http/up/PORT/", state("lb2", "be/up1", "UP 2/3; scur=14/20; qcur=0"))
	d.get(t, "/http/failing/PORT/code/500")
	d.get(t, fmt.Sprintf("/http/refused/%d/", checktest.ClosedPort(t)), state("<b>lb</b>", "be/<script>", "DOWN; scur=0/2; qcur=0"))
	d.get(t, "/http/half/PORT/", state("lb1", "be/half1", "UP"))
	d.get(t, "/http/half/PORT/code/503", state("lb1", "be/half2", "UP"))
	d.get(t, "/spool/web/0/")
	d.get(t, "/http/lifted/PORT/")
	created := time.UnixMicro(1_500_000_000_250_000)
	d.over.say(spool.Entry{Key: spool.Key{Service: "lifted"}, State: spool.Down})
	d.get(t, "/http/lifted/PORT/")
	d.over.lift("lifted")
	d.over.say(spool.Entry{Key: spool.Key{Service: "web"}, State: spool.Down, Reason: "<script>alert(1)</script>\x1b[2J\nrm \u202e", Created: created, Expires: time.Unix(1<<40, 0)})
	d.get(t, "/http/web/PORT/", state("lb1", "be/web1", "UP; scur=7/7; qcur=0"))
	d.over.say(spool.Entry{Key: spool.Key{Service: "forced"}, State: spool.ForceUp})
	d.get(t, "/http/forced/PORT/")
	d.over.say(spool.Entry{Key: spool.Key{Service: "typo"}, State: spool.Drain, Reason: strings.Repeat("ä", 400)})
	d.over.say(spool.Entry{Key: spool.Key{Service: "up", Port: uint16(d.service.port)}, State: spool.Maint, Reason: "instance"})
	return d
}

// overview reads the document, without what changes from run to run.
func (d *door) overviewDoc(t *testing.T) *overview {
	t.Helper()
	doc := new(overview)
	if err := json.Unmarshal([]byte(d.get(t, "/overview").Body), doc); err != nil {
		t.Fatal(err)
	}
	if doc.Now < 1.7e9 || doc.Uptime <= 0 || doc.Slot != 10 {
		t.Errorf("now %v, uptime %v, slot %v", doc.Now, doc.Uptime, doc.Slot)
	}
	if name, _ := os.Hostname(); doc.Host != name {
		t.Errorf("host %q, want %q", doc.Host, name)
	}
	for _, rows := range [][]overviewRow{doc.Overrides, doc.Services} {
		for i := range rows {
			r := &rows[i]
			if r.Port == uint16(d.service.port) {
				r.Port = 8080
			}
			if a := r.Last; a != nil {
				if a.Ago < 0 || a.Ago > 60 || a.Age > 60 || len(r.Answers) != historySlots || len(r.Took) != historySlots {
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
	doc := d.overviewDoc(t)
	want := &overview{
		Overrides: []overviewRow{
			{Service: "forced", State: "force-up", Last: &overviewAnswer{Code: 200, By: "force-up"}, Answers: "f"},
			{Service: "typo", State: "drain", Reason: strings.Repeat("ä", 250) + "…"},
			{
				Service: "up", Port: 8080, State: "maint", Reason: "instance",
				Balancers: []overviewView{
					{Name: "lb1", Server: "be/up1", State: "UP", Sessions: n(1), Queued: 3, Code: 200},
					{Name: "lb2", Server: "be/up1", State: "UP 2/3", Sessions: n(14), Code: 200},
				},
			},
			{
				Service: "web", State: "down", Reason: "<script>alert(1)</script> [2J rm  ", Since: f(1_500_000_000.25), Until: f(1 << 40),
				Last: &overviewAnswer{Code: 503, By: "down"}, Answers: "o",
				Balancers: []overviewView{{Name: "lb1", Server: "be/web1", State: "UP", Sessions: n(7), Code: 503}},
			},
		},
		Services: []overviewRow{
			{Service: "failing", State: "failing", Last: &overviewAnswer{Code: 500, Took: took}, Answers: "x"},
			{
				Service: "half", State: "failing", Last: &overviewAnswer{Code: 503, Took: took}, Answers: "x",
				Balancers: []overviewView{
					{Name: "lb1", Server: "be/half1", State: "UP", Code: 200}, {Name: "lb1", Server: "be/half2", State: "UP", Code: 503},
				},
			},
			{
				Service: "refused", State: "failing", Last: &overviewAnswer{Code: 503, Why: "refused", Took: took}, Answers: "x",
				Balancers: []overviewView{{Name: "<b>lb</b>", Server: "be/<script>", State: "DOWN", Sessions: n(0), Code: 503}},
			},
			{Service: "lifted", State: "unasked", Last: &overviewAnswer{Code: 503, By: "down"}, Answers: "o"},
			{
				Service: "up", State: "up", Last: &overviewAnswer{Code: 200, Took: took}, Answers: "u",
				Balancers: []overviewView{
					{Name: "lb1", Server: "be/up1", State: "UP", Sessions: n(1), Queued: 3, Code: 200},
					{Name: "lb2", Server: "be/up1", State: "UP 2/3", Sessions: n(14), Code: 200},
				},
			},
		},
	}
	options := []cmp.Option{
		cmpopts.IgnoreUnexported(overview{}), cmpopts.IgnoreUnexported(overviewView{}),
		cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Took" && p.Index(-2).Type() == reflectAnswer }, cmp.Comparer(func(a, b *float64) bool { return (a == nil) == (b == nil) })),
	}
	if diff := cmp.Diff(want, doc, options...); diff != "" {
		t.Error(diff)
	}
	if body := d.get(t, "/overview").Body; strings.ContainsAny(body, "<>") {
		t.Error("the document has < or >, which a careless reader may take for markup")
	}

	// What covers the whole host comes first, and decides everywhere else.
	d.over.say(spool.Entry{Key: spool.Key{Service: spool.All}, State: spool.Maint, Reason: "host"})
	d.over.say(spool.Entry{Key: spool.Key{Service: "aaa"}, State: spool.Down})
	doc = d.overviewDoc(t)
	if doc.Overrides[0].Service != spool.All || len(doc.Overrides) != 6 {
		t.Errorf("%+v", doc.Overrides)
	}
	for _, r := range doc.Services {
		if r.State != "maint" || r.By != spool.All {
			t.Errorf("under all: %+v", r)
		}
	}
}

var reflectAnswer = reflect.TypeFor[overviewAnswer]()

// TestServiceState: what each balancer was told last about each server decides, and what is old does not.
func TestServiceState(t *testing.T) {
	t.Parallel()
	now := time.Now()
	view := func(code int, override string, silent bool) balancer.Balancer {
		return balancer.Balancer{Silent: silent, Last: balancer.Answer{Code: code, Override: override}}
	}
	answered := func(code int, ago time.Duration) *latest {
		return &latest{at: now.Add(-ago), answered: true, code: code}
	}
	said := func(s spool.State, port uint16) *spool.Entry {
		return &spool.Entry{Key: spool.Key{Service: "web", Port: port}, State: s}
	}
	for name, c := range map[string]struct {
		last     *latest
		views    []balancer.Balancer
		agents   []balancer.Agent
		instance *spool.Entry
		want, by string
	}{
		"one asks":                {answered(200, time.Second), nil, nil, nil, "up", ""},
		"one asked long ago":      {answered(200, 2*time.Minute), nil, nil, nil, "unasked", ""},
		"not answered yet":        {&latest{at: now}, nil, nil, nil, "unasked", ""},
		"balancers know more":     {answered(200, time.Second), []balancer.Balancer{view(200, "", false), view(500, "", false)}, nil, nil, "failing", ""},
		"silent ones know less":   {answered(200, time.Second), []balancer.Balancer{view(200, "", false), view(500, "", true)}, nil, nil, "up", ""},
		"all silent":              {answered(200, 2*time.Minute), []balancer.Balancer{view(200, "", true)}, nil, nil, "unasked", ""},
		"one instance down":       {answered(503, time.Second), []balancer.Balancer{view(200, "", false), view(503, "down", false)}, nil, said(spool.Down, 80), "up", ""},
		"every instance down":     {answered(503, time.Second), []balancer.Balancer{view(503, "down", false)}, nil, said(spool.Down, 80), "down", "web:80"},
		"no instance down now":    {answered(503, time.Second), []balancer.Balancer{view(503, "down", false)}, nil, nil, "unasked", ""},
		"an agent":                {nil, nil, []balancer.Agent{{Ago: 1}}, nil, "ready", ""},
		"an agent once":           {nil, nil, []balancer.Agent{{Ago: 100}}, nil, "unasked", ""},
		"an agent, and a failure": {answered(500, time.Second), nil, []balancer.Agent{{Ago: 1}}, nil, "failing", ""},
	} {
		b := overviewBuilder{
			now: now, seen: map[string]*latest{"web": c.last}, views: map[string][]balancer.Balancer{"web": c.views},
			agents: map[string][]balancer.Agent{"web": c.agents}, instances: map[string]*spool.Entry{"web": c.instance},
		}
		if r := b.service("web"); r.State != c.want || r.By != c.by {
			t.Errorf("%s: %q by %q, want %q by %q", name, r.State, r.By, c.want, c.by)
		}
	}
}

// TestInstanceViews: an override of one instance shows the balancers of that instance.
func TestInstanceViews(t *testing.T) {
	t.Parallel()
	b := overviewBuilder{views: map[string][]balancer.Balancer{"web": {
		{Node: "here 80", Host: "127.0.0.1", Port: 80, Here: true},
		{Node: "here 81", Host: "127.0.0.1", Port: 81, Here: true},
		{Node: "own 80", Host: "10.0.0.5", Port: 80, Here: true},
		{Node: "there 80", Host: "10.0.0.9", Port: 80},
	}}}
	for _, c := range []struct {
		key  spool.Key
		want []string
	}{
		{spool.Key{Service: "web"}, []string{"here 80", "here 81", "own 80", "there 80"}},
		{spool.Key{Service: "web", Port: 80}, []string{"here 80", "own 80"}},
		{spool.Key{Service: "web", Host: "10.0.0.5", Port: 80}, []string{"own 80"}},
		{spool.Key{Service: "web", Host: "10.0.0.9", Port: 80}, []string{"there 80"}},
		{spool.Key{Service: "web", Host: "10.0.0.9", Port: 81}, nil},
		{spool.Key{Service: "other"}, nil},
	} {
		var got []string
		for _, v := range b.viewsOf(c.key) {
			got = append(got, v.Name)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.key.Name(), diff)
		}
	}
}

// TestOverviewText: what curl gets.
func TestOverviewText(t *testing.T) {
	t.Parallel()
	n := func(i int) *int { return &i }
	f := func(f float64) *float64 { return &f }
	for name, o := range map[string]*overview{
		"empty": {overviewHead: overviewHead{Host: "app1", Now: 1e9, Uptime: 3}},
		"full": {
			overviewHead: overviewHead{Host: "app1\x1b", Now: 1e9, Uptime: 100_000, AgentOnly: true, SpoolLost: true},
			Overrides: []overviewRow{
				{Service: "all", State: "drain", Since: f(1e9 - 4), Until: f(1e9 + 3599.6), Reason: "alice"},
				{Service: "web", Host: "2001:db8::1", Port: 80, State: "down", Reason: "<script>", Balancers: []overviewView{
					{Name: "lb1", Server: "be/web1", State: "UP", Sessions: n(14), Queued: 2}, {Name: "lb2\x07", Silent: true, Ago: 12},
				}},
			},
			Services: []overviewRow{
				{Service: "api", State: "failing", Last: &overviewAnswer{Code: 503, Why: "refused", Ago: 1, Took: f(0.000_061_4)}, Balancers: []overviewView{{Name: "10.0.0.1", Server: "/tcp/api/80", Code: 503}}},
				{Service: strings.Repeat("long-", 10), State: "drain", By: "all", Last: &overviewAnswer{Code: 404, By: "drain"}},
				{Service: "mail", State: "ready", Agents: []overviewAgent{{"10.0.0.1", "up ready", 1}}},
				{Service: "ok", State: "up", Last: &overviewAnswer{Code: 200, Ago: 1, Took: f(1.25)}, Balancers: []overviewView{{Name: "lb1", State: "UP", Sessions: n(1)}}},
			},
		},
	} {
		got := o.appendText(nil)
		if o.empty() {
			got = appendFirstSteps(got, "app1:3333")
		}
		golden := filepath.Join("testdata", "overview-"+name+".golden")
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s: %s", golden, diff)
		}
	}

	d := scene(t)
	body := d.get(t, "/", "Accept: */*", "Host: app1").Body
	if strings.ContainsAny(body, "\x1b\u202e") || !strings.Contains(body, "<script>alert(1)</script> [2J rm\n        lb1 be/web1: UP, 7 sessions\n") {
		t.Errorf("%s", body)
	}
}
