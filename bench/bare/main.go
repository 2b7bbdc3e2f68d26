// Command bare is the baseline for hacheck: with -listen the simplest server of net/http, a constant answer; with -get
// the simplest client, a GET on a new connection each.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	listen := flag.String("listen", "", "serve a constant on this address")
	get := flag.String("get", "", "GET this URL, followed by a number that is never the same")
	clients := flag.Int("clients", 16, "with -get: number of concurrent clients")
	duration := flag.Duration("for", time.Second, "with -get: how long")
	flag.Parse()
	var err error
	switch {
	case *listen != "":
		err = serve(*listen)
	case *get != "":
		err = sendRequests(*get, *clients, *duration)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

// serve has no mux, no timeouts and no counters. It sets the Content-Type, so that net/http does not detect it.
func serve(addr string) error {
	contentType, body := []string{"text/plain; charset=utf-8"}, []byte("OK")
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = contentType
		_, _ = w.Write(body) // the client may have closed the connection
	}))
}

// sendRequests sends requests for d and prints the number of answers and their rate.
func sendRequests(url string, clients int, d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	var number, answered atomic.Int64
	var failed atomic.Value
	var wg sync.WaitGroup
	began := time.Now()
	for range clients {
		wg.Go(func() {
			for {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprint(url, number.Add(1)), http.NoBody)
				if err == nil {
					err = request(client, req)
				}
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					failed.Store(err)
					return
				}
				answered.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	if err, ok := failed.Load().(error); ok {
		return err
	}
	fmt.Println(answered.Load(), float64(answered.Load())/took.Seconds())
	return nil
}

func request(client *http.Client, req *http.Request) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", req.URL, resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
