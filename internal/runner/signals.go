package runner

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// The reasons why a run ends before its checks do.
var (
	errMaxTimeout  = errors.New("maximum timeout reached")
	errInterrupted = errors.New("interrupted")
)

// stopper ends a context at the first signal that asks the process to stop. The second one finds nobody
// who has asked for it, and ends the process at once.
type stopper struct {
	ctx     context.Context //nolint:containedctx // it is what a stopper is about
	release func()
	got     chan syscall.Signal
}

func catchSignals() *stopper {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		// nohup, and a shell that starts something in the background, have a signal ignored, and mean it.
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	s := &stopper{ctx: ctx, got: make(chan syscall.Signal, 1)}
	released := make(chan struct{})
	s.release = func() {
		signal.Stop(signals)
		close(released)
	}
	go func() {
		defer cancel(nil)
		select {
		case sig := <-signals:
			signal.Stop(signals)
			if sig, ok := sig.(syscall.Signal); ok {
				s.got <- sig
			}
			cancel(errInterrupted)
		case <-released:
		}
	}()
	return s
}

// signal is the number of the signal that ended a run, 0 if none did.
func (s *stopper) signal(ended error) int {
	if !errors.Is(ended, errInterrupted) {
		return 0
	}
	return int(<-s.got)
}
