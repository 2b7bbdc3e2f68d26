package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// clients is the number of clients. Each sends requestsPerClient requests a second, one after the other.
	clients           = 4
	requestsPerClient = 10
	// chunkInterval is the time between two chunks of a download.
	chunkInterval = 100 * time.Millisecond
	// downloadEnd is the end of a complete download.
	downloadEnd = "that was all\n"
)

// service is a small HTTP service.
type service struct {
	name     string // in HAProxy
	key      string // in hacheck
	addr     string
	answered atomic.Int64 // requests without checks
	srv      *http.Server
	served   chan struct{}
	finish   chan struct{} // when closed, downloads end

	hacheckAddr string // of the hacheck that checks it
	path        string // PATH for the commands of its host
	restartFile string // exists while the script "restart" waits; "" without that script
	restarts    int
}

// start serves until stop is called.
func (t *service) start() error {
	ln, err := net.Listen("tcp", t.addr)
	if err != nil {
		return err
	}
	t.finish, t.served = make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "OK") })
	mux.HandleFunc("/download", t.download)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		t.answered.Add(1)
		_, _ = fmt.Fprintln(w, t.name)
	})
	t.srv = &http.Server{Handler: mux, ReadHeaderTimeout: requestTimeout}
	go func() {
		defer close(t.served)
		_ = t.srv.Serve(ln) // returns when it is closed
	}()
	return nil
}

// stop closes the service and its connections at once. It may be called again.
func (t *service) stop() {
	if t.srv != nil {
		t.srv.Close()
		<-t.served
		t.srv = nil
	}
}

// restartIfRequested restarts the service if the script "restart" waits for it.
func (t *service) restartIfRequested() error {
	if t.restartFile == "" {
		return nil
	}
	if _, err := os.Stat(t.restartFile); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	t.stop()
	if err := t.start(); err != nil {
		return err
	}
	t.restarts++
	return os.Remove(t.restartFile)
}

// download sends chunks until finish is closed.
func (t *service) download(w http.ResponseWriter, r *http.Request) {
	flush := http.NewResponseController(w)
	every := time.NewTicker(chunkInterval)
	defer every.Stop()
	for {
		if _, err := io.WriteString(w, "and more\n"); err != nil || flush.Flush() != nil {
			return
		}
		select {
		case <-t.finish:
			_, _ = io.WriteString(w, downloadEnd)
			return
		case <-r.Context().Done():
			return
		case <-every.C:
		}
	}
}

// slowDownload starts a download. The channel receives nil when it is complete, or an error.
func slowDownload(ctx context.Context, url string) (<-chan error, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/download", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req) //nolint:bodyclose // the goroutine below reads all of it and closes it
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("download: %s", resp.Status)
	}
	ended := make(chan error, 1)
	go func() {
		defer resp.Body.Close()
		all, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err == nil && !strings.HasSuffix(string(all), downloadEnd) {
			err = errors.New("it was cut off")
		}
		ended <- err
	}()
	return ended, nil
}

// load sends requests and counts the answered and the lost ones.
type load struct {
	answered, lost atomic.Int64
	cancel         context.CancelFunc
	clients        sync.WaitGroup

	mu    sync.Mutex
	first error // the error of the first lost request
}

// startLoad sends requests until stop is called.
func startLoad(ctx context.Context, url string) *load {
	l := &load{}
	ctx, l.cancel = context.WithCancel(ctx)
	client := &http.Client{Timeout: requestTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	for i := range clients {
		l.clients.Go(func() {
			first := time.NewTimer(time.Second / requestsPerClient / clients * time.Duration(i)) // spreads the clients over time
			defer first.Stop()
			select {
			case <-ctx.Done():
				return
			case <-first.C:
			}
			tick := time.NewTicker(time.Second / requestsPerClient)
			defer tick.Stop()
			for {
				switch err := request(ctx, client, url); {
				case ctx.Err() != nil:
					return
				case err != nil:
					l.recordLost(err)
				default:
					l.answered.Add(1)
				}
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	return l
}

// request sends one request. It returns an error unless the answer is 200.
func request(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New("answered " + resp.Status)
	}
	return nil
}

func (l *load) recordLost(err error) {
	l.lost.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = err
	}
}

// firstLoss returns the error of the first lost request, nil if none was lost.
func (l *load) firstLoss() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

// stop ends the load and returns when the last request has ended.
func (l *load) stop() {
	l.cancel()
	l.clients.Wait()
}
