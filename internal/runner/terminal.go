package runner

import (
	"os"

	"golang.org/x/sys/unix"
)

// isTerminal tells a terminal from other devices: only a terminal has a line discipline.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), getTermios)
	return err == nil
}
