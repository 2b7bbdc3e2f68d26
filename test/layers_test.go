package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// The layers, lowest first. A package imports packages of ours from lower layers only, never from its own layer:
// the endpoints do not import each other, and the lowest packages import nothing of ours.
//
//   - spool, cache and check are useful without the rest and are tested without it.
//   - config holds plain values; daemon turns them into options (see only, below). It is above check, because check
//     finds the errors in a list of checks and config adds the line of the file.
//   - textfmt formats every text for people, clients decides which addresses are one client, share divides a bounded
//     table among clients, and loglimit limits the log lines that clients can cause.
//   - cmdline parses the options of every command; terminal draws for the commands that run for a while.
//   - fastpath and wait are parts of proxy and admin with an interface of their own.
//   - balancer is fed by the endpoints; metrics exports the counters of the packages below it.
//   - an endpoint translates a verdict into its own protocol. Only daemon knows them all.
//   - report has the documents of a fleet and control the socket of the commands; the commands link both. fleet is above
//     the endpoints, so that the pages show a report and do not know etcd.
//   - fleetlock asks the fleet for a permit, and balancers by wait.
var layers = [][]string{
	{"internal/textfmt", "internal/clients", "internal/share", "internal/loglimit", "internal/certificate", "internal/fleet/report", "internal/check/conn", "internal/sockdiag"},
	{"internal/spool", "internal/cache", "internal/check", "internal/cmdline", "internal/terminal", "internal/systemd", "internal/control"},
	{"internal/health", "internal/config"},
	{"internal/balancer"},
	{"internal/metrics", "internal/proxy/fastpath", "internal/httpserver", "internal/admin/wait"},
	{"internal/proxy", "internal/web", "internal/agent", "internal/aggregate", "internal/beacon", "internal/runner", "internal/admin"},
	{"internal/fleet"},
	{"internal/fleetlock"},
	{"internal/daemon"},
	{"cmd/hacheck", "cmd/haup", "cmd/hadown", "cmd/hastatus"},
}

// outside lists the packages for tests, benchmarks and packaging. They have no layer and may import any package. No
// command may link them.
var outside = []string{"test/checktest", "test/servertest", "test/proxytest", "bench", "bench/bare", "bench/empty", "bench/list", "demo", "packaging/generate", "test"}

// only says which packages may import a package directly, by the prefix of its path, and why.
var only = []struct {
	module string
	only   []string
	why    string
}{
	{"github.com/prometheus/", []string{"internal/metrics"}, "everyone else counts with plain counters, which cost nothing on the way of a check"},
	{"go.yaml.in/yaml/", []string{"internal/config"}, "files are read in one place, the rest gets values"},
	{"github.com/go-chi/chi/", []string{"internal/proxy", "internal/web"}, "routes belong to the HTTP endpoint"},
	{"github.com/patrickmn/go-cache", []string{"internal/cache"}, "it is an implementation detail of the cache"},
	{"github.com/fsnotify/fsnotify", []string{"internal/spool"}, "the index alone knows when a file has changed"},
	{"github.com/go-sql-driver/", []string{"internal/check"}, "drivers belong to checks"},
	{"github.com/redis/", []string{"internal/check"}, "drivers belong to checks"},
	{"github.com/emersion/", []string{"internal/check"}, "drivers belong to checks"},
	{"github.com/jackc/", []string{"internal/check"}, "drivers belong to checks"},
	{"go.mongodb.org/", []string{"internal/check"}, "drivers belong to checks"},
	{"github.com/rabbitmq/", []string{"internal/check"}, "drivers belong to checks"},
	{"github.com/go-ldap/", []string{"internal/check"}, "drivers belong to checks"},
	{"google.golang.org/", []string{"internal/check", "internal/fleet"}, "drivers belong to checks, and the client of etcd to the fleet"},
	{"go.etcd.io/", []string{"internal/fleet"}, "no other package knows etcd"},
	{"go.uber.org/", []string{"internal/fleet"}, "the client of etcd wants a logger of it; use log/slog"},
	{"github.com/pires/", []string{"internal/proxy/fastpath"}, "what precedes the first request of a connection is read in one place"},
	{"hacheck/internal/config", []string{"internal/daemon", "internal/runner"}, "the other packages take options, so that they can be used and tested without a file; the runner is handed nothing but files"},
}

// small lists the commands that an operator runs, possibly in a loop over thousands of hosts. Every package that they
// link costs start time and memory.
var small = []string{"cmd/haup", "cmd/hadown", "cmd/hastatus"}

// smallModules lists the modules that the small commands may link. No driver is among them.
var smallModules = []string{"hacheck", "github.com/spf13/pflag", "github.com/fsnotify/fsnotify", "golang.org/x/sys", "golang.org/x/text"}

