package servertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// FindHAProxy returns the path of the HAProxy that the tests run: the environment variable HAPROXY, or the installed
// one if the variable is not set.
func FindHAProxy(t testing.TB) string {
	t.Helper()
	return findVariant(t, "HAPROXY", "HAProxy", "haproxy", "haproxy")
}

// findVariant returns the path of the program that an environment variable names, or of the installed one if the
// variable is not set. title is for people.
func findVariant(t testing.TB, variable, title, binary, debianPackage string) string {
	t.Helper()
	name := os.Getenv(variable)
	if name == "" {
		return Find(t, binary, debianPackage)
	}
	// Each test runs in the directory of its package, so a relative path would be another file in each.
	if strings.Contains(name, "/") && !filepath.IsAbs(name) {
		t.Fatalf("%s=%s is a relative path: give an absolute one", variable, name)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s=%s: %v: give the path of an %s, or unset %s to test the installed one", variable, name, err, title, variable)
	}
	return path
}

// HAProxy starts an HAProxy. config returns its configuration, which must bind 127.0.0.1:<port>.
func HAProxy(t testing.TB, config func(port uint16) string) *Server {
	t.Helper()
	return Start(t, Spec{
		Binary: FindHAProxy(t), Package: "haproxy",
		Args: func(port uint16, dir string) ([]string, error) {
			file, text := filepath.Join(dir, "haproxy.cfg"), config(port)
			CheckHAProxyNames(t, text)
			return []string{"-db", "-f", file}, os.WriteFile(file, []byte(text), 0o600)
		},
	})
}

// haproxySection matches the first line of a named proxy in a configuration of HAProxy.
var haproxySection = regexp.MustCompile(`(?m)^(?:frontend|backend|listen)[ \t]+(\S+)`)

// CheckHAProxyNames fails the test if two proxies of a configuration have the same name, even a frontend and a backend.
// HAProxy accepts that up to 3.2 and refuses it from 3.3 on.
func CheckHAProxyNames(t testing.TB, config string) {
	t.Helper()
	seen := map[string]bool{}
	for _, m := range haproxySection.FindAllStringSubmatch(config, -1) {
		if seen[m[1]] {
			t.Fatalf("two proxies of this configuration are called %s, which HAProxy 3.3 refuses:\n%s", m[1], config)
		}
		seen[m[1]] = true
	}
}
