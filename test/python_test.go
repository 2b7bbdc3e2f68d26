package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// pythonTool runs testdata/python/spool.py on a spool directory.
func pythonTool(t *testing.T, root, action, name string, args ...string) string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatalf("%v: the tools of the original are Python; install the package python3 (test/install.sh)", err)
	}
	cmd := exec.Command(python, append([]string{"testdata/python/spool.py", action, root, name}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONIOENCODING=utf-8", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("spool.py %s %s %q: %v\n%s", action, name, args, err, out)
	}
	return string(out)
}

// pythonView is what the Python tools read in a spool file.
type pythonView struct {
	Up         bool     `json:"up"`
	Reason     string   `json:"reason"`
	Expiration string   `json:"expiration"`
	Creation   string   `json:"creation"`
	Keys       []string `json:"keys"`
}

func readWithPython(t *testing.T, root, name string) (says pythonView) {
	t.Helper()
	if err := json.Unmarshal([]byte(pythonTool(t, root, "read", name)), &says); err != nil {
		t.Fatal(err)
	}
	return says
}

// TestPythonReadsOurs: the Python tools read what hadown and POST write.
func TestPythonReadsOurs(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "allow_remote_spool_changes: true\n")
	post := func(path string, form url.Values) {
		t.Helper()
		resp, err := client.PostForm(d.url+path, form)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("POST %s: %s", path, resp.Status)
		}
	}
	began := time.Now().Unix()
	d.mustRun("hadown", "-r", "kernel upgrade", "web")
	d.mustRun("hadown", "-r", "bücher \"50%\" <b>\nand more", "-e", "4000000000.25", "quoted")
	d.mustRun("hadown", "-r", "one port", "-P", "80", "web")
	d.mustRun("hadown", "-r", "a pod", "-P", "80", "-H", "2001:db8::1", "web")
	d.mustRun("hadown", "-r", "everything", "all")
	post("/spool/posted/0/status", url.Values{"status": {"down"}, "reason": {"by hånd"}, "expiration": {"4000000000"}, "creation": {"1234.5"}})
	post("/spool/posted/81/", url.Values{"status": {"down"}, "reason": {""}})
	// Only this hacheck writes a state, and who has set the override. The Python tools ignore these keys and treat the
	// service as down.
	drain := `{"reason": "drain it", "expiration": 4000000000.0, "creation": 1500000000.5, "state": "drain"}`
	if err := os.WriteFile(filepath.Join(d.spool, "drained"), []byte(drain), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, reason, expiration, creation string }{
		{"web", "kernel upgrade", "", ""},
		{"quoted", "bücher \"50%\" <b>\nand more", "4000000000.250000", ""},
		{"web:80", "one port", "", ""},
		{"web:2001:db8::1:80", "a pod", "", ""},
		{"all", "everything", "", ""},
		{"posted", "by hånd", "4000000000.000000", "1234.500000"},
		{"posted:81", "", "", ""},
		{"drained", "drain it", "4000000000.000000", "1500000000.500000"},
	} {
		got := readWithPython(t, d.spool, c.name)
		if got.Up || got.Reason != c.reason || got.Expiration != c.expiration || c.creation != "" && got.Creation != c.creation {
			t.Errorf("%s: Python reads %+v, want down, %q until %q since %q", c.name, got, c.reason, c.expiration, c.creation)
		}
		var since float64
		if _, err := fmt.Sscan(got.Creation, &since); err != nil || c.creation == "" && (since < float64(began) || since > float64(time.Now().Unix()+1)) {
			t.Errorf("%s: Python reads creation %q, which is not now: %v", c.name, got.Creation, err)
		}
		want := []string{"by", "creation", "expiration", "reason"}
		if c.name == "drained" {
			want = []string{"creation", "expiration", "reason", "state"}
		}
		if !slices.Equal(got.Keys, want) {
			t.Errorf("%s: Python reads the keys %q, want %q", c.name, got.Keys, want)
		}
	}
	d.mustRun("haup", "web", "all", "posted")
	for _, name := range []string{"web", "all", "posted"} {
		if got := readWithPython(t, d.spool, name); !got.Up {
			t.Errorf("%s after haup: Python reads %+v", name, got)
		}
	}
}

