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

// The pages list tables that clients fill. With 10,000 services the daemon needs a tenth of a second and several megabytes
// to make a page. Two bounds hold for any number of clients, also slow ones:
//
//   - A sharedPage makes its document at most once a second, and the daemon makes one page at a time. All clients that
//     wait for a document get the same bytes. A client never gets an older copy: the document is begun after its request
//     has arrived. hadown --wait and --safe rely on that, because the ages in /balancers are seconds before the answer.
//     A client that requests a page twice within a second waits for up to a second.
//   - A pageLimiter bounds how many clients wait for a page or read one. A client must read a page within pageReadTime.
//
// hadown requests the report about one service four times a second. That report is small, so the daemon makes one for
// each request. It has a pageLimiter of its own, so readers of pages cannot keep an operator from taking a service out.
const (
	pageInterval = time.Second      // between two beginnings of the same page, at least
	pageShare    = 20               // with shortInterval, making the page takes at most 1/pageShare of the time
	pageReadTime = 10 * time.Second // for a client to read a whole page
)

// sharedPage makes one document for all clients that request it at the same time. It is safe for concurrent use. It owns
// one goroutine while it makes a document and one while clients wait for the next.
type sharedPage[T any] struct {
	build     func() (T, error) // its result is never changed
	buildLock chanMutex         // held while any page is made
	// shortInterval allows less than pageInterval between two documents, if the last one was made quickly. It is for
	// /metrics, because scripts request it again for each figure.
	shortInterval bool

	mu   sync.Mutex
	next *pageCall[T] // not begun yet; nil if no client waits

	runLock   chanMutex // held from the wait for the interval until the document is made
	notBefore time.Time // when a document may be begun; guarded by runLock
}

// chanMutex is a mutex that testing/synctest can wait for.
type chanMutex chan struct{}

func newChanMutex() chanMutex { return make(chanMutex, 1) }
func (m chanMutex) lock()     { m <- struct{}{} }
func (m chanMutex) unlock()   { <-m }

// pageCall makes one document.
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

// errInternal is the error of a page whose build function has panicked.
var errInternal = errors.New("internal error; the log says where")

// recoverPanics returns build with a recover around it: it logs a panic and returns errInternal. path is the path of the
// page.
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

// servePage gets a document of p and calls write, which answers with it. The client must read the answer within
// pageReadTime.
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
