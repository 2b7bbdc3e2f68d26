package test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// insideNamespace is the environment variable that is set in the child process of runInNamespace. Its value is the
// directory of the commands.
const insideNamespace = "HACHECK_TEST_NAMESPACE"

// runInNamespace runs f, the whole body of the test t, in a child process that has a namespace of its own. flag is
// syscall.CLONE_NEWNET or syscall.CLONE_NEWNS. It needs no root if users may create user namespaces.
func runInNamespace(t *testing.T, flag uintptr, f func(t *testing.T)) {
	t.Helper()
	if dir := os.Getenv(insideNamespace); dir != "" {
		commands.once.Do(func() { commands.dir = dir })
		t.Cleanup(func() { commands.dir = "" }) // the parent process removes the directory
		f(t)
		return
	}
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), insideNamespace+"="+filepath.Dir(bin(t, "hacheck")), "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flag, Pdeathsig: syscall.SIGKILL}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		t.Errorf("in a namespace: %v\n%s", err, out)
	case err != nil:
		t.Fatalf("create a namespace: %v; run the tests as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)", err)
	}
}
