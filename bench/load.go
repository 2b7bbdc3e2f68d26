package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// connections is how many wrk keeps busy: enough that every core has work at any time, few enough that the
// contestants' queues stay short.
const connections = 32

var (
	wrkRequests = regexp.MustCompile(`([0-9]+) requests in`)
	wrkRate     = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	wrkFailed   = regexp.MustCompile(`Socket errors.*`)
	wrkNot2xx   = regexp.MustCompile(`Non-2xx or 3xx responses: ([0-9]+)`)
)

// wrkResult is what wrk reports of one turn.
type wrkResult struct {
	rate     float64 // answers a second
	requests int
	not2xx   int // answers that are neither 2xx nor 3xx
}

// wrk asks one contestant for one turn. A failed connection or request is an error: it would be a fast one.
func (b *bench) wrk(url string, args ...string) (wrkResult, error) {
	var l wrkResult
	args = append([]string{
		"-t", "2", "-c", strconv.Itoa(connections), "-d", fmt.Sprintf("%ds", int(b.duration.Seconds())),
	}, append(args, url)...)
	out, err := exec.CommandContext(b.ctx, "wrk", args...).CombinedOutput()
	if err != nil {
		return l, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	if m := wrkFailed.Find(out); m != nil {
		return l, fmt.Errorf("wrk %s: %s", url, m)
	}
	n, r := wrkRequests.FindSubmatch(out), wrkRate.FindSubmatch(out)
	if n == nil || r == nil {
		return l, fmt.Errorf("wrk printed\n%s", out)
	}
	if m := wrkNot2xx.FindSubmatch(out); m != nil {
		if l.not2xx, err = strconv.Atoi(string(m[1])); err != nil {
			return l, err
		}
	}
	if l.requests, err = strconv.Atoi(string(n[1])); err != nil {
		return l, err
	}
	l.rate, err = strconv.ParseFloat(string(r[1]), 64)
	return l, err
}

// rate is wrk's rate where every answer has to be 2xx.
func (b *bench) rate(url string, args ...string) (float64, error) {
	l, err := b.wrk(url, args...)
	if err == nil && l.not2xx > 0 {
		err = fmt.Errorf("%s: %d of %d answers were not 2xx", url, l.not2xx, l.requests)
	}
	return l.rate, err
}

// interleave gives each contestant its turns: all of them once, then all of them again, each time beginning with
// another one, so that no one always runs after the same one. Before the first turn each warms up for one.
// It returns the figures of each contestant, turn by turn.
func (b *bench) interleave(contestants int, turn func(i int) (float64, error)) ([][]float64, error) {
	figures := make([][]float64, contestants)
	for i := range contestants {
		if _, err := turn(i); err != nil {
			return nil, err
		}
	}
	for p := range b.turns {
		for k := range contestants {
			i := (p + k) % contestants
			f, err := turn(i)
			if err != nil {
				return nil, err
			}
			figures[i] = append(figures[i], f)
		}
	}
	return figures, nil
}

// writeScript writes a wrk script that makes n different requests, round about, each thread beginning elsewhere. path is
// the body of a function in Lua that returns the path of request i, from 0 to n-1.
//
// Requests are made when they are sent, not before: wrk lets a thread begin before it has read the next one's script,
// and counts what that thread asks meanwhile but not the time. And 100,000 of them kept in memory would compete with
// the contestant's own data for the processor's cache, the more so the more data that has. Every request is a string of its own, also where
// paths repeat: one that Lua has already costs it less than a new one, and the difference would be taken for the
// contestant's.
func (b *bench) writeScript(name string, n int, path string) (string, error) {
	file := filepath.Join(b.tmp, name+".lua")
	return file, os.WriteFile(file, fmt.Appendf(nil, `
local threads = 0
function setup(thread)
    thread:set("first", threads * 31337)
    threads = threads + 1
end

local format, floor = string.format, math.floor
local function path(i)
%s
end

local asked = 0
function request()
    -- In steps of a prime: neighbours in the list are not neighbours in time.
    asked = asked + 7919
    local i = (first + asked) %% %d
    return format("GET %%s HTTP/1.1\r\nHost: x\r\nX-Number: %%07d\r\n\r\n", path(i), i)
end
`, path, n), 0o600)
}

// latencies asks at a steady rate, whatever the answers do, each time on a new connection as HAProxy does, and returns how
// long each answer took, in microseconds.
func (b *bench) latencies(addr string, rate int, d time.Duration, path func(i int) string) ([]float64, error) {
	const workers = 256
	buffers := make([][4096]byte, workers)
	return callAtRate(rate, d, workers, func(worker, i int) error { return requestOnce(addr, path(i), buffers[worker][:]) })
}

// callAtRate calls ask at a steady rate and returns how long each call took, in microseconds. The time counts from the
// moment the call was due, not from when it could be made: a server that stalls makes all that are due in the meantime
// late, and each of them counts (otherwise a stall of a second would be one slow answer of thousands).
func callAtRate(rate int, d time.Duration, workers int, ask func(worker, i int) error) ([]float64, error) {
	n := int(d.Seconds() * float64(rate))
	took := make([]float64, n)
	due := make(chan int, n)
	began := time.Now().Add(50 * time.Millisecond)
	at := func(i int) time.Time { return began.Add(time.Duration(i) * time.Second / time.Duration(rate)) }
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for worker := range workers {
		wg.Go(func() {
			for i := range due {
				err := ask(worker, i)
				took[i] = float64(time.Since(at(i))) / float64(time.Microsecond)
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		time.Sleep(time.Until(at(i))) // the rate is what is held: nothing is waited for
		due <- i
	}
	close(due)
	wg.Wait()
	return took, failed
}

// requestOnce sends one request on a new connection, as HAProxy's httpchk does, and reads the answer to its end.
func requestOnce(addr, path string, buf []byte) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // fails on a closed connection, which the write says too
	if _, err := conn.Write(append(append(append(buf[:0], "GET "...), path...), " HTTP/1.0\r\n\r\n"...)); err != nil {
		return err
	}
	n := 0
	for n < len(buf) {
		m, err := conn.Read(buf[n:])
		n += m
		if err != nil {
			break
		}
	}
	if !bytes.HasPrefix(buf[:n], []byte("HTTP/1.0 200 ")) && !bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("%s%s answered %.100q", addr, path, buf[:n])
	}
	return nil
}
