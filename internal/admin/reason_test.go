package admin

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLoginUID: the user of the login session, and the real user where the kernel has no login session.
func TestLoginUID(t *testing.T) {
	for content, want := range map[string]int{
		"1000":       1000,
		"0\n":        0,
		"4294967295": os.Getuid(), // not set
		"-1":         os.Getuid(),
		"4294967296": os.Getuid(),
		"":           os.Getuid(),
		"alice":      os.Getuid(),
	} {
		file := filepath.Join(t.TempDir(), "loginuid")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := loginUID(file); got != want {
			t.Errorf("%q is user id %d, want %d", content, got, want)
		}
	}
	if got := loginUID(filepath.Join(t.TempDir(), "none")); got != os.Getuid() {
		t.Errorf("without the file it is user id %d, want %d", got, os.Getuid())
	}
}