// smallNever are packages of the standard library that they do without: asking the daemon for a JSON page
// takes a connection and a few lines.
var smallNever = []string{"net/http", "crypto/tls", "text/template", "html/template"}

// never are packages, and by their prefix (a "/" or "." at the end) modules, that no command links.
var never = map[string]string{
	"C":                     "the commands are built without cgo",
	"net/http/pprof":        "it registers itself with the default mux, behind everyone's back",
	"plugin":                "nothing is loaded at run time",
	"testing":               "what only tests use belongs in _test.go files",
	"net/http/httptest":     "what only tests use belongs in _test.go files",
	"github.com/stretchr/":  "tests compare with go-cmp",
	"gopkg.in/yaml.":        "unmaintained, use go.yaml.in/yaml/v3",
	"github.com/goccy/":     "hangs on an alias bomb, use go.yaml.in/yaml/v3",
	"github.com/sirupsen/":  "use log/slog",
	"github.com/rs/zerolog": "use log/slog",
}

type pkg struct {
	ImportPath string
	Name       string
	Standard   bool
	Imports    []string
	Module     *struct{ Path string }
}

// TestLayers checks the imports of all packages against the layers, on every system that hacheck is built for.
func TestLayers(t *testing.T) {
	t.Parallel()
	for _, goos := range []string{"linux", "darwin", "freebsd"} {
		t.Run(goos, func(t *testing.T) {
			t.Parallel()
			for _, complaint := range checkLayers(listPackages(t, goos)) {
				t.Error(complaint)
			}
		})
	}
}

// TestLayersReportsViolations: checkLayers reports each kind of violation in an invented tree.
func TestLayersReportsViolations(t *testing.T) {
	ours := func(name string, imports ...string) pkg {
		for i, im := range imports {
			if strings.HasPrefix(im, "internal/") || strings.HasPrefix(im, "test/") {
				imports[i] = "hacheck/" + im
			}
		}
		p := pkg{ImportPath: "hacheck/" + name, Name: path.Base(name), Imports: imports}
		if strings.HasPrefix(name, "cmd/") {
			p.Name = "main"
		}
		return p
	}
	tests := []struct {
		name string
		tree []pkg
		want string // part of the one complaint; "" when all is well
	}{
		{"well", []pkg{ours("internal/health", "internal/spool"), ours("internal/spool")}, ""},
		{"up", []pkg{ours("internal/spool", "internal/health"), ours("internal/health")}, "internal/spool (layer 1) imports internal/health (layer 2)"},
		{"sideways", []pkg{ours("internal/proxy", "internal/agent"), ours("internal/agent")}, "internal/proxy (layer 5) imports internal/agent"},
		{"check knows no spool", []pkg{ours("internal/check", "internal/spool"), ours("internal/spool")}, "internal/check (layer 1) imports internal/spool"},
		{"no layer", []pkg{ours("internal/thing")}, "internal/thing is in no layer"},
		{"util", []pkg{ours("internal/spool/util")}, "says nothing"},
		{"yaml", []pkg{ours("internal/health", "go.yaml.in/yaml/v3")}, "internal/health imports go.yaml.in/yaml/v3"},
		{"config", []pkg{ours("internal/proxy", "internal/config"), ours("internal/config")}, "internal/proxy imports hacheck/internal/config"},
		{"wiring", []pkg{ours("cmd/hacheck", "github.com/acme/thing")}, "only does wiring"},
		{"etcd", []pkg{ours("internal/web", "go.etcd.io/etcd/client/v3")}, "internal/web imports go.etcd.io/etcd/client/v3"},
		{"pages know no etcd", []pkg{ours("internal/web", "internal/fleet/report", "internal/fleet"), ours("internal/fleet"), ours("internal/fleet/report")}, "internal/web (layer 5) imports internal/fleet (layer 6)"},
		{"driver", []pkg{
			ours("cmd/hadown", "internal/admin"), ours("internal/admin", "internal/spool"), ours("internal/spool", "example.com/driver"),
			{ImportPath: "example.com/driver", Module: &struct{ Path string }{"example.com/driver"}},
		}, "cmd/hadown -> internal/admin -> internal/spool -> example.com/driver"},
		{"net/http", []pkg{ours("cmd/haup", "internal/admin"), ours("internal/admin", "net/http"), {ImportPath: "net/http", Standard: true}}, "cmd/haup -> internal/admin -> net/http"},
		{"testing", []pkg{
			ours("cmd/hacheck", "internal/daemon"), ours("internal/daemon", "internal/check"), ours("internal/check", "testing"),
			{ImportPath: "testing", Standard: true},
		}, "cmd/hacheck -> internal/daemon -> internal/check -> testing"},
		{"checktest", []pkg{ours("cmd/hacheck", "test/checktest"), ours("test/checktest")}, "cmd/hacheck imports test/checktest"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := checkLayers(tt.tree)
			if tt.want == "" {
				if len(got) > 0 {
					t.Fatalf("complaints about a tree that is well: %q", got)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[0], tt.want) {
				t.Fatalf("got %q, want one complaint with %q", got, tt.want)
			}
		})
	}
}

