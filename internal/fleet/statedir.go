package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The files of the state directory.
const (
	lockFile     = "lock"
	instanceFile = "instance"
	leftFile     = "left"
	maxSmallFile = 4 << 10
)

// errLocked is the error of a state directory that another daemon uses.
var errLocked = errors.New("another hacheck daemon uses this directory")

// leaveMark says that this host ignores fleet overrides.
type leaveMark struct {
	At time.Time `json:"at"`
	By string    `json:"by,omitempty"`
}

// stateDir is the directory with the local copy, the instance id and the mark of `hacheck fleet leave`. It may be
// missing, read-only or full for a while: each method tries again. It is safe for concurrent use.
type stateDir struct {
	path string

	mu         sync.Mutex
	lock       *os.File // nil: not open
	instance   string
	generation uint64
	current    fs.FileInfo // of the file with generation, when it was read or written; nil: none
	sum        string      // checksum of that file
}

// open locks the directory and reads or makes the instance id. After an error other than errLocked the directory is
// unusable for now; the instance id then lives as long as the process.
func (d *stateDir) open() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.acquire()
	if d.instance == "" {
		d.instance = newID()
	}
	return err
}

// acquire locks the directory unless it is locked already. The caller holds d.mu.
func (d *stateDir) acquire() error {
	path := filepath.Join(d.path, lockFile)
	if d.lock != nil {
		ours, err := d.lock.Stat()
		if err == nil {
			var there fs.FileInfo
			if there, err = os.Stat(path); err == nil && os.SameFile(ours, there) {
				return nil
			}
		}
		d.unlock() // the directory was removed or replaced
	}
	if err := os.Mkdir(d.path, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create state_dir: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
		f, err = os.Open(path) // the copy may still be read
	}
	if err != nil {
		return fmt.Errorf("open state_dir: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("state_dir %s: %w; each daemon needs a state_dir of its own", d.path, errLocked)
		}
		return fmt.Errorf("lock state_dir %s: %w", d.path, err)
	}
	d.lock = f
	return d.identify()
}

// identify reads the instance id, or writes one if there is none. The caller holds d.mu.
func (d *stateDir) identify() error {
	b, err := readFile(filepath.Join(d.path, instanceFile), maxSmallFile)
	if id := strings.TrimSpace(string(b)); err == nil && id != "" && len(id) <= 64 {
		if d.instance == "" {
			d.instance = id
		}
		return nil
	}
	if d.instance == "" {
		d.instance = newID()
	}
	if err := d.write(instanceFile, []byte(d.instance+"\n")); err != nil {
		return fmt.Errorf("write the instance id: %w", err)
	}
	return nil
}

// close releases the lock.
func (d *stateDir) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock != nil {
		d.unlock()
	}
}

// unlock releases the lock at once. Closing the file alone would leave it to a child process that is about to start and
// still has the descriptor. The caller holds d.mu.
func (d *stateDir) unlock() {
	_ = unix.Flock(int(d.lock.Fd()), unix.LOCK_UN) // Close does it too
	_ = d.lock.Close()
	d.lock = nil
}

// readLeft returns the mark of `hacheck fleet leave`, nil without. A mark that cannot be read counts as one: an operator
// has written it in an emergency.
func (d *stateDir) readLeft() *leaveMark {
	b, err := readFile(filepath.Join(d.path, leftFile), maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) || err != nil && !fileExists(filepath.Join(d.path, leftFile)) {
		return nil
	}
	l := &leaveMark{}
	if err != nil || json.Unmarshal(b, l) != nil {
		return &leaveMark{}
	}
	return l
}

func fileExists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// writeLeft writes the mark, or removes it if l is nil.
func (d *stateDir) writeLeft(l *leaveMark) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.acquire(); err != nil {
		return err
	}
	if l == nil {
		err := os.Remove(filepath.Join(d.path, leftFile))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return syncDir(d.path)
	}
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return d.write(leftFile, append(b, '\n'))
}

// write replaces a file of the directory and returns when it is on disk. The caller holds d.mu.
func (d *stateDir) write(name string, content []byte) error {
	temporary := filepath.Join(d.path, name+".new")
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(temporary)
		return err
	}
	if err := os.Rename(temporary, filepath.Join(d.path, name)); err != nil {
		return err
	}
	return syncDir(d.path)
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// readFile reads a regular file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return b, err
}