// TestPythonWritesOurs: the daemon obeys a file of the Python tools with the next request, and the commands show it.
func TestPythonWritesOurs(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	for _, c := range []struct{ action, argument, body, status string }{
		{
			"write", `{"reason": "r1", "expiration": null, "creation": 1500000000.5}`,
			"Service web in down state since 1500000000.500000: r1", "DOWN\tinf\tweb\tr1\n",
		},
		{
			"write", `{"reason": "bücher", "expiration": 4000000000, "creation": 1500000000}`,
			"Service web in down state since 1500000000.000000 until 4000000000.000000: bücher", "DOWN\t4000000000.000000\tweb\tbücher\n",
		},
		{
			"write", `{"reason": "for ever", "expiration": Infinity, "creation": 1500000000}`,
			"Service web in down state since 1500000000.000000: for ever", "DOWN\tinf\tweb\tfor ever\n",
		},
		{
			"write", `{"reason": "who knows", "expiration": NaN, "creation": NaN}`,
			"Service web in down state: who knows", "DOWN\tinf\tweb\twho knows\n",
		},
		{
			"write", `{"reason": "", "expiration": null, "creation": 1500000000}`,
			"Service web in down state since 1500000000.000000", "DOWN\tinf\tweb\t\n",
		},
		{"write", `{}`, "Service web in down state", "DOWN\tinf\tweb\t\n"},
		{"write", `"just a string"`, "Service web in down state: just a string", "DOWN\tinf\tweb\tjust a string\n"},
		{"text", "plain text\n", "Service web in down state: plain text", "DOWN\tinf\tweb\tplain text\n"},
		{"text", "", "Service web in down state", "DOWN\tinf\tweb\t\n"},
	} {
		pythonTool(t, d.spool, c.action, "web", c.argument)
		if a := d.get("/spool/web/80/"); a.code != 503 || a.body != c.body {
			t.Errorf("%s %s: the daemon says %d %q, want %q", c.action, c.argument, a.code, a.body, c.body)
		} else if !paasta.MatchString(a.body) {
			t.Errorf("%s %s: PaaSTA cannot read %q", c.action, c.argument, a.body)
		}
		if out, err := d.run("hastatus", "web"); exitCode(err) != 1 || out != c.status {
			t.Errorf("%s %s: hastatus says %q, exit %d; want %q, exit 1", c.action, c.argument, out, exitCode(err), c.status)
		}
		pythonTool(t, d.spool, "remove", "web")
		if a := d.get("/spool/web/80/"); a.code != 200 || a.body != "" {
			t.Errorf("after it was removed: %d %q, want 200", a.code, a.body)
		}
	}

	// An expired override has no effect. A renewal keeps the time since when the service is down.
	pythonTool(t, d.spool, "write", "web", `{"reason": "over", "expiration": 5, "creation": 1}`)
	if a := d.get("/spool/web/80/"); a.code != 200 {
		t.Errorf("expired: %d %q, want 200", a.code, a.body)
	}
	pythonTool(t, d.spool, "write", "web", `{"reason": "r", "expiration": 4000000000, "creation": 1500000000.5}`)
	d.mustRun("hadown", "-r", "r", "web")
	if got := readWithPython(t, d.spool, "web"); got.Creation != "1500000000.500000" || got.Expiration != "" {
		t.Errorf("renewed by hadown: Python reads %+v, want its own creation and no expiration", got)
	}

	// A file that is written in place is empty for a moment. The reason may be missing then, but the override holds.
	const rewrites = 500
	done := make(chan struct{})
	go func() {
		defer close(done)
		pythonTool(t, d.spool, "rewrite", "web", fmt.Sprint(rewrites))
	}()
	asked := 0
	for running := true; running; asked++ {
		select {
		case <-done:
			running = false
		default:
		}
		if a := d.get("/spool/web/80/"); a.code != 503 || !paasta.MatchString(a.body) {
			t.Fatalf("while it is rewritten in place: %d %q, want down", a.code, a.body)
		}
	}
	if a := d.get("/spool/web/80/"); a.body != "Service web in down state since 1500000000.500000: again" {
		t.Errorf("after the last rewrite: %d %q", a.code, a.body)
	}
	t.Logf("%d requests during %d rewrites", asked, rewrites)
}

