package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// secretText is in every test file that has a secret, and may be in no message.
const secretText = "hunter2"

// TestBad loads every file of testdata/bad and compares what is said about it with the .err file beside
// it. A new case is a new file and a run with -update.
func TestBad(t *testing.T) {
	for _, file := range files(t, "testdata/bad") {
		t.Run(file, func(t *testing.T) {
			t.Chdir("testdata/bad")
			c, warnings, err := Load(file)
			if err == nil || c != nil {
				t.Fatalf("Load = %+v, %v; want an error and no Config", c, err)
			}
			if errs := Errors(nil); !errors.As(err, &errs) || len(errs) == 0 {
				t.Errorf("the error is %T, want Errors", err)
			}
			said := say(warnings) + err.Error() + "\n"
			if strings.Contains(said, secretText) {
				t.Errorf("a secret shows in: %s", said)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".err", said)
		})
	}
}

// TestGood loads every file of testdata/good and compares its warnings and the settings that differ from
// the defaults with the .want file beside it.
func TestGood(t *testing.T) {
	for _, file := range files(t, "testdata/good") {
		t.Run(file, func(t *testing.T) {
			t.Chdir("testdata/good")
			c, warnings, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			said := say(warnings) + differs(c)
			if strings.Contains(said, secretText) {
				t.Errorf("a secret shows in: %s", said)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".want", said)
		})
	}
}

func TestEveryKeyIsTested(t *testing.T) {
	c, warnings, err := Load("testdata/good/every-key.yaml")
	if err != nil || warnings != nil {
		t.Fatal(err, warnings)
	}
	v, d := reflect.ValueOf(c).Elem(), reflect.ValueOf(Default()).Elem()
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; name != "HTTPHeadersToCopy" && reflect.DeepEqual(v.Field(i).Interface(), d.Field(i).Interface()) {
			t.Errorf("%s has its default after a file that sets every key", name)
		}
	}
	if n := len(Keys()); n != v.NumField() {
		t.Errorf("%d keys for %d fields of Config", n, v.NumField())
	}
	for _, got := range []string{c.MySQLPassword.Reveal(), c.RedisPassword.Reveal(), c.RemoteSpoolToken.Reveal()} {
		if got != secretText && got != "0123" && got != "t0ken" {
			t.Errorf("a secret came out as %q", got)
		}
	}
}

