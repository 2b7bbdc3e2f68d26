package proxy_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"hacheck/internal/proxy"
	"hacheck/internal/spool"
	"hacheck/test/proxytest"
)

// allowRemote has a server change a real spool directory, and returns its path. change adapts the settings.
func allowRemote(t *testing.T, d *proxytest.Server, change func(*proxy.Remote)) string {
	t.Helper()
	dir, err := spool.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	set := d.Settings
	set.Remote = proxy.Remote{Enabled: true, Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Spool: dir}
	if change != nil {
		change(&set.Remote)
	}
	d.SetSettings(set)
	return dir.Root()
}

func post(t *testing.T, d *proxytest.Server, target, body string, headers ...string) proxytest.Reply {
	t.Helper()
	return d.Send(t, "POST", fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s",
		target, strings.Join(append(headers, ""), "\r\n"), len(body), body))
}

const formType = "Content-Type: application/x-www-form-urlencoded"

func TestRemoteSpoolChanges(t *testing.T) {
	for _, c := range []struct {
		name, target, body string
		headers            []string
		code               int
		says               string
		file               string // that is there afterwards; "" for none
		holds              string
	}{
		{"down", "/spool/foo/0/status", "status=down&reason=by%20hand", []string{formType}, 200, "", "foo", `"reason": "by hand", "expiration": null`},
		{"an instance", "/spool/foo/007", "status=down&reason=r", []string{formType}, 200, "", "foo:7", `"reason": "r"`},
		{"a pod", "/spool/foo/80/", "status=down&reason=r", []string{formType, "X-Nerve-Check-IP: 10.1.2.3"}, 200, "", "foo:10.1.2.3:80", ""},
		{"a pod, IPv6", "/spool/foo/80/", "status=down&reason=r", []string{formType, "X-Nerve-Check-IP: 2001:DB8::1"}, 200, "", "foo:2001:db8::1:80", ""},
		{"the last of two pods", "/spool/foo/80/", "status=down&reason=r", []string{formType, "X-Nerve-Check-IP: 10.1.2.3", "X-Nerve-Check-IP: 10.1.2.4"}, 200, "", "foo:10.1.2.4:80", ""},
		{"this machine", "/spool/foo/80/", "status=down&reason=r", []string{formType, "X-Nerve-Check-IP: 127.0.0.1"}, 200, "", "foo:80", ""},
		{"this machine, whole", "/spool/foo/0/", "status=down&reason=r", []string{formType, "X-Nerve-Check-IP: 127.0.0.1"}, 200, "", "foo", ""},
		{"the state header means nothing", "/spool/foo/0/", "status=down&reason=r", []string{formType, "X-Haproxy-Server-State: UP; port=1; address=10.0.0.1"}, 200, "", "foo", ""},
		{"expiration", "/spool/foo/0/", "status=down&reason=r&expiration=4000000000", []string{formType}, 200, "", "foo", `"expiration": 4000000000.0`},
		{"far expiration", "/spool/foo/0/", "status=down&reason=r&expiration=9999999999.5", []string{formType}, 200, "", "foo", `"expiration": 9999999999.5`},
		{"last expiration", "/spool/foo/0/", "status=down&reason=r&expiration=253402300799", []string{formType}, 200, "", "foo", `"expiration": 253402300799.0`},
		{"creation", "/spool/foo/0/", "status=down&reason=r&creation=1234.5", []string{formType}, 200, "", "foo", `"creation": 1234.5`},
		{"the client's address", "/spool/foo/0/", "status=down&reason=r&by=alice", []string{formType}, 200, "", "foo", `, "by": "remote 127.0.0.1"}`},
		{"in the query", "/spool/foo/0/x?status=down&reason=q", "", nil, 200, "", "foo", `"reason": "q"`},
		{"the body wins", "/spool/foo/0/x?status=up&reason=q", "status=down&reason=a&reason=b", []string{formType}, 200, "", "foo", `"reason": "b"`},
		{
			"multipart", "/spool/foo/0/", "--X\r\nContent-Disposition: form-data; name=\"status\"\r\n\r\ndown\r\n--X\r\nContent-Disposition: form-data; name=\"reason\"\r\n\r\nr\r\n--X--\r\n",
			[]string{"Content-Type: multipart/form-data; boundary=X"},
			200, "", "foo", `"reason": "r"`,
		},
		{"empty reason", "/spool/foo/0/", "status=down&reason=", []string{formType}, 200, "", "foo", `"reason": ""`},
		{"stripped", "/spool/foo/0/", "status=+down+&reason=+a%00b+", []string{formType}, 200, "", "foo", `"reason": "a b"`},
		{"up when nothing is down", "/spool/foo/0/", "status=up", []string{formType}, 200, "", "", ""},
		{"another host, whole", "/spool/foo/0/", "status=down&reason=r", []string{formType, "X-Nerve-Check-IP: 10.1.2.3"}, 400, "another host", "", ""},
		{"no address", "/spool/foo/80/", "status=down&reason=r", []string{formType, "X-Nerve-Check-IP: ../x"}, 400, "not an IP address", "", ""},
		{"drain", "/spool/foo/80/", "status=drain&reason=r&expiration=4000000000", []string{formType}, 200, "", "foo:80", `"expiration": 4000000000.0, "creation": `},
		{"drain, the state", "/spool/foo/0/", "status=drain&reason=r", []string{formType}, 200, "", "foo", `, "state": "drain", "by": "remote 127.0.0.1"}`},
		{"maint", "/spool/foo/0/", "status=maint&reason=r", []string{formType}, 200, "", "foo", `, "state": "maint", "by": "remote 127.0.0.1"}`},
		{"no reason", "/spool/foo/0/", "status=down", []string{formType}, 400, "reason is required when status is down", "", ""},
		{"drain without a reason", "/spool/foo/0/", "status=drain", []string{formType}, 400, "reason is required when status is drain", "", ""},
		{"no status", "/spool/foo/0/", "reason=r", []string{formType}, 400, "status must be up, down, drain or maint", "", ""},
		{"odd status", "/spool/foo/0/", "status=DOWN&reason=r", []string{formType}, 400, "status must be up, down, drain or maint", "", ""},
		{"no form", "/spool/foo/0/", "status=down&reason=r", []string{"Content-Type: application/json"}, 400, "status must be up, down", "", ""},
		{"expiration nan", "/spool/foo/0/", "status=down&reason=r&expiration=nan", []string{formType}, 400, "expiration must be", "", ""},
		{"expiration inf", "/spool/foo/0/", "status=down&reason=r&expiration=inf", []string{formType}, 400, "expiration must be", "", ""},
		{"expiration empty", "/spool/foo/0/", "status=down&reason=r&expiration=", []string{formType}, 400, "expiration must be", "", ""},
		{"expiration in milliseconds", "/spool/foo/0/", "status=down&reason=r&expiration=1795215493370", []string{formType}, 400, "expiration must be", "", ""},
		{"expiration far", "/spool/foo/0/", "status=down&reason=r&expiration=1e300", []string{formType}, 400, "expiration must be", "", ""},
		{"creation soon", "/spool/foo/0/", "status=down&reason=r&creation=soon", []string{formType}, 400, "creation must be", "", ""},
		{"not UTF-8", "/spool/foo/0/", "status=down&reason=%ff", []string{formType}, 400, "UTF-8", "", ""},
		{"broken escape", "/spool/foo/0/", "status=down&reason=%f", []string{formType}, 400, "form", "", ""},
		{"too large", "/spool/foo/0/", "status=down&reason=" + strings.Repeat("x", 70_000), []string{formType}, 400, "too large", "", ""},
		{"no such name", "/spool/..%2Ffoo/0/", "status=down&reason=r", []string{formType}, 404, "service", "", ""},
		{"dots", "/spool/../0/", "status=down&reason=r", []string{formType}, 404, "service", "", ""},
		{"all with a port", "/spool/all/80/", "status=down&reason=r", []string{formType}, 400, "all", "", ""},
		{"a web page elsewhere", "/spool/foo/0/", "status=down&reason=r", []string{formType, "Sec-Fetch-Site: cross-site"}, 403, "web pages", "", ""},
		{"a web page of a name that was made to mean this host", "/spool/foo/0/", "status=down&reason=r", []string{formType, "Origin: http://rebound.example:3333"}, 403, "web pages", "", ""},
		{"a page of our own origin", "/spool/foo/0/", "status=down&reason=r", []string{formType, "Sec-Fetch-Site: same-origin"}, 403, "web pages", "", ""},
		{"a sandboxed page", "/spool/foo/0/", "status=down&reason=r", []string{formType, "Origin: null"}, 403, "web pages", "", ""},
		{"not a spool URL", "/http/foo/0/", "status=down&reason=r", []string{formType}, 405, "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := proxytest.Start(t, slog.LevelInfo)
			root := allowRemote(t, d, nil)
			r := post(t, d, c.target, c.body, c.headers...)
			if r.Code != c.code || !strings.Contains(r.Body, c.says) || c.code == 200 && r.Body != "" {
				t.Errorf("%d %q, want %d %q", r.Code, r.Body, c.code, c.says)
			}
			files, err := filepath.Glob(filepath.Join(root, "*"))
			if err != nil {
				t.Fatal(err)
			}
			if c.file == "" {
				if len(files) > 0 {
					t.Errorf("files are there: %q", files)
				}
				return
			}
			content, err := os.ReadFile(filepath.Join(root, c.file))
			if err != nil || !strings.Contains(string(content), c.holds) || len(files) != 1 {
				t.Errorf("%v: %s holds %s, want %s; all files: %q", err, c.file, content, c.holds, files)
			}
			// And up again, by the same name.
			r = post(t, d, c.target[:strings.LastIndex(c.target, "/")+1], "status=up", c.headers...)
			if c.headers != nil && !strings.HasPrefix(c.headers[0], "Content-Type: multipart") && c.target != "/spool/foo/007" {
				if _, err := os.Stat(filepath.Join(root, c.file)); r.Code != 200 || !errors.Is(err, os.ErrNotExist) {
					t.Errorf("up: %d %q, %v", r.Code, r.Body, err)
				}
			}
			if r := d.Get(t, "/recent"); !strings.Contains(r.Body, `"seen_services":[]`) {
				t.Errorf("a POST is entered in /recent: %s", r.Body)
			}
		})
	}
}

