package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// commandNames lists the commands in a package.
var commandNames = []string{"hacheck", "haup", "hadown", "hastatus", "halist", "hashowdowned"}

// makePackages runs `make package` on the sources in dir and returns the directory of the packages.
func makePackages(t *testing.T, dir, version string, env ...string) string {
	t.Helper()
	dist := t.TempDir()
	// This umask would show in a file without an explicit mode.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `umask 077; exec make -s package "$@"`, "make", "DIST="+dist, "VERSION="+version)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000", "ARCHES=amd64 arm64", "FORMATS=deb rpm root"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make package: %v\n%s", err, out)
	}
	return dist
}

// TestPackages builds the packages, checks their contents, and installs, upgrades and removes them in a temporary
// copy of this machine.
func TestPackages(t *testing.T) {
	t.Parallel()
	first := makePackages(t, "..", "v1.0.0")
	t.Run("reproducible", func(t *testing.T) { t.Parallel(); packagesReproducible(t, first) })
	t.Run("contents", func(t *testing.T) { t.Parallel(); packageContents(t, first) })
	t.Run("container", func(t *testing.T) { t.Parallel(); containerRoot(t, first) })
	t.Run("life", func(t *testing.T) {
		t.Parallel()
		second := makePackages(t, "..", "v1.0.1", "ARCHES=amd64", "FORMATS=deb rpm")
		for _, format := range []struct{ name, file string }{{"deb", "hacheck_%s-1_amd64.deb"}, {"rpm", "hacheck-%s-1.x86_64.rpm"}} {
			t.Run(format.name, func(t *testing.T) {
				t.Parallel()
				installUpgradeRemove(t, format.name, filepath.Join(first, fmt.Sprintf(format.file, "1.0.0")), filepath.Join(second, fmt.Sprintf(format.file, "1.0.1")))
			})
		}
		t.Run("systemd", func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for from, to := range map[string]string{filepath.Join(first, "hacheck_1.0.0-1_amd64.deb"): "v1.deb", filepath.Join(second, "hacheck_1.0.1-1_amd64.deb"): "v2.deb"} {
				if err := os.WriteFile(filepath.Join(dir, to), []byte(readFile(t, from)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			runSystemd(t, "packages.sh", dir, "")
		})
	})
}

// TestVersion: the version comes from git.
func TestVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := filepath.Join(dir, "packaging/version.sh")
	if err := os.MkdirAll(filepath.Dir(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte(readFile(t, "../packaging/version.sh")), 0o755); err != nil {
		t.Fatal(err)
	}
	git := func(args ...string) {
		t.Helper()
		mustOutput(t, "git", append([]string{"-C", dir, "-c", "user.name=test", "-c", "user.email=test@localhost"}, args...)...)
	}
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"no repository", func() {}, `dev`},
		{"no tag", func() {
			git("init", "--quiet")
			git("add", ".")
			git("commit", "--quiet", "-m", "one")
		}, `v0\.0\.0-20\d{12}-[0-9a-f]{12}`},
		{"another tag", func() { git("tag", "other") }, `v0\.0\.0-20\d{12}-[0-9a-f]{12}`},
		{"changed", func() {
			if err := os.WriteFile(script, []byte(readFile(t, script)+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, `v0\.0\.0-20\d{12}-[0-9a-f]{12}-dirty`},
		{"tag", func() {
			git("commit", "--quiet", "-a", "-m", "two")
			git("tag", "v1.2.3")
		}, `v1\.2\.3`},
		{"after a tag", func() { git("commit", "--quiet", "--allow-empty", "-m", "three") }, `v1\.2\.3-1-g[0-9a-f]+`},
	} {
		step.do()
		cmd := exec.CommandContext(t.Context(), script)
		cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
		out, err := cmd.Output()
		if got := strings.TrimSpace(string(out)); err != nil || !regexp.MustCompile(`^(`+step.want+`)$`).MatchString(got) {
			t.Errorf("%s: the version is %q, %v; want %s", step.name, got, err, step.want)
		}
	}
	if text := readFile(t, "../Makefile"); !strings.Contains(text, "\nVERSION ?= $(shell packaging/version.sh)\n") {
		t.Error("make does not use the version of git")
	}
}

// documentsExist: the package has each document that a text of the package names.
func documentsExist(t *testing.T, deb string) {
	t.Helper()
	dir := t.TempDir()
	mustOutput(t, "dpkg-deb", "--extract", deb, dir)
	named := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.Contains(path, "/usr/bin/") || strings.HasSuffix(path, "changelog.gz") {
			return err
		}
		text := readFile(t, path)
		if strings.HasSuffix(path, ".gz") {
			text = mustOutput(t, "zcat", path)
		}
		for _, name := range regexp.MustCompile(`\bdocs/[a-z0-9-]+\.md`).FindAllString(text, -1) {
			named++
			if _, err := os.Stat(filepath.Join(dir, "usr/share/doc/hacheck", name)); err != nil {
				t.Errorf("%s names %s, which is not in the package", strings.TrimPrefix(path, dir), name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if named < 5 {
		t.Errorf("only %d names of documents were found", named)
	}
}

// packagesReproducible: the packages are the same bytes with another directory, date, time zone and umask.
func packagesReproducible(t *testing.T, first string) {
	sources := t.TempDir()
	copyTree(t, "..", sources)
	second := makePackages(t, sources, "v1.0.0", "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8")
	want, got := checksums(t, first), checksums(t, second)
	if len(want) != 6 {
		t.Errorf("make package made %v, want a deb, an rpm and a container's root for each of two architectures", want)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packages differ from build to build (-first +second):\n%s", diff)
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if slices.Contains([]string{".git", "bin", "dist", "run"}, name) {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		if !e.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o600)
		if info, err := e.Info(); err == nil && info.Mode()&0o100 != 0 {
			mode = 0o700
		}
		return os.WriteFile(filepath.Join(to, name), b, mode)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checksums(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = fmt.Sprintf("%x", sha256.Sum256(b))
	}
	return all
}

// mustOutput runs a program and returns its output. It fails the test unless the exit code is 0.
func mustOutput(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), findTool(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// debFiles returns the files of a package: path to mode, owner, group and link target. rpmFiles does the same.
func debFiles(t *testing.T, deb string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for line := range strings.Lines(mustOutput(t, "dpkg-deb", "--contents", deb)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[0][0] == 'd' {
			continue
		}
		files[strings.TrimPrefix(f[5], ".")] = strings.Join(append([]string{f[0], f[1]}, f[6:]...), " ")
	}
	return files
}

func rpmFiles(t *testing.T, rpm string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for line := range strings.Lines(mustOutput(t, "rpm", "--query", "--package", "--queryformat", `[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILELINKTOS}\n]`, rpm)) {
		f := strings.Fields(line)
		if len(f) > 3 {
			f = append(f[:3], "->", f[3])
		}
		files[f[0]] = strings.Join(f[1:], " ")
	}
	return files
}

func packageContents(t *testing.T, dist string) {
	deb, rpm := filepath.Join(dist, "hacheck_1.0.0-1_amd64.deb"), filepath.Join(dist, "hacheck-1.0.0-1.x86_64.rpm")
	want := map[string]string{
		"/usr/bin/hacheck":      "-rwxr-xr-x root/root",
		"/usr/bin/haup":         "-rwxr-xr-x root/root",
		"/usr/bin/hadown":       "-rwxr-xr-x root/root",
		"/usr/bin/hastatus":     "-rwxr-xr-x root/root",
		"/usr/bin/halist":       "l--------- root/root -> hastatus",
		"/usr/bin/hashowdowned": "l--------- root/root -> hastatus",

		"/usr/share/bash-completion/completions/hacheck": "-rw-r--r-- root/root",
	}
	for _, path := range []string{
		"/etc/default/hacheck", "/etc/logrotate.d/hacheck", "/usr/lib/systemd/system/hacheck.service", "/usr/lib/systemd/system/hacheck.socket", "/usr/lib/systemd/system/hacheck-control.socket",
		"/usr/lib/systemd/system/hacheck-drain.service",
		"/usr/lib/sysusers.d/hacheck.conf", "/usr/share/man/man5/hacheck.yaml.5.gz",
		"/usr/share/man/man8/hacheck.8.gz", "/usr/share/man/man8/hacheck-run.8.gz", "/usr/share/doc/hacheck/examples/haproxy.cfg",
		"/usr/share/doc/hacheck/examples/prometheus/hacheck.rules.yml", "/usr/share/doc/hacheck/examples/grafana/hacheck.json",
	} {
		want[path] = "-rw-r--r-- root/root"
	}
	for _, name := range commandNames {
		want["/usr/share/fish/vendor_completions.d/"+name+".fish"] = "-rw-r--r-- root/root"
		if name != "hacheck" {
			want["/usr/share/man/man1/"+name+".1.gz"] = "-rw-r--r-- root/root"
			want["/usr/share/bash-completion/completions/"+name] = "l--------- root/root -> hacheck"
		}
	}
	for _, p := range []struct {
		name string
		has  map[string]string
		also []string
	}{
		{"deb", debFiles(t, deb), []string{"/usr/share/hacheck/hacheck.yaml", "/usr/share/doc/hacheck/copyright", "/usr/share/doc/hacheck/changelog.gz", "/usr/share/doc/hacheck/changelog.Debian.gz", "/usr/share/zsh/vendor-completions/_hacheck"}},
		{"rpm", rpmFiles(t, rpm), []string{"/etc/hacheck.yaml", "/usr/share/licenses/hacheck/LICENSE", "/usr/share/zsh/site-functions/_hacheck"}},
	} {
		for path, mode := range want {
			// The mode of a link depends on the package format.
			got, mode := regexp.MustCompile(`^l\S+`).ReplaceAllString(p.has[path], "l"), regexp.MustCompile(`^l\S+`).ReplaceAllString(mode, "l")
			if got != mode {
				t.Errorf("%s: %s is %q, want %q", p.name, path, p.has[path], mode)
			}
		}
		for _, path := range p.also {
			if p.has[path] == "" {
				t.Errorf("%s: no %s", p.name, path)
			}
		}
		for path, mode := range p.has {
			if mode[0] != 'l' && mode[5] == 'w' || mode[0] != 'l' && mode[8] == 'w' || !strings.Contains(mode, " root/root") {
				t.Errorf("%s: %s is %s", p.name, path, mode)
			}
		}
	}
	for arch, pair := range map[string][2]string{
		"amd64": {deb, rpm},
		"arm64": {filepath.Join(dist, "hacheck_1.0.0-1_arm64.deb"), filepath.Join(dist, "hacheck-1.0.0-1.aarch64.rpm")},
	} {
		if diff := cmp.Diff(debFiles(t, deb), debFiles(t, pair[0])); diff != "" {
			t.Errorf("the deb for %s has other files:\n%s", arch, diff)
		}
		if diff := cmp.Diff(rpmFiles(t, rpm), rpmFiles(t, pair[1])); diff != "" {
			t.Errorf("the rpm for %s has other files:\n%s", arch, diff)
		}
		if got := mustOutput(t, "dpkg-deb", "--field", pair[0], "Architecture"); strings.TrimSpace(got) != arch {
			t.Errorf("the deb for %s is for %s", arch, got)
		}
	}
	for field, want := range map[string]string{"Recommends": "", "Depends": "", "Suggests": "haproxy"} {
		if got := strings.TrimSpace(mustOutput(t, "dpkg-deb", "--field", deb, field)); got != want {
			t.Errorf("%s of the deb is %q, want %q", field, got, want)
		}
	}
	if got, want := mustOutput(t, "dpkg-deb", "--info", deb, "conffiles"), "/etc/default/hacheck\n/etc/logrotate.d/hacheck\n"; got != want {
		t.Errorf("the conffiles of the deb are %q, want %q", got, want)
	}
	if got, want := mustOutput(t, "rpm", "--query", "--package", "--configfiles", rpm), "/etc/default/hacheck\n/etc/hacheck.yaml\n/etc/logrotate.d/hacheck\n"; got != want {
		t.Errorf("the configuration files of the rpm are %q, want %q", got, want)
	}
	documentsExist(t, deb)
	// debian-revision and so on are tags of information. An error would be one for every user of the package.
	mustOutput(t, "lintian", "--allow-root", "--fail-on", "error", deb)
	// The packages contain nothing of the build machine.
	if got := mustOutput(t, "rpm", "--query", "--package", "--queryformat", "%{BUILDHOST} %{BUILDTIME}", rpm); got != "localhost 1700000000" {
		t.Errorf("the rpm was built on and at %s", got)
	}
	for _, name := range []string{"control", "preinst", "postinst", "prerm", "postrm"} {
		if text := mustOutput(t, "dpkg-deb", "--info", deb, name); strings.Contains(text, "/work") || strings.Contains(text, "${") && name == "control" {
			t.Errorf("%s has paths or variables of the build:\n%s", name, text)
		} else if name != "control" {
			file := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			mustOutput(t, "sh", "-n", file)
		}
	}
}

// installUpgradeRemove runs the steps in testdata/packages/<kind>.sh.
func installUpgradeRemove(t *testing.T, kind, v1, v2 string) {
	dir := t.TempDir()
	for to, from := range map[string]string{"v1." + kind: v1, "v2." + kind: v2, "common.sh": "testdata/packages/common.sh"} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"--mount", "--net", "--pid", "--fork", "--kill-child"}
	if os.Geteuid() != 0 {
		args = append(args, "--map-auto", "--map-root-user") // needs newuidmap and lines in /etc/subuid and /etc/subgid
	}
	scripts, err := filepath.Abs("testdata/packages")
	if err != nil {
		t.Fatal(err)
	}
	args = append(args, "bash", filepath.Join(scripts, "chroot.sh"), t.TempDir(), filepath.Join(scripts, kind+".sh"),
		filepath.Join(dir, "v1."+kind), filepath.Join(dir, "v2."+kind), filepath.Join(dir, "common.sh"))
	out, err := exec.CommandContext(t.Context(), findTool(t, "unshare"), args...).CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "DONE\n") {
		t.Fatalf("%s.sh in a copy of this machine (needs root, or namespaces for users with uidmap): %v\n%s", kind, err, out)
	}
}

// containerRoot checks the container recipe and the files that it copies, without a container.
func containerRoot(t *testing.T, dist string) {
	recipe, err := os.ReadFile("../packaging/Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	from, user, entry, added := "", "", "", ""
	for line := range strings.Lines(string(recipe)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "FROM":
			from = rest
		case "USER":
			user = rest
		case "ENTRYPOINT":
			entry = rest
		case "ADD", "COPY":
			added += rest
		}
	}
	if from != "scratch" || user != "65532:65532" || entry != `["/usr/bin/hacheck", "--config-file", "/etc/hacheck.yaml"]` || added != "dist/hacheck-root-${TARGETARCH}.tar.gz /" {
		t.Errorf("the recipe is FROM %s, USER %s, ENTRYPOINT %s, ADD %s", from, user, entry, added)
	}
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		name := strings.TrimSuffix(strings.TrimPrefix(strings.ReplaceAll(added, "${TARGETARCH}", arch), "dist/"), " /")
		f, err := os.Open(filepath.Join(dist, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		has := map[string]string{}
		for r := tar.NewReader(z); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("/", h.Name)
			has[path] = fmt.Sprintf("%c %o %d:%d", h.Typeflag, h.Mode, h.Uid, h.Gid)
			if h.Typeflag != tar.TypeReg || filepath.Dir(path) != "/usr/bin" {
				continue
			}
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			e, err := elf.NewFile(bytes.NewReader(b))
			if err != nil {
				t.Fatalf("%s: %s: %v", arch, path, err)
			}
			libraries, err := e.ImportedLibraries()
			if e.Machine != machine || err != nil || len(libraries) > 0 || slices.ContainsFunc(e.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
				t.Errorf("%s: %s is for %v and needs %v, %v; want a static program", arch, path, e.Machine, libraries, err)
			}
		}
		want := map[string]string{"/etc/hacheck.yaml": "0 644 0:0", "/etc/passwd": "0 644 0:0", "/var/spool/hacheck": "5 750 65532:65532"}
		for _, c := range commandNames {
			want["/usr/bin/"+c] = "0 755 0:0"
		}
		for _, link := range []string{"halist", "hashowdowned"} {
			want["/usr/bin/"+link] = "2 777 0:0"
		}
		ignore := cmpopts.IgnoreMapEntries(func(path, _ string) bool {
			return path == "/var" || want[path] == "" && filepath.Dir(path) == "/" || path == "/usr/bin" || path == "/var/spool"
		})
		if diff := cmp.Diff(want, has, ignore); diff != "" {
			t.Errorf("%s: (-want +has)\n%s", name, diff)
		}
	}
}
