package fleet

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// The files of the two generations of the copy.
const (
	copyPrefix = "overrides." // followed by 0 or 1
	copyHeader = "hacheck-fleet-copy 1 "
	maxCopy    = 64 << 20 // bytes
)

// errNoCopy says that neither generation of the copy exists.
var errNoCopy = errors.New("there is no copy yet")

// localCopy is what a host needs to obey the fleet without etcd.
type localCopy struct {
	Generation uint64               `json:"generation"`
	Cluster    uint64               `json:"cluster"`  // id; 0: etcd was never read
	Header     int64                `json:"header"`   // largest revision of etcd that was read
	Revision   int64                `json:"revision"` // of the overrides of this host
	Acked      int64                `json:"acked"`    // largest revision that may stand in applied/<host>
	Records    map[string]*record   `json:"records"`  // by key below overrides/
	Ended      map[string]time.Time `json:"ended"`    // ids that are never obeyed again, and when this host learned it

	sum string // checksum of the file that this was read from
}

// merge adds what other knows, nil for nothing: an override that either has, unless it has ended for one of them.
func (c *localCopy) merge(other *localCopy) {
	if other == nil {
		return
	}
	for id, at := range other.Ended {
		if known, ok := c.Ended[id]; !ok || at.Before(known) {
			c.Ended[id] = at
		}
	}
	for key, r := range other.Records {
		if mine := c.Records[key]; mine == nil || mine.Mod < r.Mod {
			c.Records[key] = r
		}
	}
	maps.DeleteFunc(c.Records, func(_ string, r *record) bool { _, ended := c.Ended[r.Override.ID]; return ended })
}

// load returns the newest whole generation of the copy, nil if there is none. The error is errNoCopy if none was ever
// written. An error beside a copy says that the other generation is damaged: it may have been the newer one.
func (d *stateDir) load() (*localCopy, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var best *localCopy
	var errs []error
	missing := 0
	for i := range uint64(2) {
		c, err := readCopy(d.copyPath(i))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing++
		case err != nil:
			errs = append(errs, err)
		case best == nil || c.Generation > best.Generation:
			best = c
		}
	}
	switch {
	case best != nil:
		d.generation, d.sum = best.Generation, best.sum
		d.current, _ = os.Lstat(d.copyPath(d.generation))
	case missing == 2:
		return nil, errNoCopy
	}
	return best, errors.Join(errs...)
}

// copyPath returns the path of a generation of the copy.
func (d *stateDir) copyPath(generation uint64) string {
	return filepath.Join(d.path, copyPrefix+strconv.FormatUint(generation%2, 10))
}

// check returns an error if the newest generation is not on disk any more as this process has read or written it. It
// reads the file only if its inode, size or time differs.
func (d *stateDir) check() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current == nil {
		return nil
	}
	path := d.copyPath(d.generation)
	now, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if os.SameFile(now, d.current) && now.Size() == d.current.Size() && now.ModTime().Equal(d.current.ModTime()) {
		return nil
	}
	c, err := readCopy(path)
	switch {
	case err != nil:
		return err
	case c.sum != d.sum:
		return fmt.Errorf("%s has another content", path)
	}
	d.current = now
	return nil
}

// passGenerations makes save write a newer generation than any in the directory, which may be that of a backup.
func (d *stateDir) passGenerations() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range uint64(2) {
		if c, err := readCopy(d.copyPath(i)); err == nil {
			d.generation = max(d.generation, c.Generation)
		}
	}
}

// readCopy reads one generation and verifies its checksum.
func readCopy(path string) (*localCopy, error) {
	b, err := readFile(path, maxCopy)
	if err != nil {
		return nil, err
	}
	head, body, _ := bytes.Cut(b, []byte("\n"))
	sum := checksum(body)
	if string(head) != copyHeader+sum {
		return nil, fmt.Errorf("%s is not whole: its checksum is wrong", path)
	}
	c := &localCopy{sum: sum}
	if err := json.Unmarshal(body, c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for key, r := range c.Records {
		if r == nil {
			return nil, fmt.Errorf("%s: %s has no value", path, key)
		}
		if err := r.Override.check(); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, key, err)
		}
	}
	return c, nil
}

func checksum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// save writes the next generation of the copy, and returns when it is on disk. The other generation is left alone.
func (d *stateDir) save(c *localCopy) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.acquire(); err != nil {
		return err
	}
	c.Generation = d.generation + 1
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	sum := checksum(body)
	content := slices.Concat([]byte(copyHeader+sum+"\n"), body)
	if err := d.write(filepath.Base(d.copyPath(c.Generation)), content); err != nil {
		return fmt.Errorf("write the local copy: %w", err)
	}
	d.generation, d.sum = c.Generation, sum
	d.current, err = os.Lstat(d.copyPath(d.generation))
	return err
}
