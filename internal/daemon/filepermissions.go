package daemon

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hacheck/internal/config"
)

const (
	// permissionsTimeout is how long a start or a reload waits for the warnings about files. A script may be on a file
	// server that hangs.
	permissionsTimeout = time.Second
	maxScriptWarnings  = 20
	maxFileWarnings    = 20 // about files of TLS
	maxSecretsNamed    = 5  // in the warning about passwords
)

// warnAboutPermissions logs what other users of this machine may do: take services out, run programs as this user, read
// passwords. The daemon starts all the same: without it every service is out.
func (d *daemon) warnAboutPermissions(c *config.Config) {
	if !d.permissions.TryLock() { // an earlier call still waits for a file server
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer d.permissions.Unlock()
		warnAboutSpool(d.log, d.dir.Root())
		warnAboutConfigFile(d.log, d.opts.configFile, c)
		warnAboutLog(d.log, c.LogPath)
		warnAboutScripts(d.log, scriptsOf(c.Services))
		warnAboutFleetFiles(d.log, c.Fleet)
		warnAboutTLSFiles(d.log, c)
	}()
	timeout := time.NewTimer(permissionsTimeout)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
	}
}

func warnAboutSpool(log *slog.Logger, root string) {
	if info, err := os.Stat(root); err == nil && info.Mode().Perm()&othersWrite != 0 {
		log.Warn("every user of this machine may take services out: the spool directory is writable by others, chmod o-w it",
			"directory", root, "mode", info.Mode().String())
	}
	if e, ok := findUntrustedWriter(root); ok {
		log.Warn("another user of this machine may replace the spool directory, and so decide what is up: make what is writable there root's, with mode 0755",
			append([]any{"directory", root}, e.attrs()...)...)
	}
}

func warnAboutConfigFile(log *slog.Logger, file string, c *config.Config) {
	if file == "" {
		return
	}
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	if info.Mode().Perm()&othersWrite != 0 {
		log.Warn("every user of this machine may change the configuration, which names programs to run: chmod o-w it",
			"config", file, "mode", info.Mode().String())
	} else if e, ok := findUntrustedWriter(file); ok {
		log.Warn("another user of this machine may change or replace the configuration, which names programs to run: make what is writable there root's, without o+w",
			append([]any{"config", file}, e.attrs()...)...)
	}
	if secrets := c.SecretLocations(); info.Mode().Perm()&othersRead != 0 && len(secrets) > 0 {
		if more := len(secrets) - maxSecretsNamed; more > 0 {
			secrets = append(secrets[:maxSecretsNamed:maxSecretsNamed], fmt.Sprintf("and %d more", more))
		}
		log.Warn("every user of this machine may read the passwords in the configuration: chmod o-r it",
			"config", file, "mode", info.Mode().String(), "passwords", strings.Join(secrets, ", "))
	}
}

func warnAboutLog(log *slog.Logger, path string) {
	if !filepath.IsAbs(path) { // stdout, stderr
		return
	}
	if e, ok := findUntrustedWriter(path); ok {
		log.Warn("another user of this machine may change or replace the log file: make what is writable there hacheck's or root's, without o+w",
			append([]any{"log_path", path}, e.attrs()...)...)
	}
}

// warnAboutFleetFiles warns about the files with which this host logs in to etcd.
func warnAboutFleetFiles(log *slog.Logger, f *config.Fleet) {
	if f == nil {
		return
	}
	for _, file := range []struct{ key, path string }{{"password_file", f.PasswordFile}, {"key_file", f.KeyFile}} {
		if info, err := os.Stat(file.path); file.path != "" && err == nil && info.Mode().Perm()&(othersRead|othersWrite) != 0 {
			log.Warn("every user of this machine may log in to etcd as this host, and take the fleet down: chmod o-rw the file",
				"key", file.key, "file", file.path, "mode", info.Mode().String())
		}
	}
	if info, err := os.Stat(f.StateDir); err == nil && info.Mode().Perm()&othersWrite != 0 {
		log.Warn("every user of this machine may change the overrides of the fleet on this host: state_dir is writable by others, chmod o-w it",
			"state_dir", f.StateDir, "mode", info.Mode().String())
	}
	if e, ok := findUntrustedWriter(f.StateDir); ok {
		log.Warn("another user of this machine may replace state_dir, and so the overrides of the fleet on this host: make what is writable there root's, with mode 0755",
			append([]any{"state_dir", f.StateDir}, e.attrs()...)...)
	}
	for _, file := range []struct{ key, path string }{
		{"ca_file", f.CAFile}, {"cert_file", f.CertFile}, {"key_file", f.KeyFile}, {"password_file", f.PasswordFile},
	} {
		if file.path == "" {
			continue
		}
		if e, ok := findUntrustedWriter(file.path); ok {
			log.Warn("another user of this machine may change or replace a file of the login to etcd: make what is writable there root's, without o+w",
				append([]any{"key", file.key, "file", file.path}, e.attrs()...)...)
		}
	}
}

