package test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
)

// browser is a running Chromium.
type browser struct{ ctx context.Context }

// startBrowser starts a Chromium that ends with the test.
func startBrowser(t *testing.T) browser {
	t.Helper()
	ctx, stop := chromedp.NewExecAllocator(t.Context(),
		chromedp.ExecPath(findTool(t, "chromium")), chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WSURLReadTimeout(waitLimit),
	)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return browser{ctx}
}

// tab is one tab of the browser. Console output fails the test: it is an error of the script, or a violation of the
// content security policy.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu      sync.Mutex
	expects bool // errors of loading, for a daemon that is not there
}

// open opens a tab of that size, in CSS pixels, and loads the page there.
func (c browser) open(t *testing.T, width, height int64, url string) *tab {
	t.Helper()
	b := c.tab(t, width, height)
	b.load(url)
	return b
}

// load opens the address and waits until the page has shown its first document.
func (b *tab) load(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
	b.waitFor(`performance.getEntriesByName("shown").length > 0`)
}

func (c browser) tab(t *testing.T, width, height int64) *tab {
	t.Helper()
	ctx, stop := context.WithTimeout(c.ctx, 3*waitLimit)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	b := &tab{t: t, ctx: ctx}
	b.do(chromedp.EmulateViewport(width, height))
	said := make(chan struct{})
	console := chromedp.Console(ctx)
	go func() {
		defer close(said)
		for m, err := range console {
			if err != nil {
				return
			}
			b.mu.Lock()
			if !b.expects || m.Source != "network" {
				t.Errorf("the page says %v (%s)", m, m.Source)
			}
			b.mu.Unlock()
		}
	}()
	t.Cleanup(func() { stop(); <-said })
	return b
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// eval returns the value of an expression in the page.
func eval[T any](b *tab, js string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](js))
	if err != nil {
		b.t.Fatalf("%s: %v", js, err)
	}
	return v
}

// waitFor waits until an expression is true.
func (b *tab) waitFor(js string) {
	b.t.Helper()
	eventually(b.t, func() error {
		v, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](js))
		if err == nil && !v {
			err = fmt.Errorf("%s is false; the page reads:\n%s", js, eval[string](b, "document.body.innerText"))
		}
		return err
	})
}

// rows returns the text of the visible rows of a table.
func (b *tab) rows(section string) []string {
	b.t.Helper()
	return eval[[]string](b, `[...document.querySelectorAll("#`+section+` tbody tr")].filter(r => !r.hidden).map(r => [...r.children].map(c => c.innerText.replace(/\s+/g, " ").trim()).join(" | "))`)
}

// contrasts returns the texts whose colour is not told from what is behind them as WCAG AA asks.
const contrasts = `(() => {
  const light = (c) => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((a, v, i) => a + v * [0.2126, 0.7152, 0.0722][i], 0);
  const parse = (s) => s.match(/[\d.]+/g).map(Number);
  const found = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; (n = walker.nextNode());) {
    const e = n.parentElement;
    if (!n.data.trim() || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(e.tagName) || !e.getClientRects().length) continue;
    let behind = e, bg;
    while (behind && (bg = parse(getComputedStyle(behind).backgroundColor)).length === 4 && bg[3] === 0) behind = behind.parentElement;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(bg)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.add(n.data.trim().slice(0, 30) + ": contrast " + ((a + 0.05) / (b + 0.05)).toFixed(2));
  }
  return [...found];
})()`

// roles returns the names of all elements that a screen reader reads, by role.
func (b *tab) roles() map[string][]string {
	b.t.Helper()
	tree, err := chromedp.Call(b.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		b.t.Fatal(err)
	}
	roles := map[string][]string{}
	text := func(v *accessibility.Value) string {
		if v == nil {
			return ""
		}
		return strings.Trim(string(v.Value), `"`)
	}
	for _, n := range tree.Nodes {
		if !n.Ignored {
			roles[text(n.Role)] = append(roles[text(n.Role)], text(n.Name))
		}
	}
	return roles
}
