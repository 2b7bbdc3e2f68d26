//go:build unix

package spool

import (
	"slices"
	"time"
)

// spoolFile is a file of the directory that is an override, or a symbolic link that may lead to one.
type spoolFile struct {
	name         string
	key          Key
	entry        *Entry   // nil: the link leads to no file
	expired      bool     // entry has expired
	retry        bool     // the last reading failed or was postponed: the next lookup reads it again
	unwatched    bool     // a link into a subdirectory, where no event tells of changes
	via          []string // names in the directory that the link leads over
	removeFailed bool     // it has expired and could not be removed, which is in the log
	carriedFrom  *dirID   // the directory of another mount that it was read in; nil: the watched one
	listing      uint64   // of fileTable, the last one that saw it
}

// isInForce reports whether f is an override that has not expired.
func (f *spoolFile) isInForce() bool { return f.entry != nil && !f.expired }

// fileTable holds the files of the directory. Index.mu guards it.
type fileTable struct {
	byName       map[string]*spoolFile
	aliases      map[Key][]string           // file names about a key that differ from Key.Name
	linksTo      map[string]map[string]bool // file name to the names of symbolic links that lead there
	alwaysReload map[string]bool            // names of files with retry or unwatched

	limit         int  // files in byName
	tooMany       bool // the directory has more files than limit
	loggedTooMany bool

	listing    uint64    // counts the listings of the directory
	carried    int       // files with carriedFrom
	inForce    int       // overrides in force
	nextExpiry time.Time // not later than the earliest one of an override in force; zero: none expires
}

func newFileTable(limit int) fileTable {
	return fileTable{
		byName: map[string]*spoolFile{}, aliases: map[Key][]string{}, linksTo: map[string]map[string]bool{},
		alwaysReload: map[string]bool{}, limit: limit,
	}
}

// add puts f into the table, where no file of that name may be.
func (t *fileTable) add(f *spoolFile) {
	t.byName[f.name] = f
	if f.name != f.key.Name() {
		t.aliases[f.key] = append(t.aliases[f.key], f.name)
	}
	for _, name := range f.via {
		if t.linksTo[name] == nil {
			t.linksTo[name] = map[string]bool{}
		}
		t.linksTo[name][f.name] = true
	}
	if f.retry || f.unwatched {
		t.alwaysReload[f.name] = true
	}
	if f.carriedFrom != nil {
		t.carried++
	}
	if f.isInForce() {
		t.inForce++
		t.lowerNextExpiry(f.entry.Expires)
	}
}

// lowerNextExpiry lowers nextExpiry to expires, unless that is zero.
func (t *fileTable) lowerNextExpiry(expires time.Time) {
	t.nextExpiry = earlier(t.nextExpiry, expires)
}

// remove takes f out of the table.
func (t *fileTable) remove(f *spoolFile) {
	delete(t.byName, f.name)
	delete(t.alwaysReload, f.name)
	if f.carriedFrom != nil {
		t.carried--
	}
	if f.name != f.key.Name() {
		names := slices.DeleteFunc(t.aliases[f.key], func(name string) bool { return name == f.name })
		if t.aliases[f.key] = names; len(names) == 0 {
			delete(t.aliases, f.key)
		}
	}
	for _, name := range f.via {
		if delete(t.linksTo[name], f.name); len(t.linksTo[name]) == 0 {
			delete(t.linksTo, name)
		}
	}
	if f.isInForce() {
		t.inForce--
	}
}

// of returns the files about k.
func (t *fileTable) of(k Key) []*spoolFile {
	var list []*spoolFile
	if f := t.byName[k.Name()]; f != nil {
		list = append(list, f)
	}
	for _, name := range t.aliases[k] {
		list = append(list, t.byName[name])
	}
	return list
}

// postpone leaves f as it is and has the next lookup read it.
func (t *fileTable) postpone(f *spoolFile) {
	f.retry = true
	t.alwaysReload[f.name] = true
}
