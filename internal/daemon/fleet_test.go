package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"hacheck/internal/config"
	"hacheck/internal/control"
	"hacheck/test/servertest"
)

// fleetHost is a daemon in a fleet.
type fleetHost struct {
	*process
	name, conf, socket, state, spool, endpoint string
}

// startFleetHost starts a daemon as host of the fleet of an etcd. more are further lines of the section fleet.
func startFleetHost(t *testing.T, endpoint, host string, more ...string) *fleetHost {
	t.Helper()
	dir := t.TempDir()
	h := &fleetHost{
		name: host, conf: filepath.Join(dir, "hacheck.yaml"), socket: filepath.Join(dir, "s"), state: filepath.Join(dir, "state"),
		spool: filepath.Join(dir, "spool"), endpoint: endpoint,
	}
	h.configure(t, h.state, more...)
	h.process = startDaemon(t, "-c", h.conf, "--control-socket", h.socket, "--spool-root", h.spool)
	return h
}

// configure writes the configuration of the host.
func (h *fleetHost) configure(t *testing.T, state string, more ...string) {
	t.Helper()
	writeFile(t, h.conf, fmt.Sprintf("fleet:\n  etcd: [%s]\n  host: %s\n  lease: 5\n  state_dir: %s\n", h.endpoint, h.name, state)+strings.Join(more, ""))
}

func (h *fleetHost) reload(want string) {
	h.t.Helper()
	h.signal(syscall.SIGHUP)
	h.waitForLog(regexp.MustCompile(want))
}

// An override for many hosts counts on every host for the next request after the command has returned, and until it is
// lifted: also after a reload of another section fleet, and after one that fails.
func TestFleetOfTwoDaemons(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	one, two := startFleetHost(t, etcd.URLs()[0], "web1"), startFleetHost(t, etcd.URLs()[0], "web2", "  groups: [rack7]\n")
	set := func(scope, state string) {
		t.Helper()
		r := control.Request{Op: control.OpSet, Scopes: []string{scope}, Services: []string{"web"}, State: state, Reason: "new kernel", Timeout: 20}
		if e := ask(t, one.socket, r); e.Code != 0 || e.Outcome == nil {
			t.Fatalf("set for %s: %+v", scope, e)
		}
	}
	lift := func(scope string) {
		t.Helper()
		if e := ask(t, two.socket, control.Request{Op: control.OpLift, Scopes: []string{scope}, Services: []string{"web"}, Timeout: 20}); e.Code != 0 {
			t.Fatalf("lift for %s: %+v", scope, e)
		}
	}
	set("all", "down")
	for _, h := range []*fleetHost{one, two} {
		if body := h.mustGet("/spool/web/0/", 503); !strings.Contains(body, "[fleet] new kernel") {
			t.Errorf("%s answers %q", h.name, body)
		}
		h.waitForLog(regexp.MustCompile(`msg="override set" service=web state=down reason="new kernel" since=\S+ by=\S+ scope=all`))
		if e := ask(t, h.socket, control.Request{Op: control.OpHeldDown, Services: []string{"web"}}); len(e.HeldDown) != 1 || e.HeldDown[0].Host != h.name {
			t.Errorf("%s is held down by %+v", h.name, e.HeldDown)
		}
	}
	one.waitForLog(regexp.MustCompile(`msg="an override for many hosts was set" scope=all service=web by=\S+ state=down reason="new kernel"`))

	one.configure(t, one.state, "  groups: [rack8]\n")
	one.reload(`msg="reloaded the configuration"`)
	one.mustGet("/spool/web/0/", 503)
	lift("all")
	one.mustGet("/spool/web/0/", 200)
	set("group:rack8", "drain")
	one.mustGet("/spool/web/0/", 404)
	two.mustGet("/spool/web/0/", 200)

	// Another daemon uses that directory, so the old section stays in force.
	one.configure(t, two.state)
	one.reload(`level=ERROR msg="the configuration was not reloaded, the old one stays in force".*`)
	one.mustGet("/spool/web/0/", 404)
	waitUntil(t, "the fleet is connected again", func() bool {
		e := ask(t, one.socket, control.Request{Op: control.OpReport})
		return e.Code == 0 && e.Fleet.Connected && len(e.Fleet.Hosts) == 2
	})

	if keys := etcd.Ctl("get", "--prefix", "--keys-only", "/hacheck/present/"); !strings.Contains(keys, "web1") {
		t.Errorf("present are %q", keys)
	}
	one.signal(syscall.SIGTERM)
	one.wantExit(0)
	if keys := etcd.Ctl("get", "--prefix", "--keys-only", "/hacheck/present/"); strings.Contains(keys, "web1") || !strings.Contains(keys, "web2") {
		t.Errorf("after the end of web1 present are %q", keys)
	}
}

