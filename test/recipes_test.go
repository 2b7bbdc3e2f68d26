package test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// These tests run the blocks of docs/haproxy.md that follow a line <!-- recipe: NAME -->. Every block with a configuration
// or a script must have such a line. The tests only change addresses, ports and the check interval.

const haproxyPage = "../docs/haproxy.md"

// recipe is one block of the page.
type recipe struct {
	line           int
	language, text string
}

// recipes returns the blocks of the page by name.
func recipes(t testing.TB) map[string]recipe {
	t.Helper()
	page, err := os.ReadFile(haproxyPage)
	if err != nil {
		t.Fatal(err)
	}
	found, err := recipesOf(string(page))
	if err != nil {
		t.Fatalf("%s: %v", haproxyPage, err)
	}
	return found
}

var recipeMarker = regexp.MustCompile(`^<!-- recipe: (.+) -->$`)

func recipesOf(page string) (map[string]recipe, error) {
	found := map[string]recipe{}
	name, fenced := "", false
	var r recipe
	n := 0
	for line := range strings.Lines(page) {
		n++
		line = strings.TrimRight(line, "\n")
		switch {
		case fenced && line == "```":
			if _, twice := found[name]; twice {
				return nil, fmt.Errorf("line %d: there are two recipes %q", r.line, name)
			}
			found[name], fenced, name = r, false, ""
		case fenced:
			r.text += line + "\n"
		case strings.HasPrefix(line, "```"):
			if name == "" {
				return nil, fmt.Errorf("line %d: a block that is no recipe, and so is not tested", n)
			}
			r, fenced = recipe{line: n, language: line[3:]}, true
		case name != "":
			return nil, fmt.Errorf("line %d: recipe %q has no block right behind it", n, name)
		default:
			if m := recipeMarker.FindStringSubmatch(line); m != nil {
				name = m[1]
			}
		}
	}
	if fenced || name != "" {
		return nil, errors.New("the last recipe is not closed")
	}
	return found, nil
}

// TestRecipesOf tests the parser of the page.
func TestRecipesOf(t *testing.T) {
	t.Parallel()
	got, err := recipesOf("a\n<!-- recipe: one -->\n```sh\nx\n  y\n```\nb\n")
	if want := (map[string]recipe{"one": {3, "sh", "x\n  y\n"}}); err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for page, want := range map[string]string{
		"```sh\nx\n```\n":                                   "is not tested",
		"<!-- recipe: one -->\n\n```sh\nx\n```\n":           "right behind",
		"<!-- recipe: one -->\n```sh\nx\n":                  "not closed",
		strings.Repeat("<!-- recipe: a -->\n```\n```\n", 2): "two recipes",
	} {
		if _, err := recipesOf(page); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", page, err, want)
		}
	}
}

// recipeSetup is the setup that the page describes: two servers with a service, hacheck and its agent.
type recipeSetup struct {
	t                     *testing.T
	hosts                 []*host
	service, other, front int // ports
	replacer              *strings.Replacer
}

// startRecipeSetup starts the hachecks, with the options of a line "hacheck ..." of the page, and the services.
func startRecipeSetup(t *testing.T, line string) *recipeSetup {
	t.Helper()
	agent := freePort(t)
	args := strings.Fields(line)
	if len(args) > 0 && args[0] != "hacheck" {
		t.Fatalf("%q does not start hacheck", line)
	}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "3334", strconv.Itoa(agent))
	}
	s := newRecipeSetup(t, startHosts(t, 2, "cache_time: 0\n", args[min(1, len(args)):]...), agent)
	s.startServices()
	return s
}

// startServices starts the services.
func (s *recipeSetup) startServices() {
	s.t.Helper()
	for i, h := range s.hosts {
		startBlockingService(s.t, h.ip, s.service, fmt.Sprintf("web%d", i+1))
		startBlockingService(s.t, h.ip, s.other, "api")
	}
}

