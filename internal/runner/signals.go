package runner

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// errMaxTimeout is the cause of a context that --max-timeout has ended.
var errMaxTimeout = errors.New("maximum timeout reached")

// interruptError is the cause of a context that a signal has ended; its value is the number of the signal.
type interruptError syscall.Signal

func (interruptError) Error() string { return "interrupted" }

// signalContext returns a context that ends at the first SIGINT, SIGTERM or SIGHUP, with an interruptError as its
// cause. A second signal ends the process at once. The caller must call stop.
func signalContext() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		// A signal that was ignored at the start stays ignored: nohup and a background job of a shell rely on it.
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	go func() {
		select {
		case sig := <-signals:
			signal.Stop(signals)
			number, _ := sig.(syscall.Signal)
			cancel(interruptError(number))
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}
