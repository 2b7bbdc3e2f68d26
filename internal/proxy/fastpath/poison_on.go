//go:build poison

package fastpath

import "unsafe"

// With the build tag "poison" the fast path overwrites each buffer once its request is answered, and the copy of a head
// once the connection has forgotten it, so that a test notices at once when something still reads them. `make test` and
// `make fuzz` build with this tag.

// poison overwrites a buffer whose request is answered.
func poison(b []byte) {
	for i := range b {
		b[i] = '!'
	}
}

// poisonText overwrites a copy of a head. The copy was made at run time and has no other owner, so its memory is
// writable.
func poisonText(s string) { poison(unsafe.Slice(unsafe.StringData(s), len(s))) }
