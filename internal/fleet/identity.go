package fleet

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"strings"
)

// identity tells two daemons with the same host name apart.
type identity struct {
	Instance string // random, kept in the state directory
	Boot     string // boot id of the kernel; "" where it has none
}

// bootID returns the boot id of the kernel, or "" where it has none.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// newID returns a random id of 128 bits.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
