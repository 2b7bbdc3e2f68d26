package checktest

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/goleak"

	"hacheck/internal/check"
)

// run runs the check and verifies that it returned when its context ended, that its result is valid, and that it left
// no goroutine.
func (row Row) run(ctx context.Context, t *testing.T, host string, port uint16) check.Result {
	t.Helper()
	here := goleak.IgnoreCurrent()
	r := row.runBeside(ctx, t, host, port)
	checkLeaks(t, here)
	return r
}

// checkLeaks fails the test if a check has left a goroutine. It also sees the handlers of the servers, which end when
// the client has closed.
func checkLeaks(t *testing.T, here goleak.Option) {
	t.Helper()
	if err := goleak.Find(here); err != nil {
		t.Errorf("the check left a goroutine or a connection: %v", err)
	}
}

// runBeside is run without the search for goroutines, for checks that run in parallel.
func (row Row) runBeside(ctx context.Context, t *testing.T, host string, port uint16) check.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, longTimeout)
	defer cancel()
	target := row.Target.Clone()
	target.Host, target.Port = host, port
	start := time.Now()
	r := row.Check(ctx, target)
	took := time.Since(start)
	if deadline, _ := ctx.Deadline(); time.Until(deadline) < -maxDelay {
		t.Errorf("returned %v after its context had ended", -time.Until(deadline))
	}
	if r.Took <= 0 || r.Took > took {
		t.Errorf("Took is %v for a check of %v", r.Took, took)
	}
	if http.StatusText(r.Code) == "" || r.Code < 200 {
		t.Errorf("code %d is none an answer can have", r.Code)
	}
	if (r.Err == nil) != (r.Reason == check.ReasonAnswered) {
		t.Errorf("reason %s with error %v", r.Reason, r.Err)
	}
	if r.Reason != check.ReasonAnswered && r.Code == 200 {
		t.Errorf("reason %s is healthy", r.Reason)
	}
	if len(r.Body) > check.MaxBody {
		t.Errorf("a body of %d bytes", len(r.Body))
	}
	if r.Reason != check.ReasonAnswered {
		wantLine(t, r.Body)
	}
	for _, secret := range row.Secrets {
		if strings.Contains(show(r), secret) {
			t.Errorf("shows a password: %s", show(r))
		}
	}
	return r
}

// runPromptly is run for a check that must not wait for its timeout.
func (row Row) runPromptly(t *testing.T, host string, port uint16) check.Result {
	t.Helper()
	r := row.run(t.Context(), t, host, port)
	row.wantPrompt(t, r)
	return r
}

func (row Row) wantPrompt(t *testing.T, r check.Result) {
	t.Helper()
	if r.Took > maxDelay {
		t.Errorf("took %v and should not wait: %s", r.Took, show(r))
	}
}

func (row Row) wantHealthy(t *testing.T, r check.Result) {
	t.Helper()
	if r.Code != 200 || r.Reason != check.ReasonAnswered {
		t.Errorf("not healthy: %s", show(r))
	}
}

func (row Row) want(t *testing.T, r check.Result, reason check.Reason) {
	t.Helper()
	if r.Reason != reason || r.Code != 503 {
		t.Errorf("want 503 with reason %s, got %s", reason, show(r))
	}
}

// wantOr wants reason, or a healthy result if the check only opens a connection.
func (row Row) wantOr(t *testing.T, r check.Result, reason check.Reason) {
	t.Helper()
	if row.ConnectOnly {
		row.wantHealthy(t, r)
		return
	}
	row.want(t, r, reason)
}

// wantLine wants a text of hacheck's own: one short line that is safe in a log and on a terminal.
func wantLine(t *testing.T, body []byte) {
	t.Helper()
	if len(body) == 0 || len(body) > 1<<10 {
		t.Errorf("a message of %d bytes", len(body))
	}
	if !utf8.Valid(body) || bytes.ContainsFunc(body, unicode.IsControl) {
		t.Errorf("not one line of text: %q", body)
	}
}

// show returns a result for an error message of a test.
func show(r check.Result) string {
	text := string(r.Body)
	if len(text) > 200 {
		text = text[:200] + "..."
	}
	err := ""
	if r.Err != nil {
		err = " (" + r.Err.Error() + ")"
	}
	return strings.TrimSpace(http.StatusText(r.Code)+" "+r.Reason.String()) + ": " + text + err
}
