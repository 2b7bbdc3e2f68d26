package daemon

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"hacheck/test/servertest"
)

// fetch requests a URL at an address of a service's endpoint.
func fetch(t *testing.T, addr, accept string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/any/url", nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	r, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// isListening reports whether addr accepts connections.
func isListening(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// dial connects to addr until the test ends.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// freeAddr returns an address of 127.0.0.1 at which nothing listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	port, err := servertest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(servertest.Host, strconv.Itoa(int(port)))
}

// slowService starts an HTTP service that answers once release is closed. asked receives for each request.
func slowService(t *testing.T) (p string, asked <-chan struct{}, release chan struct{}) {
	t.Helper()
	in, release := make(chan struct{}, 100), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "at last")
	}))
	t.Cleanup(s.Close)
	return port(t, s.Listener.Addr().String()), in, release
}

// slowScript writes a script that creates the file began and runs until the file release exists.
func slowScript(t *testing.T) (script, began, release string) {
	t.Helper()
	dir := t.TempDir()
	script, began, release = filepath.Join(dir, "slow.sh"), filepath.Join(dir, "began"), filepath.Join(dir, "release")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n: >'"+began+"'\nuntil test -e '"+release+"'; do sleep 0.01; done\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return script, began, release
}

type answer struct {
	code int
	body string
	err  error
}

// getAsync is get in the background.
func (p *process) getAsync(path string) <-chan answer {
	c := make(chan answer, 1)
	go func() {
		code, body, err := p.get(path)
		c <- answer{code, body, err}
	}()
	return c
}

// askAny sends a request to addr; the channel receives the answer.
func askAny(t *testing.T, addr string) <-chan string {
	t.Helper()
	c := make(chan string, 1)
	go func() {
		code, body := fetch(t, addr, "")
		c <- fmt.Sprint(code, " ", body)
	}()
	return c
}
