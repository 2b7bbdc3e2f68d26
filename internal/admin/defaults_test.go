package admin

import (
	"os"
	"path/filepath"
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
		{"environment", "HACHECK_PORT=3335\n", map[string]string{envPort: "10.0.0.5:3336", envControlSocket: "/tmp/c"}, nil, "10.0.0.5:3336 /var/spool/hacheck /tmp/c"},
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
	c := &command{Env: Env{Getenv: func(string) string { return "x" }}}
	if err := c.applyDefaults(&options{}); err == nil {
		t.Error("the port x is accepted")
	}
}
