package config

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"hacheck/internal/check"
)

// types is what a message lists that grows with every new type of check.
var types = regexp.MustCompile(`expected one of [a-z, -]+, got`)

// TestBadChecks loads every file of testdata/checks and compares what is said about it with the .err file
// beside it. A new case is a new file and a run with -update.
func TestBadChecks(t *testing.T) {
	for _, file := range files(t, "testdata/checks") {
		t.Run(file, func(t *testing.T) {
			t.Chdir("testdata/checks")
			checks, _, err := LoadChecks(file, nil, check.Defaults{})
			if errs := Errors(nil); !errors.As(err, &errs) || len(errs) == 0 || checks != nil {
				t.Fatalf("LoadChecks = %v, %v (%T); want Errors and no checks", checks, err, err)
			}
			if strings.Contains(err.Error(), secretText) {
				t.Errorf("a secret shows in: %s", err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".err", types.ReplaceAllString(err.Error(), "expected one of TYPES, got")+"\n")
		})
	}
}

func TestLoadChecks(t *testing.T) {
	const text = `%YAML 1.1
---
- {type: tcp, host: db, port: 5432, timeout: 2.5, tags: [a, 1, yes]}
- &web
  type: tcp
  host: 2001:db8::1
  port: 80
  tags: x
- <<: *web
  port: 443
- <<: [{port: 81}, *web]
  timeout: 3
  tags:
- *web
`
	checks, _, err := LoadChecks("-", strings.NewReader(text), check.Defaults{Timeout: 7 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range checks {
		got = append(got, fmt.Sprintln(c.Type, c.Name, c.Tags, c.Timeout, c.Endpoint))
	}
	want := []string{
		"tcp tcp:db:5432 [a 1 yes] 2.5s {tcp db 5432}\n",
		"tcp tcp:2001:db8::1:80 [x] 7s {tcp 2001:db8::1 80}\n",
		"tcp tcp:2001:db8::1:443 [x] 7s {tcp 2001:db8::1 443}\n",
		"tcp tcp:2001:db8::1:81 [] 3s {tcp 2001:db8::1 81}\n",
		"tcp tcp:2001:db8::1:80 [x] 7s {tcp 2001:db8::1 80}\n",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if checks, _, err := LoadChecks("-", strings.NewReader("[]"), check.Defaults{}); err != nil || len(checks) != 0 {
		t.Errorf("an empty list: %v, %v", checks, err)
	}
}

// TestEverySecretIsHidden: whatever a type calls secret shows in no message, of any kind of mistake.
func TestEverySecretIsHidden(t *testing.T) {
	for _, typ := range check.Types() {
		for _, o := range typ.Options {
			if !o.Secret {
				continue
			}
			for _, value := range []string{"hunter2", "[hunter2]", "{hunter2: hunter2}", "!hunter2 x", "&hunter2", "*hunter2", "!!int hunter2", "[[hunter2, *hunter2]]"} {
				_, _, err := LoadChecks("-", strings.NewReader(fmt.Sprintf("- {type: %s, %s: %s}", typ.Name, o.Name, value)), check.Defaults{})
				if err != nil && strings.Contains(err.Error(), secretText) {
					t.Errorf("%s of %s as %s: %v", o.Name, typ.Name, value, err)
				}
			}
		}
	}
}

func decodeValue(t *testing.T, text string, secret bool) (any, Errors) {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	d := decoder{loader: &loader{file: "f"}}
	v := d.value(entry{"x", 1, doc.Content[0]}, doc.Content[0], secret, 1)
	return v, d.errs
}

func TestValues(t *testing.T) {
	for _, test := range []struct {
		text string
		want any
	}{
		{"80", 80},
		{"-1", -1},
		{"1.5", 1.5},
		{"1e-06", 1e-06},
		{"yes", true},
		{"Off", false},
		{"TRUE", true},
		{"y", "y"},
		{"n", "n"},
		{`"yes"`, "yes"},
		{"'80'", "80"},
		{"|\n  yes", "yes"},
		{"!!str yes", "yes"},
		{"!!bool yes", true},
		{"!!int 80", 80},
		{"!!int x", "x"},
		{`!!int "80"`, 80},
		{`!!float "1.5"`, 1.5},
		// What YAML 1.1 makes another number of, or what would not be written as it was.
		{"0123", "0123"},
		{"0x10", "0x10"},
		{"1:30", "1:30"},
		{"+5", "+5"},
		{"1_000", "1_000"},
		{".5", ".5"},
		{"1.10", "1.10"},
		{"1e01", "1e01"},
		{"1_000.5", "1_000.5"},
		{".inf", ".inf"},
		{".nan", ".nan"},
		{"1e999", "1e999"},
		{"12345678901234567890", "12345678901234567890"},
		{"2001-01-01", "2001-01-01"},
		{"0", 0},
		{"00", "00"},
		{"~", nil},
		{"", nil},
		{"null", nil},
		{`""`, ""},
		{"[1, [a, yes], {b: 2}]", []any{1, []any{"a", true}, map[string]any{"b": 2}}},
		{"{1: a, yes: b, c: ~}", map[string]any{"1": "a", "yes": "b", "c": nil}},
		// Python 2 writes these tags.
		{"!!python/unicode 'shop'", "shop"},
		{"!!python/str 'yes'", "yes"},
		{"!!python/long '5432'", "5432"},
		{"!!python/tuple [a, 1]", []any{"a", 1}},
		{"{<<: {a: 1, b: 2}, b: 3}", map[string]any{"a": 1, "b": 3}},
		{"[&a {x: 1}, *a]", []any{map[string]any{"x": 1}, map[string]any{"x": 1}}},
	} {
		if test.text == "" {
			test.text = "~"
		}
		got, errs := decodeValue(t, test.text, false)
		if d := cmp.Diff(test.want, got); d != "" || errs != nil {
			t.Errorf("%s: %v\n%s", test.text, errs, d)
		}
	}
	for text, want := range map[string]any{"0123": "0123", "yes": "yes", "1.50": "1.50", "~": nil, "[u, 007]": []any{"u", "007"}} {
		if got, errs := decodeValue(t, text, true); cmp.Diff(want, got) != "" || errs != nil {
			t.Errorf("secret %s: %#v, %v; want %#v", text, got, errs, want)
		}
	}
}

// processorTime returns how long this process has been on a processor. Unlike the time of day it does not depend on
// what else the machine does.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// TestHostileChecks: files that are small and that a reader may take long over, or that stand for more
// than fits into memory.
func TestHostileChecks(t *testing.T) {
	const size = maxFile - 100
	bomb := "- &a0 [x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 15; i++ {
		bomb += fmt.Sprintf("- &a%d [%s]\n", i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	wide := "- &m {type: tcp, " + strings.TrimSuffix(numbered(size/2), "\n")
	wide = strings.ReplaceAll(wide, "\n", ", ") + "}\n"
	for name, text := range map[string]string{
		"bomb":           bomb + "- {type: tcp, host: *a14, port: 1}\n",
		"merge bomb":     wide + strings.Repeat("- <<: *m\n", size/20),
		"merge list":     wide + "- <<: [" + strings.Repeat("*m,", size/8) + "*m]\n",
		"repeated":       "- &a {type: tcp, host: a, port: 80, x: 1}\n" + strings.Repeat("- *a\n", size/6),
		"nested lists":   strings.Repeat("[", size),
		"dashes":         strings.Repeat("- ", size/2),
		"deep value":     "- {type: tcp, host: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "}",
		"many options":   wide,
		"many checks":    strings.Repeat("- {}\n", size/5),
		"one long value": "- " + strings.Repeat("a", size),
		"one long type":  "- type: " + strings.Repeat("a", size),
		"one long name":  "- {type: tcp, " + strings.Repeat("a", 1000) + ": 1}",
		"nested merges":  "- " + strings.Repeat("{<<: ", 5000) + "{}" + strings.Repeat("}", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			began := processorTime(t)
			_, _, err := LoadChecks("-", strings.NewReader(text), check.Defaults{})
			if err == nil {
				t.Fatal("no error")
			}
			if took := processorTime(t) - began; took > 10*time.Second {
				t.Errorf("took %v of a processor", took)
			}
			if len(err.Error()) > 20_000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func FuzzLoadChecks(f *testing.F) {
	for _, file := range files(f, "testdata/checks") {
		data, err := os.ReadFile(filepath.Join("testdata/checks", file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("- &a {type: tcp, host: a, port: 1, tags: [a]}\n- {<<: *a, port: 2, timeout: 1.5}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		checks, _, err := LoadChecks("-", bytes.NewReader(data), check.Defaults{})
		var errs Errors
		if err != nil && (!errors.As(err, &errs) || len(errs) == 0 || checks != nil) {
			t.Fatalf("LoadChecks = %v, %v (%T)", checks, err, err)
		}
		lines := 1
		for _, end := range []string{"\n", "\r", "\u2028", "\u2029", "\u0085"} {
			lines += bytes.Count(data, []byte(end))
		}
		for _, e := range errs {
			if strings.ContainsAny(e.Text+e.Key, "\n\r\x1b") || e.Line > lines {
				t.Errorf("%q", e.Error())
			}
		}
		for _, c := range checks {
			if c == nil || c.Timeout <= 0 || len(c.Steps) == 0 || math.IsInf(c.Timeout.Seconds(), 0) {
				t.Errorf("%+v", c)
			}
		}
	})
}

func TestRules(t *testing.T) {
	rules := []FirewallRule{
		{"web1.example.com", "2001:db8::1", "udp", []uint16{53, 65535}},
		{"no", "null", "tcp", []uint16{1}},
		{"1.5", "10.0.0.1", "tcp", []uint16{}},
	}
	for _, rules := range [][]FirewallRule{rules, {}} {
		var b bytes.Buffer
		if err := WriteFirewallRules(&b, rules); err != nil {
			t.Fatal(err)
		}
		got, err := LoadFirewallRules("-", &b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(rules, got); d != "" {
			t.Error(d)
		}
	}
	// conn-check wrote this, by way of PyYAML, in either style.
	got, err := LoadFirewallRules("-", strings.NewReader(`egress:
- from_host: mydevmachine
  ports: [8080]
  protocol: udp
  to_host: localhost
- {from_host: mydevmachine, ports: [80, 443], protocol: tcp, to_host: login.ubuntu.com}
`))
	want := []FirewallRule{{"mydevmachine", "localhost", "udp", []uint16{8080}}, {"mydevmachine", "login.ubuntu.com", "tcp", []uint16{80, 443}}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(err, d)
	}
}

func FuzzLoadRules(f *testing.F) {
	f.Add([]byte("egress:\n- {from_host: a, to_host: b, ports: [1, 2], protocol: tcp}\n"))
	f.Add([]byte("egress: [{to_host: $(x), ports: [0], protocol: icmp}]\n"))
	f.Add([]byte("egress: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rules, err := LoadFirewallRules("-", bytes.NewReader(data))
		if err != nil {
			if rules != nil || strings.ContainsAny(types.ReplaceAllString(err.Error(), ""), "\r\x1b") {
				t.Errorf("%v, %q", rules, err)
			}
			return
		}
		for _, r := range rules {
			if !isHost(r.ToHost) || r.Protocol != "tcp" && r.Protocol != "udp" {
				t.Errorf("no rule: %+v", r)
			}
		}
		var b bytes.Buffer
		if err := WriteFirewallRules(&b, rules); err != nil {
			t.Fatal(err)
		}
		again, err := LoadFirewallRules("-", &b)
		if d := cmp.Diff(len(rules), len(again)); d != "" || err != nil {
			t.Errorf("%v %s", err, d)
		}
		for i, r := range again {
			if d := cmp.Diff(rules[i], r); d != "" {
				t.Error(d)
			}
		}
	})
}
