package main

import "testing"

// TestSubcommands: each of them is a tool of its own, which the daemon's options mean nothing to.
func TestSubcommands(t *testing.T) {
	for name, sub := range subcommands {
		if code := sub([]string{"--help"}); code != 0 {
			t.Errorf("hacheck %s --help exits %d", name, code)
		}
		if code := sub([]string{"--version"}); code != 0 {
			t.Errorf("hacheck %s --version exits %d", name, code)
		}
		if code := sub([]string{"--no-such-option"}); code == 0 {
			t.Errorf("hacheck %s takes an option that no tool has", name)
		}
	}
}