// A reload puts in force that the section fleet was removed or added, and leaves nothing of the fleet in the answers. A
// section that cannot be put in force changes nothing.
func TestFleetSectionIsRemovedAndAdded(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	one, two := startFleetHost(t, etcd.URLs()[0], "web1"), startFleetHost(t, etcd.URLs()[0], "web2")
	r := control.Request{Op: control.OpSet, Scopes: []string{"all"}, Services: []string{"web"}, State: "down", Reason: "new kernel", Timeout: 20}
	if e := ask(t, two.socket, r); e.Code != 0 {
		t.Fatalf("set: %+v", e)
	}
	writeFile(t, filepath.Join(one.spool, "db"), "maintenance")
	one.mustGet("/spool/web/0/", 503)
	present := func() string { return etcd.Ctl("get", "--prefix", "--keys-only", "/hacheck/present/") }
	wantNone := func() {
		t.Helper()
		one.mustGet("/spool/web/0/", 200)
		one.mustGet("/spool/db/0/", 503)
		one.mustGet("/fleet", 404)
		if strings.Contains(one.mustGet("/metrics", 200), "hacheck_fleet") || strings.Contains(one.mustGet("/overview", 200), "Fleet:") {
			t.Error("the pages show a fleet")
		}
		if e := ask(t, one.socket, control.Request{Op: control.OpReport}); !e.NoFleet {
			t.Errorf("report: %+v, want that there is no fleet", e)
		}
		if keys := present(); strings.Contains(keys, "web1") || !strings.Contains(keys, "web2") {
			t.Errorf("present are %q", keys)
		}
	}
	if e := ask(t, one.socket, control.Request{Op: control.OpLeave}); e.Code != 0 {
		t.Fatalf("leave: %+v", e)
	}
	one.mustGet("/spool/web/0/", 200)
	writeFile(t, one.conf, "")
	one.reload(`level=WARN msg="the section fleet was removed from the configuration.* host=web1`)
	waitUntil(t, "the reload is done", func() bool { return ask(t, one.socket, control.Request{Op: control.OpReport}).NoFleet })
	wantNone()

	one.configure(t, two.state) // another daemon uses that directory
	one.reload(`level=ERROR msg="the configuration was not reloaded, the old one stays in force".*another hacheck daemon`)
	wantNone()

	one.configure(t, one.state)
	one.reload(`msg="the section fleet was added to the configuration: this host is in the fleet from now on" host=web1`)
	waitUntil(t, "the host has joined", func() bool { return ask(t, one.socket, control.Request{Op: control.OpJoin}).Code == 0 })
	one.mustGet("/spool/web/0/", 503)
	waitUntil(t, "both hosts are present", func() bool {
		e := ask(t, one.socket, control.Request{Op: control.OpReport})
		return e.Code == 0 && e.Fleet.Connected && len(e.Fleet.Hosts) == 2
	})
	one.mustGet("/fleet", 200)
	if !strings.Contains(one.mustGet("/metrics", 200), "hacheck_fleet_connected 1") {
		t.Error("/metrics does not show the fleet")
	}
}

