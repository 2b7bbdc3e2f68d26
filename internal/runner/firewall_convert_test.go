package runner

import (
	"net/netip"
	"os/exec"
	"testing"
)

func TestShellQuote(t *testing.T) {
	for _, s := range []string{"", "sg-1", "a b", "it's", "$(reboot)", "-x", "a;b", "`x`", "ä", "*", "a\nb"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+shellQuote(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q quoted as %s comes out as %q: %v", s, shellQuote(s), out, err)
		}
	}
}

func TestFirewallCommandsAreValidShell(t *testing.T) {
	for _, tool := range tools {
		d := destination{protocol: "tcp", host: "2001:db8::1", addr: netip.MustParseAddr("2001:db8::1"), port: 65535}
		out, err := exec.CommandContext(t.Context(), "sh", "-n", "-c", tool.rule(d, shellQuote("$(x)"))).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", tool.name, err, out)
		}
	}
}
