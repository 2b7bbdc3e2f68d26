package fleet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hacheck/internal/spool"
)

// workerEnv is the environment variable with the workerConfig of a worker process.
const workerEnv = "HACHECK_SIMULATION_WORKER"

// workerConfig says what a worker process simulates.
type workerConfig struct {
	Index     int
	Processes int
	Hosts     int // of this worker
	Claimers  int // commands at the same time
	Services  []string
	Endpoints []string
	Lossy     []string // endpoints of the proxies; every second host uses them
	Lease     time.Duration
	MaxOut    time.Duration // for which a host stays out, at random
	Seed      uint64
}

// The commands to a worker, one per line of its stdin. It ends at the end of stdin.
const (
	workerStart = "start" // the claims
	workerFail  = "fail"  // the checks of all hosts, for failFor
	workerEnd   = "end"   // no claim begins any more, and claims without a permit end
)

// failFor is longer than failingAfter.
const failFor = 5 * time.Second

// The events of a worker beyond those of simFarm.
const (
	eventAsk    simEvent = "ask"
	eventAnswer simEvent = "answer"
	eventEnded  simEvent = "ended" // all claims of the worker have ended
)

// The answers to a claim.
const (
	answerGranted     = "granted"
	answerRefused     = "refused"
	answerClosed      = "closed"
	answerUnavailable = "unavailable"
)

// workerEvent is a line that a worker writes.
type workerEvent struct {
	At      int64    `json:"at"` // monotonic, in nanoseconds
	What    simEvent `json:"what"`
	Host    string   `json:"host,omitempty"`
	Service string   `json:"service,omitempty"`
	Claim   int64    `json:"claim,omitempty"`  // of eventAsk and eventAnswer; unique in its worker
	Answer  string   `json:"answer,omitempty"` // of eventAnswer
}

// monotonic returns the time of a clock that is the same in all processes of this machine, in nanoseconds.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return t.Nano()
}

// simWorker is a process of the simulation: hosts, their commands, and their balancer.
type simWorker struct {
	t      *testing.T
	c      workerConfig
	farm   *simFarm
	idle   chan *simHost
	claims atomic.Int64

	mu     sync.Mutex
	events io.Writer
}

// runWorker simulates hosts until stdin ends.
func runWorker(t *testing.T, config string) {
	w := &simWorker{t: t, events: os.NewFile(3, "events")}
	if err := json.Unmarshal([]byte(config), &w.c); err != nil {
		t.Fatal(err)
	}
	w.farm = startSimFarm(&simFarm{
		t: t, endpoints: w.c.Endpoints, processes: w.c.Processes,
		onEvent: func(h *simHost, what simEvent) { w.event(workerEvent{What: what, Host: h.name, Service: h.service}) },
	})
	w.idle = make(chan *simHost, w.c.Hosts)
	for i := range w.c.Hosts {
		w.idle <- w.farm.hostOf(w.c.Services[i%len(w.c.Services)], fmt.Sprintf("w%d-%d", w.c.Index, i), func(o *Options) {
			o.Lease = w.c.Lease
			o.Log = slog.New(slog.DiscardHandler)
			if i/len(w.c.Services)%2 == 1 {
				o.Endpoints = w.c.Lossy
			}
		})
	}
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var claimers sync.WaitGroup
	for commands := bufio.NewScanner(os.Stdin); commands.Scan(); {
		switch commands.Text() {
		case workerStart:
			for i := range w.c.Claimers {
				claimers.Go(func() { w.claimUntil(ctx, rand.New(rand.NewPCG(w.c.Seed, uint64(w.c.Index*1000+i)))) })
			}
		case workerFail:
			w.fail(true)
			time.AfterFunc(failFor, func() { w.fail(false) })
		case workerEnd:
			end()
			claimers.Wait()
			w.event(workerEvent{What: eventEnded})
		}
	}
}

// event writes an event with the time.
func (w *simWorker) event(e workerEvent) {
	e.At = monotonic()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := json.NewEncoder(w.events).Encode(e); err != nil {
		w.t.Errorf("write an event: %v", err)
	}
}

// fail makes the checks of all hosts fail or pass.
func (w *simWorker) fail(fails bool) {
	w.farm.mu.Lock()
	defer w.farm.mu.Unlock()
	for _, h := range w.farm.hosts {
		h.isFailing = fails
	}
}

// claimUntil makes claims, one after the other, until ctx ends.
func (w *simWorker) claimUntil(ctx context.Context, random *rand.Rand) {
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-w.idle:
			w.claim(ctx, h, random)
			w.idle <- h
		}
	}
}

// claim takes a host out and back in. One command in ten is closed at a random moment, one in five does not wait.
func (w *simWorker) claim(ctx context.Context, h *simHost, random *rand.Rand) {
	command, end := context.WithCancel(ctx)
	defer end()
	if random.IntN(10) == 0 {
		closed := time.AfterFunc(time.Duration(random.Int64N(int64(2*time.Second))), end)
		defer closed.Stop()
	}
	takedown := webTakedown("op", 5*time.Minute)
	takedown.Keys = []spool.Key{{Service: h.service}}
	if random.IntN(5) == 0 {
		takedown.WaitTurn = 0
	}
	claim := w.claims.Add(1)
	w.event(workerEvent{What: eventAsk, Host: h.name, Service: h.service, Claim: claim})
	err := h.TakeDown(command, takedown, nil)
	w.event(workerEvent{What: eventAnswer, Host: h.name, Service: h.service, Claim: claim, Answer: answerOf(err)})
	if err != nil {
		sleep(ctx, 100*time.Millisecond+time.Duration(random.Int64N(int64(200*time.Millisecond))))
		return
	}
	w.await(h.name+" is down", func() bool { return !h.hasUp() })
	sleep(w.t.Context(), time.Duration(random.Int64N(int64(w.c.MaxOut))))
	h.lift()
	w.await(h.name+" is up", func() bool {
		w.farm.mu.Lock()
		defer w.farm.mu.Unlock()
		return !h.isAway
	})
}

// await waits until ok returns true. The process may be stopped meanwhile.
func (w *simWorker) await(what string, ok func() bool) {
	again := time.NewTicker(simEvery)
	defer again.Stop()
	for end := time.Now().Add(2 * time.Minute); !ok(); <-again.C {
		if time.Now().After(end) {
			w.t.Errorf("not within 2m: %s", what)
			return
		}
	}
}

// answerOf returns the kind of an answer.
func answerOf(err error) string {
	var refused *RefusedError
	var unavailable *UnavailableError
	switch {
	case err == nil:
		return answerGranted
	case errors.As(err, &refused):
		return answerRefused
	case errors.As(err, &unavailable):
		return answerUnavailable
	case errors.Is(err, context.Canceled):
		return answerClosed
	}
	return "error: " + err.Error()
}