func TestWhoMayChangeTheSpool(t *testing.T) {
	elsewhere := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct {
		name    string
		change  func(*proxy.Remote)
		headers []string
		code    int
		says    string
	}{
		{"off", func(m *proxy.Remote) { m.Enabled = false }, nil, 403, "allow_remote_spool_changes"},
		{"not listed", func(m *proxy.Remote) { m.Allowed = elsewhere }, nil, 403, "remote_spool_allowed"},
		{"not listed, no token sent", func(m *proxy.Remote) { m.Allowed, m.Token = elsewhere, "s3cret" }, nil, 403, "Authorization: Bearer"},
		{"not listed, wrong token", func(m *proxy.Remote) { m.Allowed, m.Token = elsewhere, "s3cret" }, []string{"Authorization: Bearer s3cre"}, 403, "is not remote_spool_token"},
		{"not listed, right token", func(m *proxy.Remote) { m.Allowed, m.Token = elsewhere, "s3cret" }, []string{"Authorization: Bearer s3cret"}, 200, ""},
		{"not listed, right token, odd case", func(m *proxy.Remote) { m.Allowed, m.Token = elsewhere, "s3cret" }, []string{"authorization: bearer s3cret"}, 200, ""},
		{"not listed, token in odd case", func(m *proxy.Remote) { m.Allowed, m.Token = elsewhere, "s3cret" }, []string{"Authorization: Bearer S3CRET"}, 403, "is not remote_spool_token"},
		{"not listed, empty token", func(m *proxy.Remote) { m.Allowed = elsewhere }, []string{"Authorization: Bearer "}, 403, "remote_spool_token"},
		{"listed", nil, nil, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := proxytest.Start(t, slog.LevelInfo)
			allowRemote(t, d, c.change)
			r := post(t, d, "/spool/foo/0/", "status=down&reason=r", append(c.headers, formType)...)
			if r.Code != c.code || !strings.Contains(r.Body, c.says) || strings.Contains(r.Body, "s3cret") {
				t.Errorf("%d %q, want %d %q and no token", r.Code, r.Body, c.code, c.says)
			}
		})
	}
}

