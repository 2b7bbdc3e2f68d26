package main

import (
	"log/slog"
	"os"

	"hacheck/internal/config"
)

// The permissions that files should not have.
const (
	othersRead  = 0o004
	othersWrite = 0o002
)

// warnOfModes tells what any user of this machine may do: take services out, have programs run, read
// passwords. It is no reason not to start: without hacheck every service is out.
func warnOfModes(log *slog.Logger, spoolRoot, configFile string, c *config.Config) {
	if info, err := os.Stat(spoolRoot); err == nil && info.Mode().Perm()&othersWrite != 0 {
		log.Warn("every user of this machine may take services out: the spool directory is writable by others, chmod o-w it",
			"directory", spoolRoot, "mode", info.Mode().String())
	}
	if configFile == "" {
		return
	}
	info, err := os.Stat(configFile)
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	switch mode := info.Mode().Perm(); {
	case mode&othersWrite != 0:
		log.Warn("every user of this machine may change the configuration, which names programs to run: chmod o-w it",
			"config", configFile, "mode", info.Mode().String())
	case mode&othersRead != 0 && hasSecret(c):
		log.Warn("every user of this machine may read the passwords in the configuration: chmod o-r it",
			"config", configFile, "mode", info.Mode().String())
	}
}

// hasSecret reports whether there is a password or a token in c.
func hasSecret(c *config.Config) bool {
	if c.MySQLPassword.Reveal() != "" || c.RedisPassword.Reveal() != "" || c.RemoteSpoolToken.Reveal() != "" {
		return true
	}
	for _, s := range c.Services {
		for _, one := range s.Checks {
			for _, option := range []string{"password", "auth", "digest_auth"} {
				if one.Spec.Options[option] != nil {
					return true
				}
			}
		}
	}
	return false
}
