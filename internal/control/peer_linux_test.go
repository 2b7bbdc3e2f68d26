package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// strangerUID is a user of every machine that is neither root nor the user of the test.
const strangerUID = 65534

// asStranger calls f on a thread that has another user. f gets the user for which the kernel takes it: without root, the
// test has the user that it has.
func asStranger(t *testing.T, f func(uid int)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocks it: the runtime ends the thread with the goroutine
		unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		unix.RawSyscall(unix.SYS_SETRESGID, strangerUID, strangerUID, strangerUID)
		unix.RawSyscall(unix.SYS_SETRESUID, strangerUID, strangerUID, strangerUID)
		f(unix.Geteuid())
	}()
	<-done
}

// reportCaller answers with the caller.
func reportCaller(_ context.Context, c Caller, _ Request, _ func(Event) error) Event {
	return Event{Error: fmt.Sprintf("%d %s %d", c.UID, c.By, c.PID)}
}

// openSocket serves h on a socket that every user may connect to.
func openSocket(t *testing.T, h Handler, o Options) string {
	t.Helper()
	socket := serve(t, h, o)
	for path, mode := range map[string]os.FileMode{socket: 0o666, filepath.Dir(socket): 0o755, filepath.Dir(filepath.Dir(socket)): 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	return socket
}

// The kernel says who calls. The number of a process that has another user than the connection names no login.
func TestCaller(t *testing.T) {
	socket := openSocket(t, reportCaller, Options{})
	asStranger(t, func(uid int) {
		name := "uid " + strconv.Itoa(uid)
		if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
			name = u.Username
		}
		want := fmt.Sprintf("%d %s %d", uid, name, os.Getpid())
		if e, err := do(t, socket, Request{}); err != nil || uid == strangerUID && e.Error != want {
			t.Errorf("the caller is %q, %v; want %q", e.Error, err, want)
		}
	})
}

