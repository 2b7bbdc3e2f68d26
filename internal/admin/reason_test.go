package admin

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLoginUID: the user of the login session. Where the kernel has none, it is the user of the process, and under sudo
// the user who has called sudo.
func TestLoginUID(t *testing.T) {
	t.Parallel()
	const none = "no file"
	for _, c := range []struct {
		content string // of the file in /proc
		realUID int
		sudoUID string
		want    int
	}{
		{"1000", 1001, "", 1000},
		{"1000", 0, "1002", 1000},
		{"0\n", 1001, "", 0},
		{"4294967295", 1001, "", 1001}, // not set
		{"-1", 1001, "", 1001},
		{"4294967296", 1001, "", 1001},
		{"", 1001, "", 1001},
		{"alice", 1001, "", 1001},
		{none, 1001, "", 1001},
		{none, 0, "", 0},
		{none, 0, "1002", 1002},
		{"4294967295", 0, "1002", 1002},
		{none, 1001, "1002", 1001}, // only sudo and root set it for root
		{none, 0, "-1", 0},
		{none, 0, "4294967295", 0},
		{none, 0, "alice", 0},
	} {
		file := filepath.Join(t.TempDir(), "loginuid")
		if c.content != none {
			if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := loginUID(file, c.realUID, c.sudoUID); got != c.want {
			t.Errorf("%+v: user id %d", c, got)
		}
	}
}
