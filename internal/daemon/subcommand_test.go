package daemon

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestSubcommands: each subcommand has its own --help and --version, and refuses unknown options.
func TestSubcommands(t *testing.T) {
	env := Env{Version: "1.2.3-test", Stdout: io.Discard, Stderr: io.Discard}
	for name, sub := range subcommands {
		var help strings.Builder
		if code := sub([]string{"--help"}, Env{Version: env.Version, Stdout: &help, Stderr: io.Discard}); code != 0 {
			t.Errorf("hacheck %s --help exits %d", name, code)
		}
		isOwn := name != "run" && name != "firewall" // these write to the standard output of the process
		if isOwn && (!strings.Contains(help.String(), "\n  -h, --help ") || !strings.Contains(help.String(), "\n      --version ")) {
			t.Errorf("hacheck %s --help has not --help and --version:\n%s", name, &help)
		}
		if code := sub([]string{"--version"}, env); code != 0 {
			t.Errorf("hacheck %s --version exits %d", name, code)
		}
		if code := sub([]string{"--no-such-option"}, env); code == 0 {
			t.Errorf("hacheck %s takes an option that no tool has", name)
		}
	}
}

// TestMisspelledSubcommand: the command line is wrong, and no daemon starts. Other words belong to the daemon.
func TestMisspelledSubcommand(t *testing.T) {
	for arg, want := range map[string]string{
		"aggregat": "aggregate", "aggregates": "aggregate", "flet": "fleet", "Fleet": "fleet", "beecon": "beacon",
		"balancr": "balancer", "balancers": "balancer", "firewal": "firewall", "fire-wall": "firewall", "rum": "run", "runn": "run",
		"help": "the command hacheck --help", "version": "the command hacheck --version", "status": "the command hastatus",
		"down": "the command hadown", "up": "the command haup", "hadown": "the command hadown",
		"stop": "the command systemctl stop hacheck.socket", "restart": "the command systemctl restart hacheck",
		"reload": "the command systemctl reload hacheck", "ststus": "the command hastatus", "hadwon": "the command hadown",
		"Hastatus": "the command hastatus",
	} {
		var stderr strings.Builder
		code := Main([]string{arg, "--check-config"}, Env{Version: "1.2.3-test", Stdout: io.Discard, Stderr: &stderr})
		text := fmt.Sprintf("hacheck: no such subcommand: %q, did you mean %s?\nTry \"hacheck --help\".\n", arg, want)
		if code != 2 || stderr.String() != text {
			t.Errorf("hacheck %s exits %d with %q, want 2 with %q", arg, code, stderr.String(), text)
		}
	}
	for _, arg := range []string{
		"", "start", "daemon", "on", "fleetwood", "hacheck", "80", "r2n", "/etc/hacheck.yaml", "fleet.yaml", "-run",
		strings.Repeat("fleet", 1000),
	} {
		if err := checkSubcommand(arg); err != nil {
			t.Errorf("hacheck %.20q: %v", arg, err)
		}
	}
}