// A configuration file that was cut off ends no override of the fleet: not by a reload, and not by a start.
func TestFleetSectionIsCutOff(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	h := startFleetHost(t, etcd.URLs()[0], "web1", "  groups: [rack7]\n")
	for service, scope := range map[string]string{"web": "group:rack7", "db": "host:web1"} {
		r := control.Request{Op: control.OpSet, Scopes: []string{scope}, Services: []string{service}, State: "down", Reason: "new switch", Timeout: 20}
		if e := ask(t, h.socket, r); e.Code != 0 {
			t.Fatalf("set: %+v", e)
		}
	}
	wantDown := func() {
		t.Helper()
		h.mustGet("/spool/web/0/", 503)
		h.mustGet("/spool/db/0/", 503)
		h.mustGet("/spool/mail/0/", 200)
	}
	wantDown()

	writeFile(t, h.conf, "") // the whole section
	h.reload(`level=ERROR msg="the configuration was not reloaded, the old one stays in force".*db for host:web1 \(down by .*new switch\), web for group:rack7`)
	wantDown()

	etcd.Stop() // all but the endpoints: the host has another name, no groups and an empty state_dir
	other := filepath.Join(t.TempDir(), "state")
	writeFile(t, h.conf, fmt.Sprintf("fleet:\n  etcd: [%s]\n  start_wait: 0\n  host: web9\n  state_dir: %s\n", h.endpoint, other))
	h.reload(`msg="reloaded the configuration"`)
	h.waitForLog(regexp.MustCompile(`level=WARN msg="fleet: override stays in force although its scope does not cover this host any more.* override=.*group:rack7`))
	wantDown()

	writeFile(t, h.conf, "") // and then a restart
	h.signal(syscall.SIGKILL)
	h.exit()
	h.process = startDaemonEnv(t, "STATE_DIRECTORY="+other, "-c", h.conf, "--control-socket", h.socket, "--spool-root", h.spool)
	h.waitForLog(regexp.MustCompile(`level=WARN msg="fleet: the configuration has no section fleet, but overrides stay in force.*group:rack7/web`))
	wantDown()
	if text := h.mustGet("/overview", 200); !strings.Contains(text, "has no section fleet") {
		t.Errorf("/overview does not say it:\n%s", text)
	}
	h.reload(`msg="reloaded the configuration"`)
	wantDown()
	r := control.Request{Op: control.OpSet, Scopes: []string{"all"}, Services: []string{"web"}, State: "down", Timeout: 5}
	if e := ask(t, h.socket, r); e.Code != control.CodeUnavailable || !strings.Contains(e.Error, "no section fleet") {
		t.Errorf("set: %+v", e)
	}

	etcd.Start() // the section is back
	h.configure(t, other, "  groups: [rack7]\n")
	h.reload(`msg="fleet: registered in etcd"`)
	wantDown()
	if e := ask(t, h.socket, control.Request{Op: control.OpLift, Scopes: []string{"group:rack7"}, Services: []string{"web"}, Timeout: 20}); e.Code != 0 {
		t.Errorf("lift: %+v", e)
	}
	h.mustGet("/spool/web/0/", 200)
	h.mustGet("/spool/db/0/", 503)
}

// hacheck fleet leave ends the overrides of a host without a section fleet, also over restarts.
func TestFleetIsLeftWithoutSection(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	h := startFleetHost(t, etcd.URLs()[0], "web1")
	r := control.Request{Op: control.OpSet, Scopes: []string{"all"}, Services: []string{"web"}, State: "down", Timeout: 20}
	if e := ask(t, h.socket, r); e.Code != 0 {
		t.Fatalf("set: %+v", e)
	}
	writeFile(t, h.conf, "")
	restart := func() {
		t.Helper()
		h.signal(syscall.SIGTERM)
		h.wantExit(0)
		h.process = startDaemonEnv(t, "STATE_DIRECTORY="+h.state, "-c", h.conf, "--control-socket", h.socket, "--spool-root", h.spool)
	}
	restart()
	h.mustGet("/spool/web/0/", 503)
	if e := ask(t, h.socket, control.Request{Op: control.OpLeave}); e.Code != 0 {
		t.Errorf("leave: %+v", e)
	}
	h.mustGet("/spool/web/0/", 200)
	restart()
	h.mustGet("/spool/web/0/", 200)
	h.mustGet("/fleet", 404)
}