// A command that root runs for a login of another user, as sudo does, is the login's.
func TestCallerIsTheLogin(t *testing.T) {
	socket := serve(t, reportCaller, Options{})
	cmd := exec.Command("/bin/sh", "-c", `echo 1 2>/dev/null >/proc/self/loginuid; exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), clientVariable+"="+socket)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	login, caller, _ := strings.Cut(strings.TrimSpace(string(out)), "|")
	uid := os.Geteuid()
	if n, err := strconv.Atoi(strings.TrimSpace(login)); err == nil && n >= 0 && n != 1<<32-1 {
		uid = n
	}
	want := fmt.Sprintf("%d %s %d|<nil>", os.Geteuid(), userName(uid), cmd.Process.Pid)
	if caller != want {
		t.Errorf("the caller is %q, want %q (login %s)", caller, want, login)
	}
}

func TestKilledCallerEndsTheHandler(t *testing.T) {
	ended := make(chan struct{})
	socket := serve(t, func(ctx context.Context, _ Caller, _ Request, send func(Event) error) Event {
		_ = send(Event{Text: "waiting"})
		<-ctx.Done()
		close(ended)
		return Event{}
	}, Options{})
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), clientVariable+"="+socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "waiting\n" {
		t.Errorf("the command printed %q, %v", line, err)
	}
	// A paused command keeps its claim; a killed one does not.
	for _, signal := range []os.Signal{unix.SIGSTOP, unix.SIGKILL} {
		select {
		case <-ended:
			t.Errorf("the context has ended before signal %v", signal)
		default:
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
	}
	receive(t, ended, "the context ends")
	_ = cmd.Wait() // it was killed
}

func TestPermissionDenied(t *testing.T) {
	socket := openSocket(t, echo, Options{})
	if err := os.Chmod(socket, socketMode); err != nil {
		t.Fatal(err)
	}
	asStranger(t, func(uid int) {
		_, err := do(t, socket, Request{})
		if uid == strangerUID && (!errors.Is(err, ErrPermission) || !strings.Contains(err.Error(), "sudo") || !strings.Contains(err.Error(), socket)) {
			t.Errorf("error %v, want permission denied with what to do", err)
		}
	})
}

// The connections of one user do not keep another one out, and end.
func TestFloodOfOneUser(t *testing.T) {
	const most = 8
	socket := openSocket(t, echo, Options{MaxConns: 2 * most, MaxUserConns: most, RequestTimeout: testTimeout})
	asStranger(t, func(uid int) {
		if uid != strangerUID {
			return
		}
		var open []net.Conn
		for range most {
			open = append(open, connect(t, socket))
		}
		refused := 0
		for range 10 * most {
			if e, err := do(t, socket, Request{}); err != nil || e.Code != CodeUnavailable || !strings.Contains(e.Error, "too many") {
				t.Errorf("one more connection: %+v, %v; want a refusal", e, err)
				break
			}
			refused++
		}
		t.Logf("%d connections were refused", refused)
		for _, conn := range open {
			conn.Close()
		}
		for deadline := time.Now().Add(testTimeout); ; {
			if e, err := do(t, socket, Request{Op: OpReport}); err == nil && e.Error == OpReport {
				return
			} else if time.Now().After(deadline) {
				t.Errorf("after the flood: %+v, %v", e, err)
				return
			}
		}
	})
}

func TestRootIsServedDuringAFlood(t *testing.T) {
	socket := openSocket(t, echo, Options{MaxConns: 4, MaxUserConns: 4, RequestTimeout: testTimeout})
	asStranger(t, func(uid int) {
		if uid == strangerUID {
			for range 4 {
				connect(t, socket)
			}
		}
	})
	if e, err := do(t, socket, Request{Op: OpReport}); err != nil || e.Error != OpReport {
		t.Errorf("root: %+v, %v", e, err)
	}
}

func TestEffectiveUID(t *testing.T) {
	for status, want := range map[string]int{
		"Name:\tUid:\nUid:\t1000\t0\t0\t0\nGid:\t1\t2\t3\t4\n": 0,
		"Uid:\t0\t65534\t0\t0\n":                               65534,
		"Uid:\t0\n":                                            unknownID,
		"Uid:\ta\tb\tc\td\n":                                   unknownID,
		"":                                                     unknownID,
	} {
		if got := effectiveUID(status); got != want {
			t.Errorf("effectiveUID(%q) = %d, want %d", status, got, want)
		}
	}
}

func TestLoginOfNoProcess(t *testing.T) {
	for _, pid := range []int{0, unknownID, 1 << 30} {
		if uid, ok := loginUID(pid, os.Geteuid()); ok {
			t.Errorf("process %d has the login %d", pid, uid)
		}
	}
}

func TestIsOperator(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := user.LookupId(strconv.Itoa(strangerUID))
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(stranger.Gid)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		uid    int
		groups []string
		want   bool
	}{
		{"root", 0, nil, true},
		{"no group", strangerUID, nil, false},
		{"primary group", strangerUID, []string{"adm", group.Name}, true},
		{"other group", strangerUID, []string{"root"}, false},
		{"group that does not exist", strangerUID, []string{"no-such-group", ""}, false},
		{"user that does not exist", 1 << 30, []string{group.Name}, false},
		{"unknown to the kernel", unknownID, []string{group.Name, "root"}, false},
	} {
		if got := (Caller{UID: test.uid}).IsOperator(test.groups); got != test.want {
			t.Errorf("%s: IsOperator is %v, want %v (the test is user %s)", test.name, got, test.want, me.Uid)
		}
	}
}

func TestUserName(t *testing.T) {
	if got := userName(0); got != "root" {
		t.Errorf("user 0 is %q", got)
	}
	if got := userName(1 << 30); got != "uid 1073741824" {
		t.Errorf("a user without a name is %q", got)
	}
}

// IsStopped follows the process of the caller. The number of a process that has another user says nothing.
func TestIsStopped(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "sleep", "300")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := Caller{UID: os.Getuid(), PID: cmd.Process.Pid}
	wait := func(want bool) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for tick := time.NewTicker(time.Millisecond); c.IsStopped() != want; <-tick.C {
			if time.Now().After(deadline) {
				t.Fatalf("the caller is stopped: %v", !want)
			}
		}
	}
	// Not SIGTSTP: the kernel ignores it where no shell controls the job.
	for _, signal := range []os.Signal{unix.SIGSTOP, unix.SIGCONT, unix.SIGSTOP} {
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		wait(signal != unix.SIGCONT)
	}
	if (Caller{UID: strangerUID + 1, PID: c.PID}).IsStopped() || (Caller{UID: unknownID, PID: unknownID}).IsStopped() {
		t.Error("the process of another user counts")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	wait(false)
}