// warnAboutTLSFiles warns about the files of tls_listen, and about those of the checks' certificates.
func warnAboutTLSFiles(log *slog.Logger, c *config.Config) {
	files := []config.FileOption{{Key: "tls_key_file", Path: c.TLSKeyFile}, {Key: "tls_cert_file", Path: c.TLSCertFile}, {Key: "tls_client_ca_file", Path: c.TLSClientCAFile}}
	for _, s := range c.Services {
		files = append(files, s.Files()...)
	}
	slices.SortFunc(files, func(a, b config.FileOption) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Key, b.Key))
	})
	warnings := 0
	for _, f := range slices.Compact(files) {
		if f.Path == "" || warnings == maxFileWarnings {
			continue
		}
		attrs := []any{"key", f.Key, "file", f.Path}
		isKey := strings.HasSuffix(f.Key, "key_file")
		if info, err := os.Stat(f.Path); isKey && err == nil && info.Mode().Perm()&othersRead != 0 {
			warnings++
			log.Warn("every user of this machine may read the private key: chmod o-r the file", append(attrs, "mode", info.Mode().String())...)
		}
		if e, ok := findUntrustedWriter(f.Path); ok {
			warnings++
			log.Warn("another user of this machine may change or replace a file of TLS: make what is writable there root's, without o+w",
				append(attrs, e.attrs()...)...)
		}
	}
}

// scriptCommand is the command line of a script check.
type scriptCommand struct {
	service string
	argv    []string
}

func scriptsOf(services []config.Service) (commands []scriptCommand) {
	for _, s := range services {
		for _, argv := range s.Scripts() {
			commands = append(commands, scriptCommand{s.Name, argv})
		}
	}
	return commands
}

// warnAboutScripts warns about the programs of script checks, and about files among their arguments, such as the script
// of an interpreter. It names each file once.
func warnAboutScripts(log *slog.Logger, commands []scriptCommand) {
	seen := map[string]bool{}
	warnings := 0
	for _, c := range commands {
		for _, file := range scriptFiles(c.argv) {
			if seen[file] {
				continue
			}
			seen[file] = true
			e, ok := findUntrustedWriter(file)
			if !ok {
				continue
			}
			if warnings++; warnings > maxScriptWarnings {
				log.Warn("other users of this machine may change more of what script checks run; the rest is not listed")
				return
			}
			log.Warn("another user of this machine may change or replace what a script check runs: make what is writable there root's, without o+w",
				append([]any{"service", c.service, "file", file}, e.attrs()...)...)
		}
	}
}

// scriptFiles returns the files that decide what a command does: its program, every path where PATH has it looked up
// before it is found, and arguments that are absolute paths of regular files.
func scriptFiles(argv []string) (files []string) {
	if strings.Contains(argv[0], "/") {
		files = append(files, argv[0])
	} else {
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			if !filepath.IsAbs(dir) {
				continue // os/exec runs no program from a relative directory
			}
			file := filepath.Join(dir, argv[0])
			files = append(files, file)
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				break
			}
		}
	}
	for _, arg := range argv[1:] {
		if info, err := os.Stat(arg); filepath.IsAbs(arg) && err == nil && info.Mode().IsRegular() {
			files = append(files, arg)
		}
	}
	return files
}
