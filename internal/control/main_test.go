package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// testTimeout is how long a test waits for something that should happen at once. Test machines are slow.
const testTimeout = 20 * time.Second

// clientVariable makes the test binary a command: it has the socket to which the command sends OpReport.
const clientVariable = "HACHECK_TEST_CONTROL_SOCKET"

func TestMain(m *testing.M) {
	if socket := os.Getenv(clientVariable); socket != "" {
		login, _ := os.ReadFile("/proc/self/loginuid")
		e, err := Do(context.Background(), socket, Request{Op: OpReport}, func(e Event) { fmt.Println(e.Text) })
		fmt.Printf("%s|%s|%v\n", login, e.Error, err)
		return
	}
	goleak.VerifyTestMain(m)
}

// serve serves h on a socket of the test until the test ends, and returns the socket's path.
func serve(t *testing.T, h Handler, o Options) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, ln, h, o) }()
	t.Cleanup(func() {
		cancel()
		if err := receive(t, ended, "the server ends"); err != nil {
			t.Errorf("Serve: %v", err)
		}
		if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is there after the server has ended: %v", err)
		}
	})
	return socket
}

// receive returns what comes from the channel.
func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(testTimeout):
		t.Fatalf("waited in vain until %s", what)
		panic("not reached")
	}
}

// echo answers with the operation.
func echo(_ context.Context, _ Caller, r Request, _ func(Event) error) Event {
	return Event{Error: r.Op}
}

// do is Do with a time limit.
func do(t *testing.T, socket string, r Request) (Event, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	return Do(ctx, socket, r, nil)
}

// connect opens a connection that the test writes to by itself.
func connect(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.UnixConn)
}