// A daemon that was stopped for longer than its lease, as on a suspended machine, is absent meanwhile. Afterwards it grants
// nothing before it is registered again, and obeys what was set meanwhile.
func TestFleetDaemonIsStoppedForLongerThanItsLease(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	one := startFleetHost(t, etcd.URLs()[0], "web1", "  member: {web: true}\n")
	two := startFleetHost(t, etcd.URLs()[0], "web2", "  member: {web: true}\n")
	states := func() string { return etcd.Ctl("get", "--prefix", "/hacheck/state/web/") }
	waitUntil(t, "both are members", func() bool { return strings.Count(states(), `"state":"up"`) == 2 })
	one.signal(syscall.SIGSTOP)
	waitUntil(t, "web1 is absent", func() bool {
		return !strings.Contains(etcd.Ctl("get", "--prefix", "--keys-only", "/hacheck/present/"), "web1")
	})
	r := control.Request{Op: control.OpSet, Scopes: []string{"all"}, Services: []string{"db"}, State: "down", Reason: "disk", Timeout: 20}
	if e := ask(t, two.socket, r); e.Code != 0 || e.Outcome == nil || !reflect.DeepEqual(e.Outcome.Absent, []string{"web1"}) {
		t.Errorf("set while web1 is stopped: %+v", e)
	}
	safe := control.Request{Op: control.OpTakeDown, Services: []string{"web"}, State: "down", Reason: "new kernel"}
	if e := ask(t, two.socket, safe); e.Code != control.CodeRefused || !strings.Contains(e.Error, "web1 (absent") {
		t.Errorf("web2 has a permit while web1 is absent: %+v", e)
	}
	one.signal(syscall.SIGCONT)
	e := ask(t, one.socket, safe) // its clock says that the lease is over, or etcd does
	switch {
	case e.Code == 0 && strings.Contains(etcd.Ctl("get", "--prefix", "/hacheck/present/"), "web1"):
	case e.Code == control.CodeUnavailable:
	default:
		t.Errorf("right after it was stopped: %+v", e)
	}
	waitUntil(t, "web1 obeys what was set meanwhile", func() bool { code, _, err := one.get("/spool/db/0/"); return err == nil && code == 503 })
	waitUntil(t, "web1 acknowledges", func() bool {
		e := ask(t, two.socket, r)
		return e.Code == 0 && e.Outcome != nil && len(e.Outcome.Absent) == 0
	})
}

// Without etcd the daemon starts with what it knows, answers, and says what it cannot do.
func TestFleetWithoutEtcd(t *testing.T) {
	t.Parallel()
	etcd := servertest.Etcd(t)
	h := startFleetHost(t, etcd.URLs()[0], "web1", "  start_wait: 0\n")
	r := control.Request{Op: control.OpSet, Scopes: []string{"host:web1"}, Services: []string{"web"}, State: "down", Timeout: 20}
	waitUntil(t, "the override is set", func() bool { return ask(t, h.socket, r).Code == 0 })
	etcd.Stop()
	h.signal(syscall.SIGKILL)
	h.exit()
	h.process = startDaemon(t, "-c", h.conf, "--control-socket", h.socket)
	h.mustGet("/spool/web/0/", 503)
	r.Services, r.Timeout = []string{"db"}, 1
	if e := ask(t, h.socket, r); e.Code != control.CodeUnavailable || e.Error == "" {
		t.Errorf("set: %+v, want code %d", e, control.CodeUnavailable)
	}
	h.mustGet("/spool/db/0/", 200)
	if e := ask(t, h.socket, control.Request{Op: control.OpLeave}); e.Code != 0 {
		t.Errorf("leave, which needs no etcd: %+v", e)
	}
	h.mustGet("/spool/web/0/", 200)
}

