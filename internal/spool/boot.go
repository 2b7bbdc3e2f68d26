package spool

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// bootIDFile is where Linux has the id of the present start of the machine (random(4)).
const bootIDFile = "/proc/sys/kernel/random/boot_id"

// BootID returns the id of the present start of the machine, for Entry.Boot. Every start has another one. A container has
// the id of its host, and a soft reboot of systemd keeps the id. It returns an error if the system has none.
func BootID() (string, error) { return readBootID(bootIDFile) }

func readBootID(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if !isBootID(id) {
		return "", fmt.Errorf("read the boot id: %s has no UUID", path)
	}
	return id, nil
}

// isBootID reports whether s is a UUID as the kernel writes it.
func isBootID(s string) bool {
	return len(s) == 36 && strings.Trim(s, "0123456789abcdef-") == ""
}

// endAtBoot ends e if the machine has started again since e was set. read returns the id of the present start. If it fails,
// e stays: nothing lifts an override whose end is not known.
func (e *Entry) endAtBoot(read func() (string, error)) {
	if e.Boot == "" {
		return
	}
	if id, err := read(); err == nil && id != e.Boot {
		e.Expires = time.Unix(1, 0) // long ago; the zero time would be never
	}
}