// TestManyRemoteChangesAtOnce is the bounce of a PaaSTA cluster: pairs of POST and GET, all at once.
func TestManyRemoteChangesAtOnce(t *testing.T) {
	d := proxytest.Start(t, slog.LevelInfo)
	dir := allowRemote(t, d, nil)
	idx, err := func() (*spool.Index, error) {
		sd, err := spool.OpenDir(dir)
		if err != nil {
			return nil, err
		}
		return spool.OpenIndex(sd, spool.IndexOptions{Log: d.Log})
	}()
	if err != nil {
		t.Fatal(err)
	}
	defer idx.Close()
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			svc := fmt.Sprintf("svc%d", i)
			resp, err := http.Post(fmt.Sprintf("http://%s/spool/%s/0/status", d.Addr, svc), "application/x-www-form-urlencoded", strings.NewReader("status=down&reason=bounce"))
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
			if v := idx.Lookup(svc, "", 0, true); resp.StatusCode != 200 || v.Override == nil {
				t.Errorf("%s: %d, and then %v", svc, resp.StatusCode, v.Override)
			}
		})
	}
	wg.Wait()
}

// TestRemoteWeights: weight goes with status up, in the two ways to write a percentage, and ends with the next status up.
func TestRemoteWeights(t *testing.T) {
	for _, c := range []struct {
		name, body string
		asks       bool // a balancer asks the agent
		code       int
		says       string
		want       int // the weight in force afterwards
		expires    bool
		stays      bool // the override that was there before
	}{
		{"a number", "status=up&weight=25", true, 200, "", 25, false, false},
		{"percent", "status=up&weight=25%25", true, 200, "", 25, false, false},
		{"with an end", "status=up&weight=1&expiration=4000000000", true, 200, "", 1, true, false},
		{"the end of it", "status=up", true, 200, "", 0, false, false},
		{"full weight", "status=up&weight=100%25", false, 200, "", 0, false, false},
		{"full weight with an end", "status=up&weight=100&expiration=4000000000", true, 400, "excludes expiration", 50, false, true},
		{"not asked", "status=up&weight=25", false, 409, "agent-check", 50, false, true},
		{"zero", "status=up&weight=0", true, 400, "want 1% to 100%", 50, false, true},
		{"too much", "status=up&weight=101", true, 400, "want 1% to 100%", 50, false, true},
		{"empty", "status=up&weight=", true, 400, "want 1% to 100%", 50, false, true},
		{"with another status", "status=drain&reason=r&weight=25", true, 400, "weight is for status up alone", 50, false, true},
		{"a broken end", "status=up&weight=25&expiration=soon", true, 400, "expiration must be", 50, false, true},
		{"an end in the past", "status=up&weight=25&expiration=1", true, 400, "expiration is in the past", 50, false, true},
		{"an end at zero", "status=up&weight=25&expiration=0", true, 400, "expiration is in the past", 50, false, true},
		{"another status", "status=drain&reason=r", true, 200, "", 50, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := proxytest.Start(t, slog.LevelInfo)
			key := spool.Key{Service: "foo", Port: 80}
			root := allowRemote(t, d, func(m *proxy.Remote) {
				m.AsksAgent = func(k spool.Key) bool { return c.asks && k == key }
			})
			dir, err := spool.OpenDir(root)
			if err != nil {
				t.Fatal(err)
			}
			for _, err := range []error{
				dir.Write(spool.Entry{Key: key, State: spool.Drain}), dir.WriteWeight(spool.Weight{Key: key, Percent: 50, By: "root"}),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			r := post(t, d, "/spool/foo/80/", c.body, formType)
			if r.Code != c.code || !strings.Contains(r.Body, c.says) {
				t.Errorf("%d %q, want %d %q", r.Code, r.Body, c.code, c.says)
			}
			list, err := dir.ListWeights()
			if err != nil {
				t.Fatal(err)
			}
			got := spool.Weight{}
			for _, got = range list {
				if by := "remote 127.0.0.1"; c.want != 50 && got.By != by || got.Expires.IsZero() == c.expires {
					t.Errorf("%+v", got)
				}
			}
			if len(list) > 1 || got.Percent != c.want {
				t.Errorf("weights %+v, want %d %%", list, c.want)
			}
			if _, err := dir.Read(key); (err == nil) != c.stays {
				t.Errorf("the override: %v", err)
			}
		})
	}
}
