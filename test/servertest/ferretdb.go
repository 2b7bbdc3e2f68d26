package servertest

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// ferretVersion is the last version of FerretDB that stores its data in SQLite and needs no other server.
const ferretVersion = "v1.24.0"

// FerretDB starts a FerretDB, which speaks the protocol of MongoDB. The database admin has the user operator with the
// password s3cret. options are added to its command line. Debian has neither FerretDB nor MongoDB, so it is built once
// from its Go module. The binary is kept in the user's cache directory (see [os.UserCacheDir]) under hacheck-test.
func FerretDB(t testing.TB, options ...string) *Server {
	t.Helper()
	return startFerretDB(t, func(port uint16, _ string) ([]string, error) {
		return slices.Concat([]string{fmt.Sprintf("--listen-addr=%s:%d", Host, port)}, ferretLogin(), options), nil
	})
}

// FerretDBOpen starts a FerretDB without logins.
func FerretDBOpen(t testing.TB) *Server {
	t.Helper()
	return startFerretDB(t, func(port uint16, _ string) ([]string, error) {
		return []string{fmt.Sprintf("--listen-addr=%s:%d", Host, port)}, nil
	})
}

// ferretLogin returns the options of a server with the user operator.
func ferretLogin() []string {
	return []string{"--test-enable-new-auth", "--setup-database=admin", "--setup-username=operator", "--setup-password=s3cret"}
}

// FerretDBTLS starts a FerretDB that speaks only TLS and requires a client certificate of the authority whose certificate
// is in the file ca.
func FerretDBTLS(t testing.TB, certificate tls.Certificate, ca string) *Server {
	t.Helper()
	return startFerretDB(t, func(port uint16, dir string) ([]string, error) {
		cert, key, err := writeCertificate(dir, certificate)
		return append(ferretLogin(), "--listen-addr=", fmt.Sprintf("--listen-tls=%s:%d", Host, port),
			"--listen-tls-cert-file="+cert, "--listen-tls-key-file="+key, "--listen-tls-ca-file="+ca), err
	})
}

func startFerretDB(t testing.TB, options func(port uint16, dir string) ([]string, error)) *Server {
	t.Helper()
	return Start(t, Spec{
		Binary: buildFerretDB(t), Package: "golang",
		Args: func(port uint16, dir string) ([]string, error) {
			more, err := options(port, dir)
			return append([]string{
				"--handler=sqlite", "--sqlite-url=file:" + dir + "/", "--state-dir=" + dir, "--debug-addr=-", "--telemetry=disable",
				"--log-level=error", // it warns now and then when it closes a connection that the client has closed
			}, more...), err
		},
	})
}

// buildFerretDB returns the path of the binary and builds it if it does not exist.
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
	// The build needs a file with the version, which the module lacks. The module is copied, because its directory is
	// read-only.
	source, built := filepath.Join(dir, "source"), filepath.Join(dir, "ferretdb")
	if err := os.CopyFS(source, os.DirFS(module.Dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "build", "version", "version.txt"), []byte(ferretVersion), 0o644); err != nil {
		t.Fatal(err)
	}
	run(source, "build", "-trimpath", "-o", built, "./cmd/ferretdb")
	// Another test may build it at the same time, so the binary is renamed into place.
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
