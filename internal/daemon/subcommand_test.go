package daemon

import (
	"io"
	"testing"
)

// TestSubcommands: each subcommand has its own --help and --version, and refuses unknown options.
func TestSubcommands(t *testing.T) {
	env := Env{Version: "1.2.3-test", Stdout: io.Discard, Stderr: io.Discard}
	for name, sub := range subcommands {
		if code := sub([]string{"--help"}, env); code != 0 {
			t.Errorf("hacheck %s --help exits %d", name, code)
		}
		if code := sub([]string{"--version"}, env); code != 0 {
			t.Errorf("hacheck %s --version exits %d", name, code)
		}
		if code := sub([]string{"--no-such-option"}, env); code == 0 {
			t.Errorf("hacheck %s takes an option that no tool has", name)
		}
	}
}
