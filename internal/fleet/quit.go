package fleet

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"hacheck/internal/spool"
)

// errNoSection is why a Fleet of OpenCopy has no connection.
var errNoSection = errors.New("the configuration has no section fleet, but overrides of the fleet that this host was in are in force here: " +
	"put the section back and reload hacheck, or end them with hacheck fleet leave")

// maxInForceNamed is how many overrides an InForceError names.
const maxInForceNamed = 5

// InForceError says that this host cannot quit the fleet, because overrides of it are in force here.
type InForceError struct{ Overrides []spool.Entry }

// Error names the overrides.
func (e *InForceError) Error() string {
	names := make([]string, 0, maxInForceNamed)
	for _, o := range e.Overrides[:min(len(e.Overrides), maxInForceNamed)] {
		text := fmt.Sprintf("%s for %s (%s by %s", o.Key.Name(), o.Scope, o.State.Word(), o.By)
		if o.Reason != "" {
			text += ": " + o.Reason
		}
		names = append(names, text+")")
	}
	if more := len(e.Overrides) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return "the section fleet is gone from the configuration while overrides of the fleet are in force on this host: " +
		strings.Join(names, ", ") + "; put the section back, or end them with haup, or with hacheck fleet leave for this host alone"
}

// Quit closes the fleet, unless overrides of it are in force on this host. Then it returns an InForceError and changes
// nothing: a configuration that was cut off must not bring a service up. `hacheck fleet leave` ends them on purpose.
func (f *Fleet) Quit() error {
	f.applier.applying.Lock()
	inForce := slices.DeleteFunc(slices.Clone(f.o.Overrides.List()), func(e spool.Entry) bool { return e.Scope == "" })
	f.applier.quit = len(inForce) == 0
	f.applier.applying.Unlock()
	if len(inForce) > 0 {
		return &InForceError{inForce}
	}
	return f.Close()
}

// OpenCopy obeys the overrides of the local copy without etcd, for a host whose configuration has no section fleet any
// more. It returns nil if the copy has none in force, or if this host ignores them (`hacheck fleet leave`). Endpoints and
// Credentials of o do not count. Operations that need etcd fail. It leaves nothing open when it returns nil.
func OpenCopy(o Options) (*Fleet, error) {
	o.Endpoints, o.Credentials = []string{"none"}, func() (Credentials, error) { return Credentials{}, errNoSection }
	if err := o.check(); err != nil {
		return nil, err
	}
	dir := &stateDir{path: o.StateDir}
	if !dir.hasCopy() {
		return nil, nil
	}
	dirErr := dir.open()
	if errors.Is(dirErr, errLocked) {
		return nil, nil // the copy belongs to the daemon that has locked it
	}
	c, err := dir.load()
	if c == nil || dir.readLeft() != nil || !c.hasInForce() {
		dir.close()
		return nil, err
	}
	f := newFleet(o, dir, func() {})
	f.conn.problem = errNoSection
	f.applier.start(dirErr, nil)
	o.Log.Warn("fleet: the configuration has no section fleet, but overrides stay in force; put it back, or end them with hacheck fleet leave",
		slog.Any("overrides", slices.Sorted(maps.Keys(c.Records))), slog.String("state_dir", o.StateDir))
	return f, nil
}

// lastCopy returns what this host knows of the overrides, nil if it has neither a copy nor read etcd.
func (a *applier) lastCopy() *localCopy {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.noCopy {
		return nil
	}
	return a.newCopy(a.acked)
}

// hasCopy reports whether the directory has a copy that this process may read. Another daemon's copy belongs to another
// user.
func (d *stateDir) hasCopy() bool {
	for i := range 2 {
		_, err := os.Stat(filepath.Join(d.path, copyPrefix+strconv.Itoa(i)))
		if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return true
		}
	}
	return false
}

// hasInForce reports whether an override of the copy is in force now.
func (c *localCopy) hasInForce() bool {
	r := newRules("", nil, nil)
	r.records = c.Records
	return len(r.entries(false)) > 0
}