// TestPaastaBounce simulates a PaaSTA bounce on one machine: it downs 500 instances and requests the state of each,
// all at once.
func TestPaastaBounce(t *testing.T) {
	t.Parallel()
	const instances = 500
	groups := paasta.SubexpNames()
	for name, c := range map[string]struct{ config, token string }{
		"listed": {"remote_spool_allowed: [127.0.0.0/8]\n", ""},
		"token":  {"remote_spool_allowed: [192.0.2.0/24]\nremote_spool_token: s3cret-of-the-cluster\n", "s3cret-of-the-cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t, "allow_remote_spool_changes: true\n"+c.config)
			post := func(path string, form url.Values, token string) (answer, error) {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+path, strings.NewReader(form.Encode()))
				if err != nil {
					return answer{}, err
				}
				req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				if token != "" {
					req.Header.Set("Authorization", "Bearer "+token)
				}
				resp, err := client.Do(req)
				if err != nil {
					return answer{}, err
				}
				defer resp.Body.Close()
				return answer{code: resp.StatusCode}, nil
			}
			if c.token != "" {
				for _, wrong := range []string{"", "s3cret"} {
					if a, err := post("/spool/web.main/31000/status", url.Values{"status": {"down"}, "reason": {"r"}}, wrong); err != nil || a.code != 403 {
						t.Errorf("with the token %q: %d, %v; want 403", wrong, a.code, err)
					}
				}
			}
			var failed atomic.Int64
			pair := func(i int) {
				// As in drain_method hacheck: spool URL, status, reason and expiration.
				path := fmt.Sprintf("/spool/service%d.main/%d/status", i%7, 31000+i)
				until := time.Now().Add(10 * time.Minute).Unix()
				a, err := post(path, url.Values{"status": {"down"}, "reason": {fmt.Sprintf("Drained by Paasta %d", i)}, "expiration": {fmt.Sprint(until)}}, c.token)
				if err != nil || a.code != 200 {
					failed.Add(1)
					t.Errorf("POST %s: %d, %v", path, a.code, err)
					return
				}
				a, err = get(d.url + path)
				if err != nil || a.code != 503 {
					failed.Add(1)
					t.Errorf("GET %s: %d %q, %v", path, a.code, a.body, err)
					return
				}
				m := paasta.FindStringSubmatch(a.body)
				if m == nil {
					t.Errorf("PaaSTA cannot read %q", a.body)
					return
				}
				got := map[string]string{}
				for j, text := range m {
					got[groups[j]] = text
				}
				want := fmt.Sprintf("service%d.main down %d.000000 Drained by Paasta %d", i%7, until, i)
				if is := strings.Join([]string{got["service"], got["state"], got["until"], got["reason"]}, " "); is != want || !regexp.MustCompile(`^[0-9]{10}\.[0-9]{6}$`).MatchString(got["since"]) {
					t.Errorf("PaaSTA reads %q since %q, want %q and when", is, got["since"], want)
				}
			}
			began := time.Now()
			parallel(instances, pair)
			t.Logf("%d pairs of POST and GET at once took %v", instances, time.Since(began).Round(time.Millisecond))
			if files, err := os.ReadDir(d.spool); err != nil || len(files) != instances {
				t.Errorf("%d files in the spool directory, want %d: %v", len(files), instances, err)
			}
			if strings.Contains(d.out.String(), "s3cret") {
				t.Error("the token is in the log")
			}
			// The drain stops after the bounce.
			parallel(50, func(i int) {
				path := fmt.Sprintf("/spool/service%d.main/%d/status", i%7, 31000+i)
				if a, err := post(path, url.Values{"status": {"up"}}, c.token); err != nil || a.code != 200 {
					t.Errorf("POST %s, up: %d, %v", path, a.code, err)
				}
				if a, err := get(d.url + path); err != nil || a.code != 200 {
					t.Errorf("GET %s after it: %d %q, %v", path, a.code, a.body, err)
				}
			})
			if failed.Load() > 0 {
				t.Errorf("%d of %d pairs failed", failed.Load(), instances)
			}
		})
	}
}
