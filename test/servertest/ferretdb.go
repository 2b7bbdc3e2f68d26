package servertest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// ferretVersion is the last FerretDB that keeps its data in SQLite and needs no server besides.
const ferretVersion = "v1.24.0"

// FerretDB starts a FerretDB, which speaks MongoDB's protocol, with the user operator, whose password is
// s3cret, in the database admin. There is no Debian package of it, nor of MongoDB: it is built once, from its
// Go module, and kept in the user's cache directory (see [os.UserCacheDir]) under hacheck-test.
func FerretDB(t testing.TB) *Server {
	t.Helper()
	return Start(t, Spec{
		Binary: buildFerretDB(t), Package: "golang",
		Args: func(port uint16, dir string) ([]string, error) {
			return []string{
				"--handler=sqlite", "--sqlite-url=file:" + dir + "/", "--state-dir=" + dir, "--debug-addr=-", "--telemetry=disable",
				fmt.Sprintf("--listen-addr=%s:%d", Host, port), "--log-level=warn",
				"--test-enable-new-auth", "--setup-database=admin", "--setup-username=operator", "--setup-password=s3cret",
			}, nil
		},
	})
}

// buildFerretDB returns the path of the program.
func buildFerretDB(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(cache, "hacheck-test", "ferretdb-"+ferretVersion)
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	goCommand := Find(t, "go", "golang")
	dir := tempDir(t)
	run := func(dir string, args ...string) []byte {
		cmd := exec.Command(goCommand, args...) //nolint:gosec // found by name
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			why := ""
			if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Output wraps nothing
				why = string(exit.Stderr)
			}
			t.Fatalf("build FerretDB (go %v): %v\n%s%s", args, err, out, why)
		}
		return out
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(run(dir, "mod", "download", "-json", "github.com/FerretDB/FerretDB@"+ferretVersion), &module); err != nil {
		t.Fatal(err)
	}
	// A copy, because the module's directory cannot be written to, and the program wants its version in a file
	// that the module leaves out.
	source, built := filepath.Join(dir, "source"), filepath.Join(dir, "ferretdb")
	if err := os.CopyFS(source, os.DirFS(module.Dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "build", "version", "version.txt"), []byte(ferretVersion), 0o644); err != nil {
		t.Fatal(err)
	}
	run(source, "build", "-trimpath", "-o", built, "./cmd/ferretdb")
	// Another test may build it as well, so it appears there at once or not at all.
	if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(built)
	if err != nil {
		t.Fatal(err)
	}
	part, err := os.CreateTemp(filepath.Dir(binary), "ferretdb-*.part")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Remove(part.Name()) }()
	if _, err = part.Write(text); err == nil {
		err = part.Chmod(0o755)
	}
	if closed := part.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(part.Name(), binary)
	}
	if err != nil {
		t.Fatal(err)
	}
	return binary
}
