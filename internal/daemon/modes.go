package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hacheck/internal/config"
)

const (
	// modesTimeout is how long a start or a reload waits for the warnings about files. A script may be on a file server
	// that hangs, which is no reason not to answer.
	modesTimeout = time.Second
	// maxModeWarnings is how many scripts are warned of, and maxSecretsNamed how many places with passwords are named.
	maxModeWarnings = 20
	maxSecretsNamed = 5
)

// warnOfModes logs what other users of this machine may do: take services out, have programs run, read passwords. It
// is no reason not to start: without hacheck every service is out.
func (d *daemon) warnOfModes(c *config.Config) {
	if !d.modes.TryLock() { // the last look still waits for a file server
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer d.modes.Unlock()
		warnOfSpool(d.log, d.dir.Root())
		warnOfConfig(d.log, d.opts.configFile, c)
		warnOfLog(d.log, c.LogPath)
		warnOfScripts(d.log, scriptsOf(c.Services))
	}()
	timeout := time.NewTimer(modesTimeout)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
	}
}

func warnOfSpool(log *slog.Logger, root string) {
	if info, err := os.Stat(root); err == nil && info.Mode().Perm()&othersWrite != 0 {
		log.Warn("every user of this machine may take services out: the spool directory is writable by others, chmod o-w it",
			"directory", root, "mode", info.Mode().String())
	}
	if e, ok := exposed(root); ok {
		log.Warn("another user of this machine may replace the spool directory, and so decide what is up: make what is writable there root's, with mode 0755",
			append([]any{"directory", root}, e.attrs()...)...)
	}
}

func warnOfConfig(log *slog.Logger, file string, c *config.Config) {
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
	} else if e, ok := exposed(file); ok {
		log.Warn("another user of this machine may change or replace the configuration, which names programs to run: make what is writable there root's, without o+w",
			append([]any{"config", file}, e.attrs()...)...)
	}
	if secrets := c.Secrets(); info.Mode().Perm()&othersRead != 0 && len(secrets) > 0 {
		if more := len(secrets) - maxSecretsNamed; more > 0 {
			secrets = append(secrets[:maxSecretsNamed:maxSecretsNamed], fmt.Sprintf("and %d more", more))
		}
		log.Warn("every user of this machine may read the passwords in the configuration: chmod o-r it",
			"config", file, "mode", info.Mode().String(), "passwords", strings.Join(secrets, ", "))
	}
}

func warnOfLog(log *slog.Logger, path string) {
	if !filepath.IsAbs(path) { // stdout, stderr
		return
	}
	if e, ok := exposed(path); ok {
		log.Warn("another user of this machine may change or replace the log file: make what is writable there hacheck's or root's, without o+w",
			append([]any{"log_path", path}, e.attrs()...)...)
	}
}

// command is what a script check of a service runs.
type command struct {
	service string
	argv    []string
}

func scriptsOf(services []config.Service) (commands []command) {
	for _, s := range services {
		for _, argv := range s.Scripts() {
			commands = append(commands, command{s.Name, argv})
		}
	}
	return commands
}

// warnOfScripts warns of programs of script checks, and of files among their arguments, as of a script that an
// interpreter is given. It names each file once.
func warnOfScripts(log *slog.Logger, commands []command) {
	seen := map[string]bool{}
	warnings := 0
	for _, c := range commands {
		for _, file := range scriptFiles(c.argv) {
			if seen[file] {
				continue
			}
			seen[file] = true
			e, ok := exposed(file)
			if !ok {
				continue
			}
			if warnings++; warnings > maxModeWarnings {
				log.Warn("other users of this machine may change more of what script checks run; the rest is not listed")
				return
			}
			log.Warn("another user of this machine may change or replace what a script check runs: make what is writable there root's, without o+w",
				append([]any{"service", c.service, "file", file}, e.attrs()...)...)
		}
	}
}

// scriptFiles returns the files that decide what a command does: its program, every place where the program is looked
// for before it is found, and arguments that are absolute paths of regular files.
func scriptFiles(argv []string) (files []string) {
	if strings.Contains(argv[0], "/") {
		files = append(files, argv[0])
	} else {
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			if !filepath.IsAbs(dir) {
				continue // programs are not run from there
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
