package daemon

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"sync"
	"sync/atomic"

	"hacheck/internal/health"
	"hacheck/internal/loglimit"
	"hacheck/internal/spool"
)

// openOverrides opens the spool directory of a subcommand that can do without one. While the directory does not exist,
// there are no overrides. A directory that cannot be read is an error: an operator's override would have no effect.
func openOverrides(root string, log *slog.Logger) (health.Overrides, error) {
	late := &optionalOverrides{root: root, log: log}
	if late.isMissing() {
		log.Info("no spool directory, so there are no overrides", "spool", root)
		return late, nil
	}
	return late.open()
}

// optionalOverrides are the overrides of a directory that did not exist at the start: none, until the first hadown on this
// host creates the directory.
type optionalOverrides struct {
	root  string
	log   *slog.Logger
	index atomic.Pointer[spool.Index] // nil until the directory exists

	mu     sync.Mutex // held while the directory is opened
	failed bool       // opening it has failed, and that was logged
}

func (l *optionalOverrides) isMissing() bool {
	_, err := os.Lstat(path.Clean(l.root))
	return errors.Is(err, fs.ErrNotExist)
}

func (l *optionalOverrides) open() (*spool.Index, error) {
	dir, err := spool.OpenDir(l.root)
	if err != nil {
		return nil, err
	}
	warnAboutSpool(l.log, dir.Root())
	return spool.OpenIndex(dir, spool.IndexOptions{Log: l.log, LogLimit: loglimit.New(l.log)})
}

// Lookup implements health.Overrides. Each call checks for the directory, so that an override is in force once hadown
// has returned.
func (l *optionalOverrides) Lookup(service, host string, port uint16, local bool) spool.View {
	index := l.index.Load()
	if index == nil {
		if index = l.openIfPresent(); index == nil {
			return spool.View{}
		}
	}
	return index.Lookup(service, host, port, local)
}

// openIfPresent opens the directory if it exists. It returns nil otherwise, or if the directory cannot be read.
func (l *optionalOverrides) openIfPresent() *spool.Index {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.index.Load() != nil || l.isMissing() {
		return l.index.Load()
	}
	index, err := l.open()
	if err != nil {
		if !l.failed {
			l.failed = true
			l.log.Error("there is a spool directory now, but it cannot be read: its overrides are not obeyed", "spool", l.root, "err", err)
		}
		return nil
	}
	l.index.Store(index)
	l.log.Info("there is a spool directory now, its overrides are obeyed", "spool", l.root)
	return index
}
