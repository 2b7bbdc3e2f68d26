package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hacheck/test/servertest"
)

// makeFiles creates directories and files below a new directory from lines of "name mode" or "name mode uid". A name that
// ends with a slash is a directory; a mode that begins with "->" makes a link.
func makeFiles(t *testing.T, list ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, line := range list {
		var name, mode string
		uid := -1
		_, _ = fmt.Sscan(line, &name, &mode, &uid)
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch to, isLink := strings.CutPrefix(mode, "->"); {
		case err != nil:
		case isLink:
			err = os.Symlink(strings.ReplaceAll(to, "DIR", dir), path)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		default:
			err = os.WriteFile(path, []byte("#!/bin/sh\n"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if uid >= 0 {
			if err := os.Lchown(path, uid, -1); err != nil {
				t.Fatal(err)
			}
		}
		if strings.HasPrefix(mode, "->") {
			continue
		}
		var bits uint32
		_, _ = fmt.Sscanf(mode, "%o", &bits)
		if err := syscall.Chmod(path, bits); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestFindUntrustedWriter: exposed finds the part of a path that an untrusted user may write.
func TestFindUntrustedWriter(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		path  string
		want  string // "" if nothing is exposed
	}{
		{"all well", []string{"a/ 755", "a/f 644"}, "a/f", ""},
		{"a group is trusted", []string{"a/ 775", "a/f 664"}, "a/f", ""},
		{"the file", []string{"a/f 646"}, "a/f", "a/f"},
		{"a script with 777", []string{"a/f 777"}, "a/f", "a/f"},
		{"its directory", []string{"a/ 777", "a/f 644"}, "a/f", "a"},
		{"a directory above", []string{"a/ 757", "a/b/c/ 755", "a/b/c/f 644"}, "a/b/c/f", "a"},
		{"a sticky directory", []string{"a/ 1777", "a/f 644"}, "a/f", ""},
		{"a directory in a sticky one", []string{"a/ 1777", "a/b/ 755", "a/b/f 644"}, "a/b/f", ""},
		{"nothing yet in a sticky directory", []string{"a/ 1777"}, "a/f", "a"},
		{"nothing yet, far down", []string{"a/ 1777"}, "a/b/c/f", "a"},
		{"nothing yet where nobody else may write", []string{"a/ 755"}, "a/f", ""},
		{"the directory of a link", []string{"l/ 777", "a/f 644", "l/f ->DIR/a/f"}, "l/f", "l"},
		{"the directory that a link leads to", []string{"l/ 755", "a/ 777", "a/f 644", "l/f ->DIR/a/f"}, "l/f", "a"},
		{"a link to a directory", []string{"b/ 777", "b/a/f 644", "l ->b/a"}, "l/f", "b"},
		{"links one after the other", []string{"x/ 777", "x/2 ->../a/f", "a/f 644", "1 ->x/2"}, "1", "x"},
		{"a link with ..", []string{"a/b/ 755", "a/ 755", "c/f 644", "a/b/l ->../../c/f"}, "a/b/l", ""},
		{"links in a circle", []string{"1 ->2", "2 ->1"}, "1", ""},
		{"a device", nil, "/dev/null", ""},
		{"a path that is not clean", []string{"a/ 777", "a/f 644"}, "./a//../a/./f", "a"},
	} {
		t.Run(c.name, func(t *testing.T) { wantExposed(t, makeFiles(t, c.files...), c.path, c.want) })
	}
	if os.Geteuid() != 0 {
		return // only root can make files of others
	}
	for _, c := range []struct {
		name  string
		files []string
		want  string
	}{
		{"a file of somebody else", []string{"a/f 755 65534"}, "a/f"},
		{"a directory of somebody else", []string{"a/ 755 65534", "a/f 644"}, "a"},
		{"a file of somebody else in a sticky directory", []string{"a/ 1777", "a/f 644 65534"}, "a"},
		{"a link of somebody else in a sticky directory", []string{"a/ 1777", "b 644", "a/f ->../b 65534"}, "a"},
		{"a sticky directory of somebody else", []string{"a/ 1755 65534", "a/f 644"}, "a"},
	} {
		t.Run(c.name, func(t *testing.T) { wantExposed(t, makeFiles(t, c.files...), "a/f", c.want) })
	}
}

func wantExposed(t *testing.T, dir, path, want string) {
	t.Helper()
	if !filepath.IsAbs(path) {
		path = dir + "/" + path
	}
	e, ok := findUntrustedWriter(path)
	got := ""
	if ok {
		got, _ = strings.CutPrefix(e.path, dir+"/")
	}
	if got != want || ok != (want != "") {
		t.Errorf("exposed is %q, %v, want %q", got, ok, want)
	}
}

const (
	saysSpool   = "may replace the spool directory"
	saysConfig  = "may change or replace the configuration"
	saysLog     = "may change or replace the log file"
	saysScript  = "may change or replace what a script check runs"
	saysKey     = "may read the private key"
	saysTLS     = "may change or replace a file of TLS"
	saysState   = "may change the overrides of the fleet on this host"
	saysSecrets = "may read the passwords"
)

// TestModeWarnings: at its start and at each reload the daemon warns about what other users of the machine may change or
// read, and about no other file. --check-config does not warn.
func TestModeWarnings(t *testing.T) {
	script := func(command string) string {
		return "services: {web: {checks: [{type: script, command: " + command + "}]}}\n"
	}
	web := func(options string) string {
		return "services: {web: {checks: [{type: http, url: \"http://127.0.0.1/\", " + options + "}]}}\n"
	}
	for _, c := range []struct {
		name   string
		files  []string
		spool  string // default "spool"
		conf   string // default "hacheck.yaml"
		config string
		mode   os.FileMode // of the configuration, default 0640
		says   string      // "" for no warning at all
	}{
		{name: "all well", files: []string{"spool/ 750", "check 755"}, config: "log_format: text\n" + script("DIR/check --port 80 -t 5 10.0.0.1:80"), mode: 0o644},
		{name: "spool in an open directory", files: []string{"open/ 777", "open/spool/ 750"}, spool: "open/spool", says: saysSpool},
		{name: "spool below an open directory", files: []string{"open/ 777", "open/x/spool/ 750"}, spool: "open/x/spool", says: saysSpool},
		{name: "spool in a sticky directory", files: []string{"open/ 1777", "open/spool/ 750"}, spool: "open/spool"},
		{name: "spool by a link in an open directory", files: []string{"open/ 777", "spool/ 750", "open/l ->../spool"}, spool: "open/l", says: saysSpool},
		{name: "configuration in an open directory", files: []string{"open/ 777"}, conf: "open/hacheck.yaml", says: saysConfig},
		{name: "configuration below an open directory", files: []string{"open/ 777", "open/x/ 755"}, conf: "open/x/hacheck.yaml", says: saysConfig},
		{name: "configuration in a sticky directory", files: []string{"open/ 1777"}, conf: "open/hacheck.yaml"},
		{name: "log in an open directory", files: []string{"open/ 777", "open/log 640"}, config: "log_path: DIR/open/log\n", says: saysLog},
		{name: "script with mode 777", files: []string{"check 777"}, config: script("DIR/check"), says: saysScript},
		{name: "script in an open directory", files: []string{"open/ 777", "open/check 755"}, config: script("[DIR/open/check]"), says: saysScript},
		{name: "script of an interpreter", files: []string{"check 777"}, config: script("[/bin/sh, DIR/check]"), says: saysScript},
		{name: "script that does not exist yet", files: []string{"open/ 1777"}, config: script("DIR/open/check"), says: saysScript},
		{name: "script by name in an open directory of the PATH", files: []string{"path/ 777"}, config: script("hacheck-no-such-program"), says: saysScript},
		{name: "password", config: web("auth: [u, p]"), mode: 0o644, says: saysSecrets},
		{name: "password, nobody else reads", config: web("auth: [u, p]")},
		{name: "url", config: "services: {web: {checks: [{type: http, url: \"http://u:s3cret@127.0.0.1/\"}]}}\n", mode: 0o644, says: saysSecrets},
		{name: "url of https by its other name", config: "services: {web: {checks: [{type: https, url: \"https://s3cret@127.0.0.1/\"}]}}\n", mode: 0o644, says: saysSecrets},
		{name: "proxy_url", config: web("proxy_url: \"http://u:s3cret@127.0.0.1:3128\""), mode: 0o644, says: saysSecrets},
		{name: "proxy_url without", config: web("proxy_url: \"http://127.0.0.1:3128\""), mode: 0o644},
		{name: "Authorization", config: web("headers: {Authorization: Bearer s3cret}"), mode: 0o644, says: saysSecrets},
		{name: "cookie header", config: web("headers: [[Accept, x], [cookie, s3cret]]"), mode: 0o644, says: saysSecrets},
		{name: "header of our own", config: web("headers: {X-Api-Key: [s3cret]}"), mode: 0o644, says: saysSecrets},
		{name: "plain headers", config: web("headers: {Host: a, accept: text/plain, User-Agent: x}"), mode: 0o644},
		{name: "cookies", config: web("cookies: {a: s3cret}"), mode: 0o644, says: saysSecrets},
		{name: "params", config: web("params: {key: s3cret}"), mode: 0o644, says: saysSecrets},
		{name: "body", config: web("body: s3cret"), mode: 0o644, says: saysSecrets},
		{name: "empty ones", config: web("body: \"\", cookies: {}, params: {}, headers: []"), mode: 0o644},
		{name: "argument", config: script("[/bin/true, s3cret]"), mode: 0o644, says: saysSecrets},
		{name: "argument of an option", config: script("/bin/true --password 1234"), mode: 0o644, says: saysSecrets},
		{name: "argument in an option", config: script("/bin/true --token=s3cret"), mode: 0o644, says: saysSecrets},
		{name: "argument glued to an option", config: script("/bin/true -ps3cret"), mode: 0o644, says: saysSecrets},
		{name: "argument in a URL", config: script("/bin/true http://u:s3cret@127.0.0.1/"), mode: 0o644, says: saysSecrets},
		{name: "mongodb", config: "services: {web: {checks: [{type: mongo, username: u, password: s3cret, port: 1}]}}\n", mode: 0o644, says: saysSecrets},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := makeFiles(t, c.files...)
			if c.spool == "" {
				c.spool = "spool"
			}
			if c.conf == "" {
				c.conf = "hacheck.yaml"
			}
			if c.mode == 0 {
				c.mode = 0o640
			}
			conf := filepath.Join(dir, c.conf)
			writeFile(t, conf, strings.ReplaceAll(c.config, "DIR", dir))
			if err := os.Chmod(conf, c.mode); err != nil {
				t.Fatal(err)
			}
			checkOnly := launch(t, nil, "--check-config", "-c", conf)
			if code := checkOnly.exit(); code != 0 {
				t.Errorf("--check-config exits with %d: %s", code, checkOnly.log())
			}
			p := launch(t, func(cmd *exec.Cmd) {
				cmd.Env = append(cmd.Env, "PATH="+filepath.Join(dir, "path")+":"+os.Getenv("PATH"))
			}, "-B", "127.0.0.1", "-p", "0", "-c", conf, "--spool-root", filepath.Join(dir, c.spool))
			log := func() string {
				b, _ := os.ReadFile(filepath.Join(dir, "open/log")) // where log_path says so
				return p.log() + string(b)
			}
			waitUntil(t, "a start", func() bool { return strings.Contains(log(), "hacheck answers") })
			wants := func(n int) {
				t.Helper()
				if c.says != "" {
					waitUntil(t, fmt.Sprintf("%d warnings that a user %q", n, c.says), func() bool { return strings.Count(log(), c.says) == n })
				}
			}
			wants(1)
			p.signal(syscall.SIGHUP)
			waitUntil(t, "a reload", func() bool { return strings.Contains(log(), "reloaded the configuration") })
			wants(2)
			p.signal(syscall.SIGTERM)
			p.wantExit(0)
			all := log()
			if n := strings.Count(all, "of this machine may"); c.says == "" && n != 0 || strings.Contains(all, "s3cret") {
				t.Errorf("%d warnings, or a password:\n%s", n, all)
			}
		})
	}
}

// TestTLSFileWarnings: the daemon warns about private keys that every user may read, and about files of TLS that others may
// replace, be they those of tls_listen or of a check.
func TestTLSFileWarnings(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		mode   os.FileMode // of the key
		dir    os.FileMode
		says   string // "" for no warning
	}{
		"all well":                {"tls_cert_file: DIR/tls/cert\ntls_key_file: DIR/tls/key\n", 0o640, 0o755, ""},
		"key of tls_listen":       {"tls_cert_file: DIR/tls/cert\ntls_key_file: DIR/tls/key\n", 0o644, 0o755, saysKey},
		"directory of tls_listen": {"tls_cert_file: DIR/tls/cert\ntls_key_file: DIR/key\n", 0o640, 0o777, saysTLS},
		"authorities of clients": {
			"tls_cert_file: DIR/cert\ntls_key_file: DIR/key\ntls_client_ca_file: DIR/tls/cert\n", 0o640, 0o777, saysTLS,
		},
		"key of a check": {
			"tls_cert_file: DIR/cert\ntls_key_file: DIR/key\n" +
				"services: {web: {checks: [{type: http, url: \"https://127.0.0.1/\", cert_file: DIR/tls/cert, key_file: DIR/tls/key}]}}\n", 0o644, 0o755, saysKey,
		},
		"authorities of a check": {
			"tls_cert_file: DIR/cert\ntls_key_file: DIR/key\n" +
				"services: {web: {checks: [{type: http, url: \"https://127.0.0.1/\", ca_file: DIR/tls/cert}]}}\n", 0o640, 0o777, saysTLS,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := makeFiles(t, "spool/ 750", "tls/ 755")
			cert, key := servertest.NewAuthority(t).Issue(t, "one")
			for _, f := range []struct{ from, to string }{{cert, "cert"}, {cert, "tls/cert"}, {key, "key"}, {key, "tls/key"}} {
				content, err := os.ReadFile(f.from)
				if err != nil {
					t.Fatal(err)
				}
				writeFile(t, filepath.Join(dir, f.to), string(content))
			}
			for name, mode := range map[string]os.FileMode{"key": 0o640, "tls/key": c.mode, "cert": 0o644, "tls/cert": 0o644, "tls": c.dir} {
				if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
					t.Fatal(err)
				}
			}
			conf := filepath.Join(dir, "hacheck.yaml")
			writeFile(t, conf, "tls_listen: 127.0.0.1:0\n"+strings.ReplaceAll(c.config, "DIR", dir))
			if err := os.Chmod(conf, 0o640); err != nil {
				t.Fatal(err)
			}
			p := launch(t, nil, "-B", "127.0.0.1", "-p", "0", "-c", conf, "--spool-root", filepath.Join(dir, "spool"))
			p.waitReady()
			p.signal(syscall.SIGTERM)
			p.wantExit(0)
			if n := strings.Count(p.log(), "of this machine may"); c.says == "" && n != 0 || c.says != "" && (n != 1 || !strings.Contains(p.log(), c.says)) {
				t.Errorf("%d warnings, want %q:\n%s", n, c.says, p.log())
			}
		})
	}
}
