package test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"
)

const (
	hostile     = `<script>window.pwned=1</script><img src=x onerror=window.pwned=1>`
	hostileName = `<script>pwned()</script><h1>` // without a =, which a field of the state header cannot have
)

// requestAs sends a check as a balancer does.
func (d *daemon) requestAs(node, server, state, path string) {
	d.t.Helper()
	conn, err := dial(d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nX-Haproxy-Server-State: %s; name=%s; node=%s\r\n\r\n", path, state, server, node)
	if answer, err := io.ReadAll(conn); err != nil || len(answer) == 0 {
		d.t.Fatalf("%s: %v %q", path, err, answer)
	}
}

// writeSpoolFile writes a spool file.
func (d *daemon) writeSpoolFile(name, content string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.spool, name), []byte(content), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// TestPage tests the page in a real browser.
func TestPage(t *testing.T) {
	t.Parallel()
	chromium := startBrowser(t)
	five := func(t *testing.T) (*daemon, int) {
		web := startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "bad") {
				w.WriteHeader(500)
			}
		})
		d := startDaemon(t, "")
		gone := fmt.Sprintf("/tcp/db/%d", freePort(t))
		path := func(service, rest string) string { return fmt.Sprintf("/http/%s/%d/%s", service, web.port, rest) }
		d.writeSpoolFile("mail", `{"reason":"known false alarm","expiration":null,"creation":1500000000,"state":"up"}`)
		d.writeSpoolFile("search", `{"reason":"bob","expiration":4000000000,"creation":1500000000,"state":"drain"}`)
		d.writeSpoolFile("web:10.0.0.9:80", hostile)
		d.writeSpoolFile("web", `{"reason":"kernel upgrade (alice)","expiration":null,"creation":1500000000.5}`)
		for range 2 {
			d.requestAs("lb1", "be/web1", "DOWN; scur=0/2; qcur=0", path("web", ""))
			d.requestAs("lb2", "be/web1", "UP 1/3; scur=14/20; qcur=2", path("web", ""))
			d.requestAs(hostileName, hostileName, "UP; scur=1/1; qcur=0", path("api", "bad"))
			d.requestAs("lb1", "be/db1", "UP; scur=3/3; qcur=0", gone)
			for i := range 8 {
				d.requestAs(fmt.Sprintf("edge%d", i), "be/img1", "UP; scur=1/8; qcur=0", path("img", ""))
			}
			d.requestAs("lb1", "be/search1", "NOLB 2/2; scur=5/5; qcur=0", path("search", ""))
		}
		return d, web.port
	}

	t.Run("nothing", func(t *testing.T) {
		d := startDaemon(t, "")
		b := chromium.open(t, 1280, 800, d.url)
		got := eval[string](b, "document.querySelector('main').innerText")
		for _, want := range []string{"Nothing to see yet", "curl " + d.url + "/tcp/web/8080", "check port " + fmt.Sprint(d.port), "hadown web"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
		if n := eval[int](b, "document.querySelectorAll('section:not([hidden])').length"); n != 1 {
			t.Errorf("%d sections are shown", n)
		}
		// The command that the empty page suggests works.
		d.get("/tcp/web/8080")
		b.waitFor(`document.querySelector("#empty").hidden && !document.querySelector("#services").hidden`)
	})

	t.Run("five services", func(t *testing.T) {
		d, _ := five(t)
		b := chromium.open(t, 1280, 800, d.url)
		cut := func(rows []string, columns ...int) (list []string) {
			for _, r := range rows {
				cells := strings.Split(r, " | ")
				var kept []string
				for _, c := range columns {
					kept = append(kept, cells[c])
				}
				list = append(list, strings.Join(kept, " | "))
			}
			return list
		}
		if diff := cmp.Diff([]string{
			"forced up | lifted | ", // of this one the rest is below
			"drain | lb1 has it NOLB 2/2, 5 sessions",
			"down | lb1 has it DOWN, 0 sessions lb2 has it UP 1/3, 14 sessions, 2 waiting",
			"down | ",
		}[1:], cut(b.rows("overrides"), 0, 5)[1:]); diff != "" {
			t.Error(diff)
		}
		for i, want := range []string{"mail known false alarm since 14 Jul 2017 (", "search bob since 14 Jul 2017 (", "web kernel upgrade (alice) since 14 Jul 2017 (", "web:10.0.0.9:80 " + hostile + " until lifted"} {
			if got := cut(b.rows("overrides"), 1)[i]; !strings.HasPrefix(got, want) {
				t.Errorf("override %d: %q, want %q", i, got, want)
			}
		}
		if got := cut(b.rows("overrides"), 2); !strings.HasPrefix(got[0], "no client asks about it") || !strings.HasPrefix(got[1], "404 drain") || !strings.HasPrefix(got[2], "503 down") {
			t.Errorf("%q", got)
		}
		if diff := cmp.Diff([]string{
			"failing | api | " + hostileName + " has it UP, 1 session",
			"failing | db | lb1 has it UP, 3 sessions",
			"up | img | 8 balancers: 8 UP; 8 sessions",
		}, cut(b.rows("services"), 0, 1, 5)); diff != "" {
			t.Error(diff)
		}
		for i, want := range []string{"500 ", "503 refused ", "200 "} {
			if got := cut(b.rows("services"), 2)[i]; !strings.HasPrefix(got, want) {
				t.Errorf("answer %d: %q, want %q", i, got, want)
			}
		}
		if got := eval[string](b, "document.title"); !strings.HasPrefix(got, "2 failing, 3 taken out, hacheck on ") {
			t.Errorf("title %q", got)
		}
		if got := eval[int](b, `document.querySelectorAll("svg.spark path.x, svg.spark path.o, svg.spark path.u, svg.spark path.r").length`); got != 5 {
			t.Errorf("%d kinds of marks", got)
		}

		// Text of clients is text, never HTML.
		b.waitFor("!asking && timer !== 0") // let an image fail to load
		if got := eval[string](b, `JSON.stringify([window.pwned, document.scripts.length, document.images.length])`); got != "[null,1,0]" {
			t.Errorf("clients put elements into the page: %s", got)
		}
	})

	t.Run("refresh", func(t *testing.T) {
		d, port := five(t)
		b := chromium.open(t, 1280, 800, d.url)
		b.do(chromedp.Click(chromedp.CSS("details summary")), chromedp.Focus(chromedp.ID("filter")), chromedp.KeyEvent("IMG UP"))
		b.waitFor(`location.hash === "#IMG%20UP"`)
		if got := b.rows("services"); len(got) != 1 || !strings.Contains(got[0], "edge7") {
			t.Fatalf("filtered and unfolded: %q", got)
		}
		if got := b.rows("overrides"); len(got) != 0 {
			t.Errorf("filtered: %q", got)
		}
		mark := `document.querySelector("#services tbody tr:not([hidden])").dataset.mark`
		eval[string](b, mark+` = "same"`)
		eval[string](b, `getSelection().selectAllChildren(document.querySelector("#services tbody tr:not([hidden]) .name")), ""`)
		d.requestAs("edge3", "be/img1", "UP; scur=70/77; qcur=0", fmt.Sprintf("/http/img/%d/", port))
		d.mustRun("hadown", "-r", "carol", "db")
		b.waitFor(`[...document.querySelectorAll("#overrides .name")].some(n => n.textContent === "db")`)
		b.waitFor(`document.querySelector("#services summary").textContent.endsWith(" 77 sessions")`)
		if got := eval[string](b, `[document.activeElement.id, document.activeElement.value, `+mark+`, document.querySelector("#services details").open, getSelection().toString()].join()`); got != "filter,IMG UP,same,true,img" {
			t.Errorf("a refresh has taken away focus, filter, row, unfolding or selection: %s", got)
		}
		if got := b.rows("services"); len(got) != 1 || !strings.Contains(got[0], "edge3 has it UP, 70 sessions") {
			t.Errorf("%q", got)
		}
		if got := eval[string](b, `document.querySelector("#news").textContent`); !strings.HasSuffix(got, "  db is down: carol") {
			t.Errorf("news: %q", got)
		}
		d.mustRun("haup", "db", "web", "search", "mail")
		b.waitFor(`document.querySelectorAll("#overrides tbody tr").length === 1`)
		if got := eval[string](b, `document.querySelector("#news").textContent`); !strings.Contains(got, "; and 1 more change") && !strings.Contains(got, "db is") {
			t.Errorf("news: %q", got)
		}

		b.do(chromedp.KeyEvent(kb.Escape))
		b.waitFor(`location.hash === ""`)
		if n := len(b.rows("services")); n != 5 {
			t.Errorf("%d rows without a filter", n)
		}
		// A row keeps the focus when it moves.
		d.requestAs("lb1", "be/home1", "UP; scur=0/0; qcur=0", fmt.Sprintf("/http/home/%d/", port))
		order := `[...document.querySelectorAll("#services .name")].map(n => n.textContent).join()`
		b.waitFor(order + ` === "api,db,home,img,search,web"`)
		b.do(chromedp.Focus(chromedp.CSS("#services summary")))
		d.requestAs("edge3", "be/img1", "UP; scur=70/77; qcur=0", fmt.Sprintf("/http/img/%d/bad", port))
		b.waitFor(order + `=== "api,db,img,home,search,web"`)
		if got := eval[string](b, `document.activeElement.textContent`); !strings.HasPrefix(got, "8 balancers") {
			t.Errorf("the focus is on %q", got)
		}
		// The address contains the filter, with any characters.
		b.do(chromedp.Navigate("about:blank"))
		b.load(d.url + "/#" + url.PathEscape(hostile))
		if got := eval[string](b, `document.querySelector("#shown").textContent`); got != "" || len(b.rows("overrides")) != 1 || len(b.rows("services")) != 0 {
			t.Errorf("filter in the address: %q, %q", got, b.rows("overrides"))
		}
		b.do(chromedp.Navigate("about:blank"))
		b.load(d.url + "/#%zz")
		b.waitFor(`document.querySelectorAll("#services tbody tr:not([hidden])").length === 6`)
	})

	t.Run("paused and hidden", func(t *testing.T) {
		d, _ := five(t)
		b := chromium.open(t, 1280, 800, d.url)
		idle := `timer === 0 && !asking`
		b.do(chromedp.Focus(chromedp.ID("pause")), chromedp.KeyEvent(" "))
		b.waitFor(idle)
		if got := eval[string](b, `document.querySelector("#pause").getAttribute("aria-pressed")`); got != "true" {
			t.Errorf("aria-pressed is %s", got)
		}
		b.do(chromedp.KeyEvent(kb.Enter))
		b.waitFor("timer !== 0")
		eval[bool](b, `Object.defineProperty(document, "hidden", {value: true, configurable: true}), document.dispatchEvent(new Event("visibilitychange"))`)
		b.waitFor(idle)
		d.mustRun("hadown", "-r", "while hidden", "db")
		eval[bool](b, `delete document.hidden && document.dispatchEvent(new Event("visibilitychange"))`)
		b.waitFor(`[...document.querySelectorAll("#overrides .name")].some(n => n.textContent === "db")`)
	})

	t.Run("the daemon stops", func(t *testing.T) {
		d, _ := five(t)
		b := chromium.open(t, 1280, 800, d.url)
		b.mu.Lock()
		b.expects = true
		b.mu.Unlock()
		if err := d.stop(); err != nil {
			t.Fatal(err)
		}
		b.waitFor(`!document.querySelector("#lost").hidden`)
		b.waitFor(`/^as of \d+.s ago$/.test(document.querySelector("#asof").textContent)`)
		got := eval[string](b, `document.querySelector("[role=alert]").textContent`)
		if !strings.HasPrefix(got, "hacheck does not answer. What you see is from ") || len(b.rows("services")) != 3 {
			t.Errorf("%q, %q", got, b.rows("services"))
		}
		again := start(t, bin(t, "hacheck"), "-B", "127.0.0.1", "-p", fmt.Sprint(d.port), "--spool-root", d.spool)
		again.waitReady(t, d.addr)
		b.waitFor(`document.querySelector("#lost").hidden && document.querySelector("#services").hidden`)
		if got := b.rows("overrides"); len(got) != 4 {
			t.Errorf("%q", got)
		}
	})

	t.Run("narrow and dark", func(t *testing.T) {
		d, port := five(t)
		d.requestAs(strings.Repeat("n", 250), "s", "UP; scur=1/1", fmt.Sprintf("/http/%s/%d/", strings.Repeat("w", 200), port))
		d.writeSpoolFile("all", `{"reason":"`+strings.Repeat("r", 2000)+`"}`)
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{320, 360, 900, 1280} {
				b := chromium.open(t, width, 740, d.url)
				if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
					Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
				}); err != nil {
					t.Fatal(err)
				}
				eval[bool](b, `document.querySelectorAll("details").forEach(d => d.open = true), true`)
				if got := eval[int64](b, "document.documentElement.scrollWidth"); got > width {
					t.Errorf("%s: %d pixels wide at %d", scheme, got, width)
				}
				if dark := eval[bool](b, `getComputedStyle(document.body).backgroundColor.match(/\d+/)[0] < 60`); dark != (scheme == "dark") {
					t.Errorf("dark is %v with %s", dark, scheme)
				}
				for _, dim := range eval[[]string](b, contrasts) {
					t.Errorf("%s at %d: %s", scheme, width, dim)
				}
				if width == 360 {
					want := []string{"table", "row", "rowheader", "columnheader", "cell"}
					roles := b.roles()
					for _, role := range want {
						if len(roles[role]) == 0 {
							t.Errorf("narrow: no %s for a screen reader", role)
						}
					}
				}
				chromedp.Cancel(b.ctx)
			}
		}
	})

	t.Run("keyboard and screen reader", func(t *testing.T) {
		d, _ := five(t)
		b := chromium.open(t, 1280, 800, d.url)
		var stops []string
		for range 4 {
			b.do(chromedp.KeyEvent(kb.Tab))
			stops = append(stops, eval[string](b, `document.activeElement.id || document.activeElement.tagName + " " + document.activeElement.textContent`))
			if outline := eval[string](b, `getComputedStyle(document.activeElement).outlineStyle`); outline == "none" {
				t.Errorf("focus is not seen on %s", stops[len(stops)-1])
			}
		}
		if diff := cmp.Diff([]string{"filter", "pause", "SUMMARY 8 balancers: 8 UP; 8 sessions", "SUMMARY How to read this"}, stops); diff != "" {
			t.Errorf("ways of Tab: %s", diff)
		}
		b.do(chromedp.KeyEvent(kb.Enter))
		b.waitFor(`document.querySelector("footer details").open`)

		roles := b.roles()
		for _, role := range []string{"searchbox", "button", "link", "DisclosureTriangle", "image", "table", "heading", "rowheader", "columnheader"} {
			if len(roles[role]) == 0 {
				t.Errorf("there is no %s", role)
			}
			for _, name := range roles[role] {
				if name == "" {
					t.Errorf("a %s has no name", role)
				}
			}
		}
		for role, want := range map[string]string{
			"searchbox": "Filter", "button": "Pause", "table": "Overrides4",
			"image": "Last 10 minutes: taken out for 10 s, also now",
		} {
			found := false
			for _, name := range roles[role] {
				found = found || strings.ReplaceAll(strings.ReplaceAll(name, "\u00a0", " "), "Overrides 4", "Overrides4") == want || role == "image" && strings.Contains(name, "taken out for")
			}
			if !found {
				t.Errorf("no %s %q: %q", role, want, roles[role])
			}
		}
		if len(roles["status"]) != 2 || len(roles["main"]) != 1 || len(roles["search"]) != 1 {
			t.Errorf("landmarks and live regions: %v", roles)
		}
	})

	t.Run("500 services", func(t *testing.T) {
		d := startDaemon(t, "")
		web := startService(t, "127.0.0.1", 0, serveOK)
		for i := range 500 {
			for lb := range 2 {
				d.requestAs(fmt.Sprintf("lb%d", lb), fmt.Sprintf("be/s%d", i), "UP; scur=3/9; qcur=0", fmt.Sprintf("/http/service-%03d/%d/", i, web.port))
			}
		}
		d.mustRun("hadown", "-r", "x", "service-007", "service-133")
		b := chromium.tab(t, 1440, 1000)
		if _, err := chromedp.Call(b.ctx, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks}); err != nil {
			t.Fatal(err)
		}
		b.load(d.url)
		shown := time.Duration(eval[float64](b, `performance.getEntriesByName("shown")[0].startTime`) * float64(time.Millisecond))
		// worked returns the processor time of the tab.
		worked := func() time.Duration {
			metrics, err := chromedp.Call(b.ctx, performance.GetMetrics, cdp.Empty{})
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(metrics.Metrics, func(m *performance.Metric) bool { return m.Name == "TaskDuration" })
			if i < 0 {
				t.Fatalf("no TaskDuration in %v", metrics.Metrics)
			}
			return time.Duration(metrics.Metrics[i].Value * float64(time.Second))
		}
		busy := worked()
		if n := len(b.rows("services")); n != 498 {
			t.Fatalf("%d rows", n)
		}
		// The same tab lays out a plain table of as many rows, as a measure of the speed of this machine.
		before := worked()
		eval[int](b, `(() => {
			const plain = document.createElement("table")
			for (let i = 0; i < 500; i++) plain.append(document.createElement("tr"))
			for (const row of plain.rows) for (let i = 0; i < 8; i++) row.insertCell().textContent = "cell " + i
			document.body.append(plain)
			return plain.offsetHeight
		})()`)
		plain := worked() - before
		t.Logf("500 services are shown after %v, for which the page has worked %v; a plain table takes %v", shown, busy, plain)
		// Measured: twice as long as the plain table.
		if busy > 6*plain {
			t.Errorf("for 500 services the page has worked %v, a plain table of as many rows takes %v; want six times that at most", busy, plain)
		}
	})
}
