package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hacheck/internal/config"
	"hacheck/test/servertest"
)

var generated struct {
	once sync.Once
	dir  string
	err  error
}

// documentedText returns the directory of the texts that packaging/generate makes from the commands.
func documentedText(t *testing.T) string {
	t.Helper()
	bin := filepath.Dir(bin(t, "hacheck"))
	generated.once.Do(func() {
		generated.dir = filepath.Join(bin, "texts") // removed with it
		cmd := exec.Command("go", "run", "-buildvcs=false", "./packaging/generate", "-bin", bin, "-out", generated.dir, "-version", "1.2.3", "-date", "2026-01-31")
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			generated.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if generated.err != nil {
		t.Fatal(generated.err)
	}
	return generated.dir
}

// helpPages returns the --help of every command and subcommand, by the name of its man page.
func helpPages(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	var ask func(words ...string)
	ask = func(words ...string) {
		out, err := exec.CommandContext(t.Context(), bin(t, words[0]), append(words[1:], "--help")...).Output()
		if err != nil {
			t.Fatalf("%v --help: %v", words, err)
		}
		pages[strings.Join(words, "-")] = string(out)
		// The subcommands come from the help, and not from the list that the generator uses.
		if len(words) > 2 {
			return
		}
		for _, sub := range []string{"aggregate", "balancer", "beacon", "run", "firewall", "export", "convert", "fleet", "status", "budget", "forget", "release", "leave", "join"} {
			if m, _ := regexp.MatchString(`(?m)^(Usage:| +) *`+strings.Join(words, " ")+` (\w+\|)*`+sub+`\b`, string(out)); m {
				ask(append(slices.Clone(words), sub)...)
			}
		}
	}
	for _, name := range commandNames {
		ask(name)
	}
	if len(pages) != len(commandNames)+15 {
		t.Errorf("there are pages for %d commands", len(pages))
	}
	return pages
}

var helpOption = regexp.MustCompile(`(?m)^  (?:-(\S), |    )--([a-z-]+)`)

// optionsIn returns the options in a --help, long and short, sorted.
func optionsIn(help string) (names []string) {
	for _, m := range helpOption.FindAllStringSubmatch(help, -1) {
		names = append(names, "--"+m[2])
		if m[1] != "" {
			names = append(names, "-"+m[1])
		}
	}
	slices.Sort(names)
	return names
}

// TestManPages: every command has a man page without groff warnings, with exactly the options of its --help, and with
// its exit codes.
func TestManPages(t *testing.T) {
	t.Parallel()
	dir := documentedText(t)
	for name, help := range helpPages(t) {
		section := "1"
		if strings.HasPrefix(name, "hacheck") {
			section = "8"
		}
		path := filepath.Join(dir, "man", "man"+section, name+"."+section)
		if out := mustOutput(t, "groff", "-ww", "-man", "-Tutf8", "-z", path); out != "" {
			t.Errorf("%s: %s", name, out)
		}
		text := mustOutput(t, "groff", "-man", "-Tascii", "-P-cbou", "-rLL=200n", path)
		_, options, _ := strings.Cut(text, "\nOPTIONS\n")
		options = regexp.MustCompile(`\n[A-Z]`).Split(options, 2)[0]
		var has []string
		for _, m := range regexp.MustCompile(`(?m)^ {7}(?:-(\S)(?: \S+)?, )?--([a-z-]+)`).FindAllStringSubmatch(options, -1) {
			has = append(has, "--"+m[2])
			if m[1] != "" {
				has = append(has, "-"+m[1])
			}
		}
		slices.Sort(has)
		if diff := cmp.Diff(optionsIn(help), has); diff != "" {
			t.Errorf("the options of %s (-help +page):\n%s", name, diff)
		}
		if strings.Contains(help, "Exit status:") != strings.Contains(text, "\nEXIT STATUS\n") {
			t.Errorf("the page of %s and its --help do not agree whether there is an exit status", name)
		}
		if !strings.Contains(text, "\nNAME\n       "+name+" - ") || strings.Contains(text, "%!") {
			t.Errorf("the page of %s begins %q", name, text[:200])
		}
		// The line that whatis and apropos show.
		if brief := regexp.MustCompile(`\nNAME\n.* - (.*)`).FindStringSubmatch(text); brief == nil || len(strings.Fields(brief[1])) < 5 {
			t.Errorf("the page of %s says of it no more than %q", name, brief)
		}
	}
	text := mustOutput(t, "groff", "-ww", "-man", "-Tascii", "-P-cbou", filepath.Join(dir, "man/man5/hacheck.yaml.5"))
	source, err := os.ReadFile("../internal/config/services.go")
	if err != nil {
		t.Fatal(err)
	}
	// No table lists the keys of a service. The call that suggests the nearest key has all of them.
	line := regexp.MustCompile(`l\.warnUnknown\(f\.line, f\.name, (.*)\)`).FindSubmatch(source)
	if line == nil {
		t.Fatal("internal/config/services.go has no call of warnUnknown that lists the keys of a service")
	}
	keys := regexp.MustCompile(`[a-z_]+`).FindAllString(string(line[1]), -1)
	for _, k := range append(config.Keys(), config.FleetKeys()...) {
		keys = append(keys, k.Name)
	}
	for _, k := range keys {
		if !strings.Contains(text, "\n       "+k) {
			t.Errorf("hacheck.yaml(5) says nothing of %s", k)
		}
	}
}

// TestCompletions runs the completions in real shells, with one service down.
func TestCompletions(t *testing.T) {
	t.Parallel()
	dir := documentedText(t)
	root := filepath.Join(t.TempDir(), "spool")
	other := filepath.Join(t.TempDir(), "other")
	mustOutput(t, bin(t, "hadown"), "--spool-root", root, "-r", "why", "web.example")
	mustOutput(t, bin(t, "hadown"), "--spool-root", other, "-r", "why", "other.example")
	spaced := filepath.Join(t.TempDir(), "a spool")
	mustOutput(t, bin(t, "hadown"), "--spool-root", spaced, "-r", "why", "spaced.example")
	// Wrappers in the PATH that use this spool.
	path := t.TempDir()
	for _, name := range []string{"hashowdowned", "halist"} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s --spool-root %s -p 127.0.0.1:1 \"$@\"\n", bin(t, name), root)
		if err := os.WriteFile(filepath.Join(path, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	shell := func(name string, args ...string) []string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), findTool(t, name), args...)
		cmd.Dir = t.TempDir() // shells complete the names of files, too
		cmd.Env = append(os.Environ(), "PATH="+path+":"+os.Getenv("PATH"), "HOME="+t.TempDir(), "TERM=dumb")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		words := []string{}
		for line := range strings.Lines(string(out)) {
			w, _, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
			words = append(words, w)
		}
		slices.Sort(words)
		return slices.Compact(words)
	}
	complete := map[string]func(words ...string) []string{
		"bash": func(words ...string) []string {
			return shell("bash", append([]string{
				"-c", `source "$0"; COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _hacheck; [ ${#COMPREPLY[@]} = 0 ] || printf '%s\n' "${COMPREPLY[@]}"`,
				filepath.Join(dir, "completions/bash/hacheck"),
			}, words...)...)
		},
		"fish": func(words ...string) []string {
			return shell("fish", "--no-config", "-c", fmt.Sprintf("source %s; complete -C '%s'", filepath.Join(dir, "completions/fish", words[0]+".fish"), strings.ReplaceAll(strings.Join(words, " "), "'", `\'`)))
		},
	}
	pages := helpPages(t)
	for name, complete := range complete {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for page, help := range pages {
				words := strings.Split(page, "-")
				if diff := cmp.Diff(optionsIn(help), union(complete(append(slices.Clone(words), "-")...), complete(append(words, "--")...)), cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("the options of %s (-help +completion):\n%s", page, diff)
				}
			}
			for _, test := range []struct {
				words []string
				want  []string
			}{
				{[]string{"haup", ""}, []string{"all", "web.example"}},
				{[]string{"hadown", "w"}, []string{"web.example"}},
				{[]string{"hastatus", "--action", "status"}, []string{"status", "status_downed"}},
				{[]string{"haup", "--spool-root", other, ""}, []string{"all", "other.example"}},
				{[]string{"haup", "--spool-root=" + other, "-p", "127.0.0.1:2", ""}, []string{"all", "other.example"}},
				{[]string{"hadown", "-p1", "--drain", "--spool-root", other, "o"}, []string{"other.example"}},
				{[]string{"hacheck", "firewall", "convert", "-t", "n"}, []string{"neutron", "nftables", "nova"}},
				{[]string{"hadown", "--wait", "w"}, []string{"web.example"}},
				{[]string{"hadown", "--spool-root", "'" + spaced + "'", "s"}, []string{"spaced.example"}},
				{[]string{"hacheck", "fire"}, []string{"firewall"}},
				{[]string{"hacheck", "balancer", ""}, []string{"forget"}},
				{[]string{"hacheck", "fleet", "re"}, []string{"release"}},
				{[]string{"hacheck", "firewall", "c"}, []string{"convert"}},
				{[]string{"hacheck", "run", "--output", "j"}, []string{"json", "junit"}},
			} {
				if diff := cmp.Diff(test.want, complete(test.words...)); diff != "" {
					t.Errorf("%q (-want +got):\n%s", test.words, diff)
				}
			}
			// In bash, = is a word of its own.
			if name == "bash" {
				for _, words := range [][]string{{"hadown", "--wait", "="}, {"hadown", "--wait", "=", "w"}, {"haup", "--weight", "="}, {"hacheck", "balancer", "forget", ""}} {
					if got := complete(words...); len(got) > 0 {
						t.Errorf("%q: %q, want nothing", words, got)
					}
				}
				if got := complete("hacheck", "firewall", "convert", "--type", "=", "n"); len(got) != 3 {
					t.Errorf("the types that begin with n are %q", got)
				}
			}
		})
	}
	t.Run("zsh", func(t *testing.T) {
		t.Parallel()
		script := filepath.Join(dir, "completions/zsh/_hacheck")
		mustOutput(t, "zsh", "-n", script)
		b, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for page, help := range pages {
			_, function, _ := strings.Cut(string(b), "\n_hacheck_"+strings.ReplaceAll(page, "-", "_")+"() {\n")
			function, _, _ = strings.Cut(function, "\n}\n")
			var has []string
			for _, m := range regexp.MustCompile(`(?m)^\t\t'\*?(--?[A-Za-z-]+?)[+=]?-?\[`).FindAllStringSubmatch(function, -1) {
				has = append(has, m[1])
			}
			slices.Sort(has)
			if diff := cmp.Diff(optionsIn(help), has, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("the options of %s (-help +completion):\n%s", page, diff)
			}
		}
	})
}

