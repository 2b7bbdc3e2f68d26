package check_test

import (
	"context"
	"testing"

	"hacheck/internal/check"
	"hacheck/internal/check/conn"
	"hacheck/test/checktest"
)

// TestDriverLimit: a check with a driver waits for a place. It says so if it gets none.
func TestDriverLimit(t *testing.T) {
	s := checktest.Serve(t, amqpServer)
	places := conn.NewLimit(1)
	run := func(ctx context.Context, timeout float64) check.Result {
		c := buildAt(t, check.Defaults{Options: check.Options{Logins: places}}, "amqp", s.Host, s.Port,
			"username", "operator", "password", "s3cret", "use_tls", false, "timeout", timeout)
		return c.Check(ctx, check.Target{})
	}
	if r := run(t.Context(), 20); r.Code != 200 {
		t.Errorf("a free place: %d %s", r.Code, r.Body)
	}
	if !places.Acquire(t.Context()) {
		t.Fatal("the check has kept its place")
	}
	if r := run(t.Context(), 0.1); r.Code != 503 || r.Reason != check.ReasonBusy {
		t.Errorf("no place: %d %s %s", r.Code, r.Reason, r.Body)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan check.Result)
	go func() { done <- run(ctx, 20) }()
	eventually(t, "a connection", func() bool { return s.Settled(t) >= 3 })
	cancel()
	if r := <-done; r.Reason != check.ReasonCancelled {
		t.Errorf("cancelled: %s %s", r.Reason, r.Body)
	}
	go func() { done <- run(t.Context(), 20) }()
	eventually(t, "another connection", func() bool { return s.Settled(t) >= 4 })
	places.Release()
	if r := <-done; r.Code != 200 {
		t.Errorf("a place later: %d %s", r.Code, r.Body)
	}
}
