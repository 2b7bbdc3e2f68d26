package spool

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Prefixes of the files that are no overrides. No service can have such a name.
const (
	ownPrefix   = "#hacheck-"
	tempPrefix  = ownPrefix + "new." // being written, not yet an override
	liftPrefix  = ownPrefix + "end." // followed by a file name; its override or weight ends: see announceEnd
	asidePrefix = ownPrefix + "old." // set aside: followed by 16 hex digits, "#" and the file's name
)

// isOwnFile reports whether name is a file of hacheck that is no override.
func isOwnFile(name string) bool {
	return len(name) > len(ownPrefix) && strings.HasPrefix(name, ownPrefix)
}

// newAsideName returns a name under which to set the file name aside.
func newAsideName(name string) string {
	return fmt.Sprintf("%s%016x#%s", asidePrefix, rand.Uint64(), name)
}

// originalName returns the name that a file had before it was set aside as name.
func originalName(name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, asidePrefix)
	if !ok || len(rest) < 18 || rest[16] != '#' {
		return "", false
	}
	return rest[17:], true
}

// keyOf returns the key that the file name is about, also when it was set aside; the zero Key for other files.
func keyOf(name string) Key {
	if original, ok := originalName(name); ok {
		name = original
	}
	k, err := ParseKey(name)
	if err != nil {
		return Key{}
	}
	return k
}
