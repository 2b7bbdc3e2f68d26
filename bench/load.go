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

// connections is the number of wrk's connections. It is high enough to keep every core busy and low enough to keep the
// queues of the contestants short.
const connections = 32

var (
	wrkRequests = regexp.MustCompile(`([0-9]+) requests in`)
	wrkRate     = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	wrkFailed   = regexp.MustCompile(`Socket errors.*`)
	wrkNot2xx   = regexp.MustCompile(`Non-2xx or 3xx responses: ([0-9]+)`)
)

// wrkResult is the result of one turn of wrk.
type wrkResult struct {
	rate     float64 // answers a second
	requests int
	not2xx   int // answers that are neither 2xx nor 3xx
}

// wrk loads one contestant for one turn. It returns an error for a failed connection or request, because a failure is
// faster than an answer.
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

// rate returns the rate of wrk, and an error unless every answer is 2xx.
func (b *bench) rate(url string, args ...string) (float64, error) {
	l, err := b.wrk(url, args...)
	if err == nil && l.not2xx > 0 {
		err = fmt.Errorf("%s: %d of %d answers were not 2xx", url, l.not2xx, l.requests)
	}
	return l.rate, err
}

// interleave runs b.turns rounds with one turn of each contestant. Each round begins with another contestant, so that
// none always runs after the same one. A round of warm-up comes first. It returns the figures of each contestant in the
// order of the turns.
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

// writeScript writes a wrk script that sends n different requests again and again. Each thread begins at another one.
// text is the body of a Lua function that returns request i, from 0 to n-1: format(head(PATH), values of PATH..., i).
//
// The script formats each request when it is sent, for two reasons. wrk starts a thread before it has read the script
// of the next one, and counts the requests of that time but not the time itself. And 100,000 requests in memory would
// compete with the contestant for the processor's cache. Every request is a different string, even for a repeated path:
// Lua reuses equal strings, and the saved time would count for the contestant. One call of format makes the whole
// request for the same reason: a path would be a string of its own.
func (b *bench) writeScript(name string, n int, text string) (string, error) {
	file := filepath.Join(b.tmp, name+".lua")
	return file, os.WriteFile(file, fmt.Appendf(nil, `
local threads = 0
function setup(thread)
    thread:set("first", threads * 31337)
    threads = threads + 1
end

local format, floor = string.format, math.floor
local function head(path)
    return "GET " .. path .. " HTTP/1.1\r\nHost: x\r\nX-Number: %%07d\r\n\r\n"
end
local function text(i)
%s
end

local asked = 0
function request()
    -- A prime step, so that neighbouring requests are not sent one after the other.
    asked = asked + 7919
    return text((first + asked) %% %d)
end
`, text, n), 0o600)
}

// latencies sends requests at a constant rate, each on a new connection as HAProxy does. It returns the latency of each
// answer in microseconds.
func (b *bench) latencies(addr string, rate int, d time.Duration, path func(i int) string) ([]float64, error) {
	const workers = 256
	buffers := make([][4096]byte, workers)
	return callAtRate(rate, d, workers, func(worker, i int) error { return requestOnce(addr, path(i), buffers[worker][:]) })
}

// callAtRate calls call at a constant rate (open loop) and returns the latency of each call in microseconds. A latency
// counts from the time the call is due, not from the time it is made. So a stall of the server makes every call late
// that is due meanwhile, and not only one.
func callAtRate(rate int, d time.Duration, workers int, call func(worker, i int) error) ([]float64, error) {
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
				err := call(worker, i)
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
		time.Sleep(time.Until(at(i))) // does not wait for any answer
		due <- i
	}
	close(due)
	wg.Wait()
	return took, failed
}

// requestOnce sends one request on a new connection, as HAProxy's httpchk does, and reads the whole answer. It returns
// an error unless the answer is 200.
func requestOnce(addr, path string, buf []byte) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // an error shows again at the write
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