// TestDefaultsAsDocumented writes the documented defaults into a file: it must change nothing.
func TestDefaultsAsDocumented(t *testing.T) {
	var b strings.Builder
	for _, k := range Keys() {
		if k.Default == "" && !k.mayBeEmpty {
			t.Errorf("%s has neither a default nor none", k.Name)
		}
		if k.Want == "" || k.Doc == "" || strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%s is not documented as the others are", k.Name)
		}
		fmt.Fprintf(&b, "%s: %s\n", k.Name, k.Default)
	}
	c, _, err := Load(write(t, b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if got := differs(c); got != "" {
		t.Errorf("the documented defaults are not the defaults:\n%s", got)
	}
}

func TestNoFile(t *testing.T) {
	dir := t.TempDir()
	fifo, large, unreadable := filepath.Join(dir, "fifo"), filepath.Join(dir, "large"), filepath.Join(dir, "unreadable")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(large)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(1<<30), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(unreadable, unreadable); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, path, want string }{
		{"missing", filepath.Join(dir, "missing"), "no such file or directory"},
		{"directory", dir, "expected a file, got a directory"},
		{"below a file", large + "/x", "not a directory"},
		{"fifo", fifo, "expected a regular file, got a pipe, socket or device"},
		{"device", "/dev/zero", "expected a regular file, got a pipe, socket or device"},
		{"1 GiB", large, "expected a configuration file of at most 1 MiB, got a larger one"},
		{"loop", unreadable, "too many levels of symbolic links"},
	} {
		t.Run(test.name, func(t *testing.T) {
			began := time.Now()
			c, _, err := Load(test.path)
			if want := test.path + ": " + test.want; c != nil || err == nil || err.Error() != want {
				t.Errorf("Load = %v, %v; want error %s", c, err, want)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	if c, _, err := Load(os.DevNull); err != nil || differs(c) != "" {
		t.Errorf("%s: %v; want the defaults", os.DevNull, err)
	}
}

// TestHostile: files that are small and that a parser may take long over.
func TestHostile(t *testing.T) {
	const size = maxFile - 100
	for name, text := range map[string]string{
		"nested lists":    strings.Repeat("[", size),
		"nested mappings": strings.Repeat("{a: ", size/4),
		"indents":         indents(size),
		"anchors":         "a: " + strings.Repeat("&a [", size/4),
		"keys":            strings.Repeat("a: 1\n", size/5),
		"unknown keys":    numbered(size),
		"one long key":    strings.Repeat("a", size) + ": 1",
		"one long value":  "log_format: " + strings.Repeat("a", size),
		"long list":       "check_hosts_allowed: [" + strings.Repeat("1.2.3.4,", size/8-10) + "]",
		"aliases":         "a: &a [x]\nb: [" + strings.Repeat("*a,", size/3-20) + "]",
		"quotes":          "a: \"" + strings.Repeat(`\"`, size/2),
		"comments":        strings.Repeat("# x\n", size/4),
		"question marks":  strings.Repeat("? ", size/2),
		"dashes":          strings.Repeat("- ", size/2),
		"documents":       strings.Repeat("---\n", size/4),
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, text)
			began := time.Now()
			_, warnings, err := Load(path)
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
			if n := len(say(warnings)); n > 10_000 {
				t.Errorf("%d bytes of warnings", n)
			}
			if err != nil && len(err.Error()) > 10_000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func indents(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func numbered(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "k%d: 1\n", i)
	}
	return b.String()
}

func FuzzLoad(f *testing.F) {
	for _, dir := range []string{"testdata/bad", "testdata/good"} {
		for _, file := range files(f, dir) {
			data, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	path := filepath.Join(f.TempDir(), "fuzz.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c, warnings, err := Load(path)
		if (c == nil) == (err == nil) {
			t.Fatalf("Load = %v, %v", c, err)
		}
		var errs Errors
		if err != nil && !errors.As(err, &errs) {
			t.Fatalf("the error is %T", err)
		}
		for _, e := range errs {
			if bad := e.Error(); e.Line > 1+bytes.Count(data, []byte("\n"))+bytes.Count(data, []byte("\r"))+
				bytes.Count(data, []byte("\u2028"))+bytes.Count(data, []byte("\u2029"))+bytes.Count(data, []byte("\u0085")) {
				t.Errorf("there is no such line: %s", bad)
			}
			if strings.Contains(e.Text, "\n") || strings.Contains(e.Key, "\n") {
				t.Errorf("more than one line: %q", e.Error())
			}
		}
		for _, w := range warnings {
			if strings.Contains(w.Key+w.Text, "\n") {
				t.Errorf("more than one line: %q", w)
			}
		}
		if c == nil {
			return
		}
		switch {
		case c.CacheTime < 0 || c.CacheTime > day*time.Second || c.CacheTimeDown < 0 || c.CacheTimeDown > day*time.Second,
			c.HealthcheckTimeout < time.Millisecond || c.HealthcheckTimeout > maxTimeout*time.Second,
			c.CacheMaxEntries < 1 || c.CacheMaxBytes < 1 || c.MaxClients < 1 || c.RlimitNoFile < RlimitMax,
			!isHost(c.CheckHost), !isLogPath(c.LogPath), c.LogFormat != "text" && c.LogFormat != "json",
			c.ServiceNameHeader != "" && !isHeader(c.ServiceNameHeader):
			t.Errorf("out of bounds: %+v", c)
		}
		for _, h := range c.HTTPHeadersToCopy {
			if !isHeader(h) {
				t.Errorf("no header: %q", h)
			}
		}
		for _, p := range append(append([]netip.Prefix(nil), c.CheckHostsAllowed...), c.RemoteSpoolAllowed...) {
			if !p.IsValid() || p != p.Masked() {
				t.Errorf("no network: %v", p)
			}
		}
	})
}

func files(t testing.TB, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no files in %s: %v", dir, err)
	}
	for i := range list {
		list[i] = filepath.Base(list[i])
	}
	return list
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hacheck.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run the tests with -update)", err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

func say(warnings []Warning) string {
	var b strings.Builder
	for _, w := range warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	return b.String()
}

// differs lists the fields of c that do not have their default.
func differs(c *Config) string {
	var b strings.Builder
	v, d := reflect.ValueOf(c).Elem(), reflect.ValueOf(Default()).Elem()
	for i := range v.NumField() {
		if !reflect.DeepEqual(v.Field(i).Interface(), d.Field(i).Interface()) {
			fmt.Fprintf(&b, "%s = %v\n", v.Type().Field(i).Name, v.Field(i).Interface())
		}
	}
	return b.String()
}
