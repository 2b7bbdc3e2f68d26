package test

import (
	"os"
	"path/filepath"
	"testing"

	"hacheck/test/servertest"
)

// commandsEnv is the environment variable with the directory of the commands, for the child process of runInNamespace.
const commandsEnv = "HACHECK_TEST_COMMANDS"

// runInNamespace is servertest.Namespace.Run. The child process uses the commands of its parent.
func runInNamespace(t *testing.T, flag uintptr, f func(t *testing.T)) {
	t.Helper()
	dir := os.Getenv(commandsEnv)
	if dir == "" {
		dir = filepath.Dir(bin(t, "hacheck"))
	}
	servertest.Namespace{Flag: flag, Env: []string{commandsEnv + "=" + dir}}.Run(t, func(t *testing.T) {
		commands.once.Do(func() { commands.dir = dir })
		t.Cleanup(func() { commands.dir = "" }) // the parent process removes the directory
		f(t)
	})
}