// newRecipeSetup returns a setup on hosts whose hachecks run, without services.
func newRecipeSetup(t *testing.T, both []*host, agent int) *recipeSetup {
	s := &recipeSetup{t: t, hosts: both, service: freePort(t), other: freePort(t), front: freePort(t)}
	s.replacer = strings.NewReplacer(
		"10.0.0.5:", "127.0.0.1:", "10.0.0.6:", "127.0.0.2:", "8080", strconv.Itoa(s.service), "8081", strconv.Itoa(s.other),
		"3333", strconv.Itoa(both[0].port), "3334", strconv.Itoa(agent), "inter 2s", "inter 200ms",
	)
	return s
}

// startHAProxy starts HAProxy with a recipe and a frontend to its first backend.
func (s *recipeSetup) startHAProxy(r recipe, front int, lines ...string) *haproxy {
	s.t.Helper()
	if r.language != "haproxy" {
		s.t.Fatalf("line %d is not HAProxy's", r.line)
	}
	mode := "http"
	if strings.Contains(r.text, "mode tcp") {
		mode = "tcp"
	}
	return startHAProxy(s.t, fmt.Sprintf(`
%s
defaults
    mode http
    timeout connect 5s
    timeout client 90s
    timeout server 90s
frontend front
    mode %s
    bind 127.0.0.1:%d
    default_backend %s
%s`, strings.Join(lines, "\n"), mode, front, strings.Fields(r.text)[1], s.replacer.Replace(r.text)))
}

// setups has the HAProxy recipes: the recipe with the command line of hacheck, the service, and the first server.
var setups = map[string]struct {
	hacheck string // the recipe with its command line
	service string
	server  string
}{
	"check":      {"", "web", "web/web1"},
	"send-state": {"", "web", "web/web1"},
	"drain":      {"", "web", "web/web1"},
	"agent":      {"agent's hacheck", "web", "web/web1"},
	"agent -S":   {"agent -S's hacheck", "web", "web/web1"},
	"tcp":        {"", "db", "db/db1"},
	"several":    {"agent's hacheck", "api", "api/api1"},
}

// testedAlone are HAProxy recipes with a test of their own: they need more than two services.
var testedAlone = map[string]bool{"grpc": true, "check-send-proxy": true, "check-ssl": true, "databases": true, "galera": true, "weight": true}

// TestRecipes: HAProxy does what the page says, with each recipe.
func TestRecipes(t *testing.T) {
	t.Parallel()
	all := recipes(t)
	for name, r := range all {
		if _, ok := setups[name]; r.language == "haproxy" && !ok && !testedAlone[name] {
			t.Errorf("%s:%d: recipe %q is not tested", haproxyPage, r.line, name)
		}
	}
	states := statesShown(t)
	var list []subtest
	for name, setup := range setups {
		list = append(list, subtest{name, func(t *testing.T) {
			s := startRecipeSetup(t, all[setup.hacheck].text)
			lb := s.startHAProxy(all[name], s.front)
			one := s.hosts[0]
			lb.waitForStates(map[string]string{setup.server: "UP"})
			other := setup.server[:len(setup.server)-1] + "2"
			weight := lb.statByServer()[setup.server]["weight"]

			// The rows of the table of states, or up and down for a recipe without rows.
			rows := states[name]
			if rows == nil {
				rows = [][2]string{{"haup web", "UP"}, {"hadown web", map[bool]string{true: "DOWN (agent)", false: "DOWN"}[setup.hacheck != ""]}, {"haup web", "UP"}}
			}
			for _, row := range rows {
				command := strings.Fields(row[0])
				command[len(command)-1] = setup.service
				one.mustRunCommand(command[0], command[1:]...)
				lb.waitForStates(map[string]string{setup.server: row[1], other: "UP"})
				if w := lb.statByServer()[setup.server]["weight"]; w != weight {
					t.Errorf("%s: weight %s, want %s as before", row[0], w, weight)
				}
				// A drain needs a server that is up, so each row begins with one.
				one.mustRunCommand("haup", setup.service)
				lb.waitForStates(map[string]string{setup.server: "UP", other: "UP"})
			}
			one.mustRunCommand("hadown", "all", "-r", "the host")
			lb.waitForStates(map[string]string{setup.server: rows[1][1], other: "UP"})
			one.mustRunCommand("haup", "all")
			lb.waitForStates(map[string]string{setup.server: "UP"})

			b := one.balancerReport(setup.service).Balancers
			if name != "check" && (len(b) != 1 || b[0].Server != setup.server || b[0].Sessions == nil) {
				t.Errorf("hacheck knows %+v, want one row with the sessions of %s", b, setup.server)
			}
		}})
	}
	runSubtests(t, list)
}