// union returns the options in a and b, sorted and without duplicates.
func union(a, b []string) (all []string) {
	for _, w := range append(a, b...) {
		if strings.HasPrefix(w, "-") {
			all = append(all, w)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestConfigFile: the configuration file of the packages is valid, documents the defaults, and has every key.
func TestConfigFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(documentedText(t), "hacheck.yaml")
	mustOutput(t, bin(t, "hacheck"), "--check-config", "-c", path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	load := func(comment string) *config.Config {
		t.Helper()
		file := filepath.Join(t.TempDir(), "hacheck.yaml")
		if err := os.WriteFile(file, regexp.MustCompile(comment).ReplaceAll(b, []byte("$1")), 0o644); err != nil {
			t.Fatal(err)
		}
		c, warnings, err := config.Load(file)
		if err != nil || len(warnings) > 0 {
			t.Fatalf("%v, %v", warnings, err)
		}
		return c
	}
	equal := cmp.Exporter(func(reflect.Type) bool { return true })
	if diff := cmp.Diff(config.Default(), load(`(?m)^#([a-z])`), equal); diff != "" {
		t.Errorf("the commented values are not the defaults (-default +file):\n%s", diff)
	}
	if services := load(`(?m)^#([a-z]|  )`).Services; len(services) != 1 || len(services[0].Checks) != 2 {
		t.Errorf("the example of a service is %+v", services)
	}
	if f := load(`(?m)^#([a-z]|  )`).Fleet; f == nil || len(f.Endpoints) != 3 {
		t.Errorf("the example of a fleet is %+v", f)
	}
	for _, k := range config.Keys() {
		if !strings.Contains(string(b), "\n#"+k.Name+":") {
			t.Errorf("it has no %s", k.Name)
		}
	}
}

// TestSuggestedPackages: no package installs HAProxy, which would start on every backend host. apt installs what a
// package recommends.
func TestSuggestedPackages(t *testing.T) {
	t.Parallel()
	text := readFile(t, "../packaging/nfpm.yaml")
	if m := regexp.MustCompile(`(?m)^ *(recommends|depends):.*`).FindString(text); m != "" {
		t.Errorf("the packages pull in others: %s", m)
	}
	if !strings.Contains(text, "\n    suggests: [haproxy]\n") {
		t.Error("the deb does not suggest haproxy")
	}
}

// TestUnits: systemd-analyze rates the exposure of the unit at 3.0 or less. In the journal a stack trace, and a command of
// the unit that prevents the start, is an error.
func TestUnits(t *testing.T) {
	t.Parallel()
	if !strings.Contains(readFile(t, "../packaging/systemd/hacheck.service"), "\nSyslogLevel=err\n") {
		t.Error("a line without a priority is no error")
	}
	mustOutput(t, "systemd-analyze", "security", "--offline=true", "--threshold=30", "../packaging/systemd/hacheck.service")
}

// TestHAProxyExample: HAProxy accepts the example.
func TestHAProxyExample(t *testing.T) {
	t.Parallel()
	servertest.CheckHAProxyNames(t, readFile(t, "../packaging/haproxy.cfg"))
	if out := mustOutput(t, servertest.FindHAProxy(t), "-c", "-f", "../packaging/haproxy.cfg"); strings.Contains(out, "WARN") {
		t.Error(out)
	}
}
