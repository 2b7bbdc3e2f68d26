package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// directoryEvents watches a directory. The function that it returns stops that, and returns what was renamed and
// removed since: "+name" and "-name", in order.
func directoryEvents(t *testing.T, dir string) func() []string {
	t.Helper()
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_MOVED_TO|syscall.IN_MOVED_FROM|syscall.IN_DELETE); err != nil {
		t.Fatal(err)
	}
	return func() (events []string) {
		t.Helper()
		defer syscall.Close(fd)
		buf := make([]byte, 64<<10)
		n, err := syscall.Read(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		for buf = buf[:n]; len(buf) > 0; {
			mask, length := binary.NativeEndian.Uint32(buf[4:]), binary.NativeEndian.Uint32(buf[12:]) // see inotify(7)
			buf = buf[syscall.SizeofInotifyEvent:]
			name, _, _ := bytes.Cut(buf[:length], []byte{0})
			sign := "-"
			if mask&syscall.IN_MOVED_TO != 0 {
				sign = "+"
			}
			events, buf = append(events, sign+string(name)), buf[length:]
		}
		return events
	}
}

// TestWeightBeforeLift: haup --weight writes the weight before it lifts the override, so that the agent never says that the
// server gets all of its traffic. If the weight cannot be written, the override stays.
func TestWeightBeforeLift(t *testing.T) {
	t.Parallel()
	agent := freePort(t)
	d := startDaemon(t, fmt.Sprintf("services: {web: {agent_listen: '127.0.0.1:%d'}}\n", agent))
	const down, weighed = "ready down #version 2", "up ready 25%"
	d.get("/status") // from now on its ports are open
	for range 3 {    // before that the client may be a person
		askAgent(t, agent, "web")
	}
	for range 5 {
		d.mustRun("hadown", "web", "-r", "version 2")
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for {
					switch got := askAgent(t, agent, "web"); got {
					case down:
					case weighed:
						select {
						case <-stop:
							return
						default:
						}
					default:
						t.Errorf("the agent says %q", got)
						return
					}
				}
			})
		}
		events := directoryEvents(t, d.spool)
		d.mustRun("haup", "web", "--weight", "25%")
		order := events()
		close(stop)
		wg.Wait()
		written, lifted := slices.Index(order, "+#hacheck-weight.web"), slices.Index(order, "-web")
		if written < 0 || lifted < written {
			t.Errorf("the order of changes is %q", order)
		}
		if out := d.mustRun("haup", "web"); !strings.Contains(out, "the weight of 25% has ended") {
			t.Errorf("haup: %s", out)
		}
	}

	d.mustRun("hadown", "web", "-r", "version 2")
	name := filepath.Join(d.spool, "#hacheck-weight.web")
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(name, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := d.run("haup", "web", "--weight", "25%"); err == nil || !strings.Contains(out, "web is down now: version 2") {
		t.Errorf("haup without room for the weight: %v\n%s", err, out)
	}
	if got := askAgent(t, agent, "web"); got != down {
		t.Errorf("the agent says %q, want %q", got, down)
	}
}
