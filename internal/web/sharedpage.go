package web

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"hacheck/internal/loglimit"
)

// The pages list tables that clients fill. With 10,000 services a page takes a tenth of a second and several megabytes
// to make. Two things bound that, whatever the number of clients and however slowly they read:
//
//   - A sharedPage makes its document at most once a second, one page at a time, and all clients that wait for it get
//     the same bytes. It never returns an older copy: a document is begun after the request for it has arrived. The ages
//     in /balancers are seconds before the answer, and hadown --wait and --safe conclude from them what has happened
//     since they began; and an answer that a balancer has got is on the page that is requested next. The price is up to
//     a second of waiting for a client that asks again within the second.
//   - A pageLimiter bounds how many clients wait for a page or read one, and a client must read a page within
//     pageReadTime.
//
// The report about one service, which hadown requests four times a second, is small. It is made for each request and has
// a pageLimiter of its own, so that no reader of pages keeps an operator from taking a service out.
const (
	pageInterval = time.Second      // between two beginnings of the same page, at least
	pageShare    = 20               // a cheap page takes at most a twentieth of the time
	pageReadTime = 10 * time.Second // for a client to read a whole page
)

// sharedPage makes one document for all clients that request it at the same time. It is safe for concurrent use. It owns
// one goroutine while it makes a document and one while clients wait for the next.
type sharedPage[T any] struct {
	build     func() (T, error) // nothing changes its result afterwards
	buildLock chanMutex         // held while any page is made
	// shortInterval begins a document sooner than pageInterval after the last one if that took less than a pageShare of it. It is
	// for /metrics, which scripts request for one figure after the other.
	shortInterval bool

	mu   sync.Mutex
	next *pageCall[T] // not begun yet; nil if no client waits

	runLock   chanMutex // held from the wait for the interval to the end of the making
	notBefore time.Time // when a document may be begun; guarded by running
}

// chanMutex is a mutex that testing/synctest can wait for.
type chanMutex chan struct{}

func newChanMutex() chanMutex { return make(chanMutex, 1) }
func (m chanMutex) lock()     { m <- struct{}{} }
func (m chanMutex) unlock()   { <-m }

// pageCall is one making of a document.
type pageCall[T any] struct {
	done chan struct{} // closed when doc and err are set
	doc  T
	err  error
}

// newSharedPage returns the page of s at path.
func newSharedPage[T any](s *Server, path string, turn chanMutex, build func() (T, error)) *sharedPage[T] {
	return &sharedPage[T]{build: recoverPanics(s, path, build), buildLock: turn, runLock: newChanMutex()}
}

// get returns a document that was begun after the call, or an error if it cannot be made or ctx ends.
func (p *sharedPage[T]) get(ctx context.Context) (doc T, err error) {
	p.mu.Lock()
	call := p.next
	if call == nil {
		call = &pageCall[T]{done: make(chan struct{})}
		p.next = call
		go p.run(call)
	}
	p.mu.Unlock()
	select {
	case <-call.done:
		return call.doc, call.err
	case <-ctx.Done():
		return doc, ctx.Err()
	}
}

// run makes the document of call when its time has come. Clients join call until the document is begun.
func (p *sharedPage[T]) run(call *pageCall[T]) {
	p.runLock.lock()
	defer p.runLock.unlock()
	defer close(call.done)
	time.Sleep(time.Until(p.notBefore))
	p.buildLock.lock()
	defer p.buildLock.unlock()
	p.mu.Lock()
	p.next = nil
	p.mu.Unlock()
	begun := time.Now()
	call.doc, call.err = p.build()
	rest := pageInterval
	if p.shortInterval {
		rest = min(rest, pageShare*time.Since(begun))
	}
	p.notBefore = begun.Add(rest)
}

// errInternal is the error of a page whose making has panicked.
var errInternal = errors.New("internal error; the log says where")

// recoverPanics returns build with its panics logged and returned as errInternal. path is that of the page.
func recoverPanics[T any](s *Server, path string, build func() (T, error)) func() (T, error) {
	return func() (doc T, err error) {
		defer func() {
			if fault := recover(); fault != nil {
				err = errInternal
				const message = "page could not be made; this is a bug in hacheck"
				if s.limit.Allow(loglimit.Target, "the page "+path, message) {
					s.log.Error(message, "page", path, "panic", fault, "stack", string(debug.Stack()))
				}
			}
		}()
		return build()
	}
}

// servePage answers with the document of p, by write, to which the time limit for reading applies.
func servePage[T any](s *Server, w http.ResponseWriter, r *http.Request, p *sharedPage[T], write func(doc T)) {
	s.readers.serve(w, r, func() {
		doc, err := p.get(r.Context())
		if err != nil {
			writeError(w, err)
			return
		}
		limitReadTime(w)
		write(doc)
	})
}

// limitReadTime closes the connection if the client has not read the answer within pageReadTime.
func limitReadTime(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(pageReadTime)) // a recorder in a test has none
}
