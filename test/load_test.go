package test

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// TestThousandClientsShareOneCheck: a thousand concurrent requests without a cached result cause exactly one check.
func TestThousandClientsShareOneCheck(t *testing.T) {
	t.Parallel()
	const clients = 1000
	d := startDaemon(t, "")
	release := make(chan struct{})
	web := startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, r *http.Request) {
		<-release
		serveOK(w, r)
	})
	var mu sync.Mutex
	outcomes := map[string]int{}
	var written sync.WaitGroup // every asker has sent its request, or failed to
	written.Add(clients)
	go func() {
		written.Wait()
		close(release)
	}()
	parallel(clients, func(int) {
		outcome, err := func() (string, error) {
			conn, err := dial(d.addr)
			if err != nil {
				written.Done()
				return "", err
			}
			defer conn.Close()
			_, err = fmt.Fprintf(conn, "GET /http/web/%d/cold HTTP/1.0\r\n\r\n", web.port)
			written.Done()
			if err != nil {
				return "", err
			}
			answer, err := io.ReadAll(conn)
			if err != nil {
				return "", err
			}
			if !strings.HasPrefix(string(answer), "HTTP/1.0 200 OK\r\n") {
				return "", fmt.Errorf("got %q", answer)
			}
			_, rest, _ := strings.Cut(string(answer), "X-Hacheck-Cache: ")
			outcome, _, _ := strings.Cut(rest, "\r\n")
			return outcome, nil
		}()
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		outcomes[outcome]++
		mu.Unlock()
	})
	if n := web.requests.Load(); n != 1 {
		t.Errorf("%d askers, %d checks at the service, want exactly 1", clients, n)
	}
	if outcomes["miss"] != 1 || outcomes["shared"] == 0 || outcomes["miss"]+outcomes["shared"]+outcomes["hit"] != clients {
		t.Errorf("how the askers were answered: %v, want 1 miss, and the others shared or a hit", outcomes)
	}
}

// TestNoStaleAnswer: after hadown or haup has returned, no later request gets an answer from before, under load. The
// service answers with the number of the round, so an older number shows a check from before the override.
func TestNoStaleAnswer(t *testing.T) {
	t.Parallel()
	const rounds = 150
	d := startDaemon(t, "")
	var round atomic.Int64
	web := startService(t, "127.0.0.1", 0, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strconv.FormatInt(round.Load(), 10))
	})
	check := fmt.Sprintf("/http/web/%d/round", web.port)
	load := []string{check, "/spool/web/0/", "/spool/other/0/", fmt.Sprintf("/tcp/web/%d", web.port), "/recent"}
	stale := 0
	d.underLoad(8, load, func() {
		for i := range rounds {
			name := []string{"web", "all"}[i%2] // both cover the service
			d.mustRun("hadown", name, "-r", "round "+strconv.Itoa(i))
			for _, path := range []string{check, "/spool/web/0/"} {
				if a := d.get(path); a.code != 503 || !strings.Contains(a.body, ": round "+strconv.Itoa(i)) {
					stale++
					t.Errorf("round %d: %s after hadown %s had returned: %d %s", i, path, name, a.code, a.body)
				}
			}
			round.Add(1) // the service changes while the override stops all checks
			d.mustRun("haup", name)
			if a := d.get("/spool/web/0/"); a.code != 200 {
				stale++
				t.Errorf("round %d: /spool/web/0/ after haup %s had returned: %d %s", i, name, a.code, a.body)
			}
			if a := d.get(check); a.code != 200 || a.body != strconv.FormatInt(round.Load(), 10) {
				stale++
				t.Errorf("round %d: %s after haup %s had returned: %d %s, want 200 %d", i, check, name, a.code, a.body, round.Load())
			}
		}
	})
	t.Logf("%d stale of %d", stale, 4*rounds)
}

// TestStatusOfCommands: the commands show the state that the daemon answers with.
func TestStatusOfCommands(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "")
	d.get("/spool/web/0/")
	if out := d.mustRun("halist", "-p", strconv.Itoa(d.port)); !strings.HasPrefix(out, `web last_response={"code":`) {
		t.Errorf("halist printed %q", out)
	}
	if out := d.mustRun("hadown", "web", "-r", "kernel upgrade"); out != "" {
		t.Errorf("hadown printed %q, want nothing", out)
	}
	out, err := d.run("hastatus", "web")
	if exitCode(err) != 1 || out != "DOWN\tinf\tweb\tkernel upgrade\n" {
		t.Errorf("hastatus web: exit %d, %q", exitCode(err), out)
	}
	if out := d.mustRun("hashowdowned"); out != "DOWN\tinf\tweb\tkernel upgrade\n" {
		t.Errorf("hashowdowned printed %q", out)
	}
	if out := d.mustRun("haup", "web"); out != "" {
		t.Errorf("haup printed %q, want nothing", out)
	}
	if out := d.mustRun("hastatus", "web"); out != "UP\tweb\n" {
		t.Errorf("hastatus web printed %q", out)
	}
}
