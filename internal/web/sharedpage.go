package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"hacheck/internal/clients"
)

// The pages for people list tables that clients fill: with 10,000 services a page takes a tenth of a second and
// several megabytes to make. Two things bound that, however many clients ask and however slowly they read:
//
//   - A sharedPage makes its document once a second at most, one page at a time, and all clients that wait for it get
//     the same bytes. It never hands out an older copy: a document is begun after the request for it has arrived. The
//     ages in /balancers are seconds before the answer, and hadown --wait and --safe conclude from them what has
//     happened since they began; and an answer that a balancer has had is on the page that is asked for next. What
//     that costs is up to a second of waiting for a client that asks again within the second.
//   - readers bounds how many clients wait for a page or read one, and a page must be taken within pageReadTime.
//
// The report about one service, which hadown asks for four times a second, is small. It is made for each request, and
// its readers are counted by themselves, so that nobody who reads pages keeps an operator from taking a service out.
const (
	pageInterval = time.Second      // between two beginnings of the same page, at least
	pageShare    = 20               // a cheap page is made in a twentieth of the time at most
	pageReadTime = 10 * time.Second // for a client to take a whole page

	maxReaders          = 32 // of all pages together
	maxReadersPerClient = 8
	// reservedReaders are the places among maxReaders that only this machine gets: the commands ask from there.
	reservedReaders = maxReadersPerClient
)

// sharedPage makes one document for all who ask for it at the same time. It is safe for concurrent use. It owns a
// goroutine while a document is made and one while clients wait for the next.
type sharedPage[T any] struct {
	make func() (T, error) // its result is never changed afterwards
	turn semaphore         // held while any page is made
	// cheap has a document begun sooner than pageInterval after the last one if that took less than a pageShare of it.
	// It is for /metrics, which scripts ask for one figure after the other.
	cheap bool

	mu   sync.Mutex
	next *pageCall[T] // not begun yet; nil if no client waits

	running   semaphore // held from the wait for the interval to the end of the making
	notBefore time.Time // when a document may be begun; guarded by running
}

// semaphore is a mutex that testing/synctest knows how to wait for.
type semaphore chan struct{}

func newSemaphore() semaphore { return make(semaphore, 1) }
func (s semaphore) lock()     { s <- struct{}{} }
func (s semaphore) unlock()   { <-s }

// pageCall is one making of a document.
type pageCall[T any] struct {
	done chan struct{} // closed when doc and err are set
	doc  T
	err  error
}

func newSharedPage[T any](turn semaphore, build func() (T, error)) *sharedPage[T] {
	return &sharedPage[T]{make: build, turn: turn, running: newSemaphore()}
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

// run makes the document of call when it is time. Clients join call until the document is begun.
func (p *sharedPage[T]) run(call *pageCall[T]) {
	p.running.lock()
	defer p.running.unlock()
	defer close(call.done)
	time.Sleep(time.Until(p.notBefore))
	p.turn.lock()
	defer p.turn.unlock()
	p.mu.Lock()
	p.next = nil
	p.mu.Unlock()
	begun := time.Now()
	defer func() {
		if fault := recover(); fault != nil {
			call.err = fmt.Errorf("panic: %v", fault)
		}
		rest := pageInterval
		if p.cheap {
			rest = min(rest, pageShare*time.Since(begun))
		}
		p.notBefore = begun.Add(rest)
	}()
	call.doc, call.err = p.make()
}

// readers counts the clients that wait for a page or read one. A client is what clients.Network says.
type readers struct {
	mu       sync.Mutex
	all      int
	byClient map[netip.Prefix]int
}

// enter counts a reader, or returns false if there are too many.
func (r *readers) enter(client netip.Prefix) bool {
	most := maxReaders - reservedReaders
	if client.Addr().IsLoopback() {
		most = maxReaders
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all >= most || r.byClient[client] >= maxReadersPerClient {
		return false
	}
	if r.byClient == nil {
		r.byClient = map[netip.Prefix]int{}
	}
	r.all++
	r.byClient[client]++
	return true
}

// leave takes back an enter.
func (r *readers) leave(client netip.Prefix) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all--
	if r.byClient[client]--; r.byClient[client] == 0 {
		delete(r.byClient, client)
	}
}

// read has page answer if there are not too many readers. A refused request costs no more than the refusal.
func (r *readers) read(w http.ResponseWriter, req *http.Request, page func()) {
	client := clients.NetworkOf(hostOf(req.RemoteAddr))
	if !r.enter(client) {
		w.Header()["Retry-After"] = []string{"2"}
		sentence(w, http.StatusServiceUnavailable, fmt.Sprintf(
			"Too many clients read such pages now, or this client reads more than %d at once. Ask again in a few seconds", maxReadersPerClient))
		return
	}
	defer r.leave(client)
	page()
}

// servePage answers with what p makes, by write, to which the time limit for reading applies.
func servePage[T any](s *Server, w http.ResponseWriter, r *http.Request, p *sharedPage[T], write func(doc T)) {
	s.readers.read(w, r, func() {
		doc, err := p.get(r.Context())
		if err != nil {
			cannotWrite(w, err)
			return
		}
		limitReading(w)
		write(doc)
	})
}

// limitReading closes the connection if the client has not taken the answer within pageReadTime.
func limitReading(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(pageReadTime)) // a recorder in a test has none
}

// writeBody writes the whole body of a page. The server copies none of a body of known length.
func writeBody(w http.ResponseWriter, contentType []string, body []byte) {
	h := w.Header()
	h["Content-Type"] = contentType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	_, _ = w.Write(body) // a client that has hung up needs no answer
}

func cannotWrite(w http.ResponseWriter, err error) {
	sentence(w, http.StatusInternalServerError, "Cannot write this page: "+err.Error())
}