// statesShown returns the page's table of states in HAProxy: by recipe, pairs of a command and a state.
func statesShown(t testing.TB) map[string][][2]string {
	t.Helper()
	page, err := os.ReadFile(haproxyPage)
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "<!-- states -->\n")
	table, _, _ = strings.Cut(table, "\n\n")
	states := map[string][][2]string{}
	var names []string
	for i, line := range strings.Split(table, "\n") {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for j := range cells {
			cells[j] = strings.Trim(cells[j], " `")
		}
		switch {
		case i == 0:
			names = cells
		case i > 1:
			for j, name := range names[1:] {
				states[name] = append(states[name], [2]string{cells[0], cells[j+1]})
			}
		}
	}
	if len(states) != 5 || len(states["agent"]) != 5 {
		t.Fatalf("the table of states is not what it was: %q", states)
	}
	return states
}

// TestRecipeAgentListen: with agent_listen, HAProxy needs no agent-send.
func TestRecipeAgentListen(t *testing.T) {
	t.Parallel()
	all := recipes(t)
	agent := freePort(t)
	config := strings.ReplaceAll(all["agent_listen"].text, "0.0.0.0:3334", fmt.Sprintf("127.0.0.1:%d", agent))
	one := startHosts(t, 1, config)[0]
	startBlockingService(t, one.ip, agent+1, "web")
	lb := startHAProxy(t, fmt.Sprintf(`
backend web
    server web1 127.0.0.1:%d check agent-check agent-port %d agent-inter 200ms
`, agent+1, agent))
	one.mustRunCommand("hadown", "web", "-r", "memory")
	lb.waitForStates(map[string]string{"web/web1": "DOWN (agent)"})
	one.mustRunCommand("haup", "web")
	lb.waitForStates(map[string]string{"web/web1": "UP"})
}

// TestRecipeInstance: an agent check of an instance gets the overrides of that instance.
func TestRecipeInstance(t *testing.T) {
	t.Parallel()
	all := recipes(t)
	s := startRecipeSetup(t, all["agent's hacheck"].text)
	lb := s.startHAProxy(all["several"], s.front)
	lb.waitForStates(map[string]string{"web/web1": "UP", "api/api1": "UP"})
	s.hosts[0].mustRunCommand("hadown", "api", "-P", strconv.Itoa(s.other), "--maint", "-r", "memory")
	lb.waitForStates(map[string]string{"web/web1": "UP", "api/api1": "MAINT", "api/api2": "UP"})
}

// testKubernetes: the preStop command drains the server.
func testKubernetes(t *testing.T, both []*host, agent int) {
	all := recipes(t)
	var pod struct {
		Spec struct {
			Containers []struct {
				Lifecycle struct {
					PreStop struct {
						Exec struct{ Command []string }
					} `yaml:"preStop"`
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(all["kubernetes"].text), &pod); err != nil {
		t.Fatal(err)
	}
	command := pod.Spec.Containers[0].Lifecycle.PreStop.Exec.Command
	command[len(command)-1] = "pod"
	r := all["drain"]
	r.text = strings.ReplaceAll(r.text, "/http/web/", "/http/pod/") // another test uses web
	s := newRecipeSetup(t, []*host{both[0].forTest(t), both[1].forTest(t)}, agent)
	s.startServices()
	lb := s.startHAProxy(r, s.front)
	lb.waitForStates(map[string]string{"web/web1": "UP", "web/web2": "UP"})
	s.hosts[0].mustRunCommand(command[0], command[1:]...)
	lb.waitForStates(map[string]string{"web/web1": "NOLB", "web/web2": "UP"})
}
