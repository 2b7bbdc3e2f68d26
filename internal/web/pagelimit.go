package web

import (
	"fmt"
	"net/http"
	"net/netip"
	"sync"

	"hacheck/internal/clients"
)

const (
	maxReaders          = 32 // of all pages together
	maxReadersPerClient = 8
	// reservedReaders are those of maxReaders that only this machine gets: the commands ask from there.
	reservedReaders = maxReadersPerClient
)

// pageLimiter bounds how many requests wait for a page or read one, for each client (see clients.NetworkOf) and in total.
type pageLimiter struct {
	mu       sync.Mutex
	n        int
	byClient map[netip.Prefix]int
}

// acquire counts a reader, or returns false if there are too many.
func (l *pageLimiter) acquire(client netip.Prefix) bool {
	limit := maxReaders - reservedReaders
	if client.Addr().IsLoopback() {
		limit = maxReaders
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n >= limit || l.byClient[client] >= maxReadersPerClient {
		return false
	}
	if l.byClient == nil {
		l.byClient = map[netip.Prefix]int{}
	}
	l.n++
	l.byClient[client]++
	return true
}

// release ends what acquire began.
func (l *pageLimiter) release(client netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n--
	if l.byClient[client]--; l.byClient[client] == 0 {
		delete(l.byClient, client)
	}
}

// serve calls page, or refuses the request if there are too many readers.
func (l *pageLimiter) serve(w http.ResponseWriter, r *http.Request, page func()) {
	client := clients.NetworkOf(clients.HostPart(r.RemoteAddr))
	if !l.acquire(client) {
		w.Header()["Retry-After"] = []string{"2"}
		writeText(w, http.StatusServiceUnavailable, fmt.Sprintf(
			"Too many clients read such pages now, or this client reads more than %d at once. Ask again in a few seconds", maxReadersPerClient))
		return
	}
	defer l.release(client)
	page()
}
