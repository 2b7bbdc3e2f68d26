package admin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDefaults: an option wins over the environment, and this over the options of the daemon.
func TestDefaults(t *testing.T) {
	t.Parallel()
	const usual = "127.0.0.1:3333 /var/spool/hacheck /run/sock"
	for _, test := range []struct {
		name, file string
		env        map[string]string
		args       []string
		want       string // daemon, spool directory and control socket
	}{
		{"no file", "", nil, nil, usual},
		{"empty options", "# comment\nHACHECK_OPTIONS=\"\"\n", nil, nil, usual},
		{"options of the daemon", `HACHECK_OPTIONS="-S -p 3334 --port=3335 --spool-root /srv/spool --control-socket=/tmp/c"`, nil, nil, "127.0.0.1:3334 /srv/spool /tmp/c"},
		{"one address", "HACHECK_OPTIONS='-B 10.0.0.5'\n", nil, nil, "10.0.0.5:3333 /var/spool/hacheck /run/sock"},
		{"one IPv6 address", "HACHECK_OPTIONS=--bind-address=fd00::1 -p3334\n", nil, nil, "[fd00::1]:3334 /var/spool/hacheck /run/sock"},
		{"every address", "HACHECK_OPTIONS=\"-B :: -p 3334\"\n", nil, nil, "127.0.0.1:3334 /var/spool/hacheck /run/sock"},
		{"odd options", "HACHECK_OPTIONS=\"-p x -B y --spool-root\"\n", nil, nil, usual},
		{"any port", "HACHECK_OPTIONS=\"-p 0\"\n", nil, nil, usual},
		{"variables of the file", "HACHECK_OPTIONS=\"-p 3334\"\nHACHECK_PORT=3335\nHACHECK_SPOOL_ROOT=/srv/spool\n", nil, nil, "127.0.0.1:3335 /srv/spool /run/sock"},
		{"blanks around =", "  HACHECK_PORT = 3335 \n", nil, nil, "127.0.0.1:3335 /var/spool/hacheck /run/sock"},
		{"no port", "export HACHECK_PORT=3335\n; HACHECK_PORT=3335\n#HACHECK_PORT=3335\nHACHECK_PORT=\n", nil, nil, usual},
		{"carriage returns", "HACHECK_PORT=3335\r\nHACHECK_SPOOL_ROOT=\"/srv/spool\"\r\n", nil, nil, "127.0.0.1:3335 /srv/spool /run/sock"},
		{"a line that goes on", "HACHECK_OPTIONS=\"-S \\\n\t-p 3334 \\\n\t--spool-root=/srv/spool\"\nHACHECK_CONTROL_SOCKET=/tmp/\\\nc\n", nil, nil, "127.0.0.1:3334 /srv/spool /tmp/c"},
		{"lines between quotes", "HACHECK_OPTIONS='-S\n-p 3334\n'\n", nil, nil, "127.0.0.1:3334 /var/spool/hacheck /run/sock"},
		{"parts of a value", "HACHECK_SPOOL_ROOT=\"/srv/my\" ' spool'/a\\\"b\n", nil, nil, `127.0.0.1:3333 /srv/my spool/a"b /run/sock`},
		{"quotes between quotes", `HACHECK_OPTIONS='--spool-root "/srv/my spool" -B ""'`, nil, nil, "127.0.0.1:3333 /srv/my spool /run/sock"},
		{"quotes behind backslashes", `HACHECK_OPTIONS="--spool-root=\"/srv/my spool\" -p '3334'"`, nil, nil, "127.0.0.1:3334 /srv/my spool /run/sock"},
		{"a quote after the start", `HACHECK_OPTIONS=--spool-root="/srv/my spool" -p 3334`, nil, nil, "127.0.0.1:3334 /srv/my spool /run/sock"},
		{"an open quote", `HACHECK_OPTIONS="-p 3334`, nil, nil, "127.0.0.1:3334 /var/spool/hacheck /run/sock"},
		{"short options in one word", "HACHECK_OPTIONS=-Svp3334 -A 3444 -n 2 -c '-p 1'", nil, nil, "127.0.0.1:3334 /var/spool/hacheck /run/sock"},
		{"a newer option", "HACHECK_OPTIONS=--newer -p 3334", nil, nil, "127.0.0.1:3334 /var/spool/hacheck /run/sock"},
		{"a host name", "HACHECK_OPTIONS='-B web1.internal'\n", nil, nil, "web1.internal:3333 /var/spool/hacheck /run/sock"},
		{"environment", "HACHECK_PORT=3335\n", map[string]string{envPort: "10.0.0.5:3336", envControlSocket: "/tmp/c"}, nil, "10.0.0.5:3336 /var/spool/hacheck /tmp/c"},
		{"a script of a check", "HACHECK_PORT=3335\n", map[string]string{envPort: "0", envService: "web"}, nil, "127.0.0.1:3335 /var/spool/hacheck /run/sock"},
		{
			"command line", "HACHECK_PORT=3335\n",
			map[string]string{envSpoolRoot: "/srv/spool", envControlSocket: "/tmp/c"},
			[]string{"-p", "3337", "--spool-root", "/here", "--control-socket", "/tmp/d"},
			"127.0.0.1:3337 /here /tmp/d",
		},
	} {
		path := filepath.Join(t.TempDir(), "default")
		if test.file != "" {
			if err := os.WriteFile(path, []byte(test.file), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		o, err := parse("hadown", test.args)
		if err != nil {
			t.Fatal(err)
		}
		c := &command{Env: Env{Getenv: func(name string) string { return test.env[name] }, Defaults: path, daemon: defaultDaemon, controlSocket: "/run/sock"}}
		if err := c.applyDefaults(&o); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if got := o.daemon.String() + " " + o.spoolRoot + " " + o.fleet.socket; got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	c := &command{Env: Env{Getenv: func(name string) string { return map[string]string{envPort: "x"}[name] }}}
	if err := c.applyDefaults(&options{}); err == nil || !strings.Contains(err.Error(), "in the environment") {
		t.Errorf("with the port x: %v", err)
	}
	path := filepath.Join(t.TempDir(), "default")
	if err := os.WriteFile(path, []byte("HACHECK_PORT=3334 # ours\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	c.Env = Env{Getenv: func(string) string { return "" }, Stderr: &stderr, Defaults: filepath.Dir(path)}
	if err := c.applyDefaults(&options{}); err != nil || !strings.Contains(stderr.String(), "warning: read "+c.Defaults+": is a directory; ") {
		t.Errorf("with a file that cannot be read: %v; it printed %q", err, &stderr)
	}
	c.Env = Env{Getenv: func(string) string { return "" }, Defaults: path}
	if err := c.applyDefaults(&options{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("with the port 3334 # ours: %v", err)
	}
}
