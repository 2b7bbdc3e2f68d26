package servertest

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// insideNamespace is set in the environment of the child process of Namespace.Run.
const insideNamespace = "HACHECK_TEST_NAMESPACE"

// Namespace is a namespace for one test.
type Namespace struct {
	Flag    uintptr       // syscall.CLONE_NEWNET or syscall.CLONE_NEWNS
	Env     []string      // more of the environment of the test
	Args    []string      // more arguments of the test binary
	Timeout time.Duration // of the test; default 5 minutes
}

// Run runs f, the whole body of the test t, in a child process that has a namespace of its own. It needs no root if
// users may create user namespaces.
func (n Namespace) Run(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Getenv(insideNamespace) != "" {
		f(t)
		return
	}
	t.Parallel()
	timeout := cmp.Or(n.Timeout, 5*time.Minute)
	cmd := &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        append([]string{os.Args[0], "-test.run=^" + t.Name() + "$", "-test.v", "-test.timeout=" + timeout.String()}, n.Args...),
		Env:         append(append(os.Environ(), insideNamespace+"=1", "GORACE=atexit_sleep_ms=0"), n.Env...),
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: n.Flag, Pdeathsig: syscall.SIGKILL},
	}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if testing.Verbose() {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		t.Errorf("in a namespace: %v\n%s", err, out.String())
	case err != nil:
		t.Fatalf("create a namespace: %v; run the tests as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)", err)
	}
}

// RunIP runs ip with args, in the network namespace of the test. in is the beginning of a command that runs it in another.
func RunIP(t testing.TB, args string, in ...string) {
	t.Helper()
	argv := slices.Concat(in, []string{Find(t, "ip", "iproute2")}, strings.Fields(args))
	if out, err := command(argv[0], argv[1:], "").CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
}