// checkLayers returns the violations in the tree, one sentence each, with the reason of the rule.
func checkLayers(packages []pkg) []string {
	var complaints []string
	complain := func(format string, args ...any) {
		complaints = append(complaints, fmt.Sprintf(format, args...))
	}
	layer := map[string]int{}
	for i, names := range layers {
		for _, name := range names {
			layer[name] = i
		}
	}
	all := map[string]pkg{}
	for _, p := range packages {
		all[p.ImportPath] = p
	}

	for _, p := range packages {
		name, ours := strings.CutPrefix(p.ImportPath, "hacheck/")
		if !ours {
			continue
		}
		if slices.Contains([]string{"util", "utils", "common", "helpers", "misc"}, path.Base(name)) {
			complain("%s: this name says nothing; name a package for what it does", name)
			continue
		}
		if slices.Contains(outside, name) {
			continue
		}
		mine, known := layer[name]
		if !known {
			complain("%s is in no layer: say in test/layers_test.go which it belongs to and why", name)
			continue
		}
		for _, im := range p.Imports {
			if other, ok := strings.CutPrefix(im, "hacheck/"); ok {
				theirs, known := layer[other]
				switch {
				case slices.Contains(outside, other):
					complain("%s imports %s, which is for tests alone", name, other)
				case known && theirs >= mine:
					complain("%s (layer %d) imports %s (layer %d): imports go down only", name, mine, other, theirs)
				}
			}
			for _, r := range only {
				if strings.HasPrefix(im, r.module) && !slices.Contains(r.only, name) {
					complain("%s imports %s, which is for %s: %s", name, im, strings.Join(r.only, ", "), r.why)
				}
			}
		}
		if !strings.HasPrefix(name, "cmd/") {
			continue
		}
		if p.Name != "main" {
			complain("%s is package %s: under cmd there are commands only", name, p.Name)
		}
		for _, im := range p.Imports {
			first, _, _ := strings.Cut(im, "/")
			if strings.Contains(first, ".") {
				complain("%s imports %s: a command only does wiring; what it does lives below it, where it has tests", name, im)
			}
		}
		for _, dep := range slices.Sorted(maps.Keys(reachable(all, p.ImportPath))) {
			for bad, why := range never {
				if dep == bad || strings.HasPrefix(dep, bad) && strings.ContainsAny(bad[len(bad)-1:], "/.") {
					complain("%s: %s", chain(all, p.ImportPath, dep), why)
				}
			}
			if !slices.Contains(small, name) {
				continue
			}
			d := all[dep]
			switch {
			case slices.Contains(smallNever, dep):
				complain("%s: the small commands do without %s, it costs them milliseconds at every start", chain(all, p.ImportPath, dep), dep)
			case !d.Standard && d.Module != nil && !slices.Contains(smallModules, d.Module.Path):
				complain("%s: the small commands never link a driver, nor any module that is not in test/layers_test.go", chain(all, p.ImportPath, dep))
			}
		}
	}
	return complaints
}

// reachable returns every package that from links, with the importer on the shortest path.
func reachable(all map[string]pkg, from string) map[string]string {
	by := map[string]string{}
	queue := []string{from}
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		for _, im := range all[p].Imports {
			if _, seen := by[im]; !seen && im != from {
				by[im] = p
				queue = append(queue, im)
			}
		}
	}
	return by
}

// chain returns the import path by which from links to.
func chain(all map[string]pkg, from, to string) string {
	by := reachable(all, from)
	way := []string{to}
	for p := to; p != from; {
		p = by[p]
		way = append([]string{p}, way...)
	}
	for i, p := range way {
		way[i] = strings.TrimPrefix(p, "hacheck/")
	}
	return strings.Join(way, " -> ")
}

// listPackages returns every package of the module and everything it links on the given system.
func listPackages(t *testing.T, goos string) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps", "-json=ImportPath,Name,Standard,Imports,Module", "./...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var packages []pkg
	for dec := json.NewDecoder(out); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		packages = append(packages, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("go list: %v", err)
	}
	if !slices.ContainsFunc(packages, func(p pkg) bool { return p.ImportPath == "hacheck/internal/spool" }) {
		t.Fatal("go list does not know hacheck/internal/spool: is this the module?")
	}
	return packages
}