func TestReadCredentials(t *testing.T) {
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		writeFile(t, path, text)
		return path
	}
	base := config.Fleet{Endpoints: []string{"http://127.0.0.1:2379"}, Username: "hacheck"}
	for _, text := range []string{"hunter2", "hunter2\n", "hunter2\r\nmore\n"} {
		c := base
		c.PasswordFile = file("password", text)
		if login, err := readCredentials(&c); err != nil || login.Username != "hacheck" || login.Password != "hunter2" || login.TLS != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	c := base
	c.Endpoints = []string{"https://etcd1:2379"}
	if login, err := readCredentials(&c); err != nil || login.TLS == nil || login.TLS.InsecureSkipVerify {
		t.Errorf("https: %v", err)
	}
	for name, change := range map[string]func(*config.Fleet){
		"missing password":   func(f *config.Fleet) { f.PasswordFile = "/no/such/file" },
		"empty password":     func(f *config.Fleet) { f.PasswordFile = file("empty", "\nhunter2") },
		"directory":          func(f *config.Fleet) { f.PasswordFile = t.TempDir() },
		"missing ca":         func(f *config.Fleet) { f.CAFile = "/no/such/file" },
		"ca that is none":    func(f *config.Fleet) { f.CAFile = file("ca", "hunter2") },
		"certificate unread": func(f *config.Fleet) { f.CertFile, f.KeyFile = file("cert", "hunter2"), file("key", "hunter2") },
	} {
		c := base
		c.Endpoints = []string{"https://etcd1:2379"}
		change(&c)
		if _, err := readCredentials(&c); err == nil || !strings.Contains(err.Error(), "_file") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestFleetFileWarnings(t *testing.T) {
	dir := t.TempDir()
	password, key := filepath.Join(dir, "password"), filepath.Join(dir, "key")
	writeFile(t, password, "hunter2")
	writeFile(t, key, "hunter2")
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	warnAboutFleetFiles(slog.New(slog.NewTextHandler(&log, nil)), &config.Fleet{PasswordFile: password, KeyFile: key, CAFile: "/no/such/file"})
	if n := strings.Count(log.String(), "may log in to etcd as this host"); n != 1 || !strings.Contains(log.String(), "key=password_file file="+password) {
		t.Errorf("the log has %q", log.String())
	}
	log.Reset()
	state := makeFiles(t, "state/ 777", "open/ 777", "open/state/ 750")
	for _, name := range []string{"state", "open/state"} {
		warnAboutFleetFiles(slog.New(slog.NewTextHandler(&log, nil)), &config.Fleet{StateDir: filepath.Join(state, name)})
	}
	if strings.Count(log.String(), saysState) != 1 || strings.Count(log.String(), "may replace state_dir") != 1 {
		t.Errorf("about state_dir, the log has %q", log.String())
	}
	log.Reset()
	warnAboutFleetFiles(slog.New(slog.NewTextHandler(&log, nil)), nil)
	if log.Len() > 0 {
		t.Errorf("without a fleet: %q", log.String())
	}
}

// Every setting but those that are read for each request needs a new connection.
func TestNeedsNewConnection(t *testing.T) {
	same := map[string]bool{"Operators": true, "FleetLock": true, "Insecure": true}
	for i := range reflect.TypeFor[config.Fleet]().NumField() {
		f := reflect.TypeFor[config.Fleet]().Field(i)
		var a, b config.Fleet
		field := reflect.ValueOf(&b).Elem().Field(i)
		switch field.Kind() {
		case reflect.String:
			field.SetString("x")
		case reflect.Bool:
			field.SetBool(true)
		case reflect.Int64:
			field.SetInt(1)
		case reflect.Slice:
			field.Set(reflect.ValueOf([]string{"x"}))
		case reflect.Map:
			field.Set(reflect.ValueOf(map[string]bool{"web": true}))
		default:
			t.Fatalf("a field of another kind: %s", f.Name)
		}
		if got := needsNewConnection(a, b); got == same[f.Name] {
			t.Errorf("%s: needsNewConnection is %v", f.Name, got)
		}
	}
}
