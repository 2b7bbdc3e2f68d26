package admin

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// runOnTmpfs is the script command `ontmpfs DIR SIZE SCRIPT`: it runs a shell script with a small file
// system on DIR, in a mount namespace of its own that needs no cleaning up.
func runOnTmpfs() {
	const inside = "TEST_ON_TMPFS"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Args[0] = os.Args[0] // which makes it come back here
		cmd.Env = append(os.Environ(), inside+"=yes")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if uid := os.Geteuid(); uid != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		}
		runToEnd(cmd)
	}
	for _, err := range []error{
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), // other namespaces do not see the next one
		syscall.Mount("tmpfs", os.Args[1], "tmpfs", 0, "mode=0755,size="+os.Args[2]),
	} {
		if err != nil {
			fmt.Fprintln(os.Stderr, "ontmpfs: mount:", err)
			os.Exit(99)
		}
	}
	runToEnd(exec.Command("sh", "-c", os.Args[3]))
}

// runToEnd runs a command in place of this process.
func runToEnd(cmd *exec.Cmd) {
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	var failed *exec.ExitError
	switch {
	case errors.As(err, &failed):
		os.Exit(failed.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "ontmpfs:", err)
		os.Exit(99)
	}
	os.Exit(0)
}
