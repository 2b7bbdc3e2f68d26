package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/textfmt"
)

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"90s":    90 * time.Second,
		"30m":    30 * time.Minute,
		"2h30m":  150 * time.Minute,
		"1d":     24 * time.Hour,
		"1w":     7 * 24 * time.Hour,
		"1w2d3h": (9*24 + 3) * time.Hour,
		"0.5h":   30 * time.Minute,
		"30m2h":  150 * time.Minute,
		"5000w":  5000 * 7 * 24 * time.Hour,
		"":       0, "0s": 0, "0h0m": 0, "90": 0, "m": 0, "-5m": 0, "+5m": 0, " 5m": 0, "5m ": 0, "5 m": 0,
		"5M": 0, "5y": 0, "5ms": 0, "1.2.3h": 0, ".": 0, ".h": 0, "1e3s": 0, "0x10s": 0, "5µs": 0,
		"5300w": 0, "5000w5000w": 0, "9999999999999999999999w": 0, "5217w5217w5217w5217w": 0,
		strings.Repeat("9", 400) + "s":                     0,
		"9999999999999999999999w9999999999999999999999w5s": 0, // two overflows and 5 s
	} {
		got, err := parseDuration(in)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("parseDuration(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"2h30m", "1d", "0.1s", "5000w5000w5000w", "5 m", ".5h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseDuration(s)
		if err != nil {
			if d != 0 {
				t.Fatalf("parseDuration(%q) = %v with an error", s, d)
			}
			return
		}
		if d <= 0 || d > 101*365*24*time.Hour {
			t.Fatalf("parseDuration(%q) = %v", s, d)
		}
		if std, err := time.ParseDuration(s); err == nil && (std-d).Abs() > time.Microsecond {
			t.Fatalf("parseDuration(%q) = %v, the standard library says %v", s, d, std)
		}
	})
}

func TestParseUnix(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]float64{
		"4000000000": 4e9, "4000000000.25": 4000000000.25, "4e9": 4e9, " 5 ": 5, "-5": -5, "253402300799": 253402300799,
	} {
		if got, err := parseUnix(in); err != nil || got != want {
			t.Errorf("parseUnix(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "soon", "nan", "NaN", "inf", "-inf", "Infinity", "1e999", "-1e999", "253402300800", "1795215493370", "5s"} {
		if got, err := parseUnix(in); err == nil || got != 0 {
			t.Errorf("parseUnix(%q) = %v, %v; want an error", in, got, err)
		}
	}
}

func TestParseDaemon(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"3333": "127.0.0.1:3333", ":3333": "127.0.0.1:3333", "db1:80": "db1:80", "[::1]:3333": "[::1]:3333",
		"10.0.0.1:65535": "10.0.0.1:65535", "[fe80::1%eth0]:1": "[fe80::1%eth0]:1",
	} {
		if got, err := parseDaemon(in); err != nil || got.String() != want {
			t.Errorf("parseDaemon(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "65536", "-1", "http", "::1", "::1:3333", "[::1]", "a:b:3", "db1:", "db1:http", "a b:1", "a\r\nX: y:1", "a/b:1", "u@h:1"} {
		if got, err := parseDaemon(in); err == nil {
			t.Errorf("parseDaemon(%q) = %v, want an error", in, got)
		}
	}
}

func FuzzParseDaemon(f *testing.F) {
	for _, s := range []string{"3333", ":1", "[::1]:80", "host:80", "a\r\nb:1", "[a:b:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseDaemon(s)
		if err != nil {
			return
		}
		if d.port == 0 || d.host == "" || strings.ContainsAny(d.host, " \r\n/@") {
			t.Fatalf("parseDaemon(%q) = %#v", s, d)
		}
		if again, err := parseDaemon(d.String()); err != nil || again != d {
			t.Fatalf("parseDaemon(%q) = %v, and that %v, %v", s, d, again, err)
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.0 200 OK\r\n\r\nbody"))
	f.Add([]byte("HTTP/1.1 200 OK\nContent-Length: 2\n\nbody"))
	f.Add([]byte("HTTP/1.1 503\r\nTransfer-Encoding: chunked\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		whole, err := readAnswer(bytes.NewReader(answer))
		if err == nil && !bytes.Contains(answer, whole) {
			t.Fatalf("a body that was not sent: %q", whole)
		}
		if err != nil && (whole != nil || textfmt.OneLine(err.Error()) != err.Error()) {
			t.Fatalf("body %q, error %q", whole, err)
		}
		// The result does not depend on how the bytes arrive.
		slow, slowErr := readAnswer(iotest.OneByteReader(bytes.NewReader(answer)))
		if !bytes.Equal(whole, slow) || fmt.Sprint(err) != fmt.Sprint(slowErr) {
			t.Fatalf("at once: %q, %v; byte by byte: %q, %v", whole, err, slow, slowErr)
		}
	})
}

// endless is a server that never stops sending.
type endless struct{ start io.Reader }

func (e endless) Read(p []byte) (int, error) {
	if n, err := e.start.Read(p); err == nil {
		return n, nil
	}
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// readAnswer bounds the head, a body with a length and a body without one.
func TestReadAnswerBounded(t *testing.T) {
	t.Parallel()
	for start, want := range map[string]string{
		"":                            "complete",
		"HTTP/1.1 200 OK\r\nX-Long: ": "complete",
		"HTTP/1.1 200 OK\r\n\r\n":     fmt.Sprintf("longer than %d bytes", maxAnswer),
		"HTTP/1.1 200 OK\r\nContent-Length: 999999999999999\r\n\r\n": "too long",
	} {
		body, err := readAnswer(endless{strings.NewReader(start)})
		if body != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q and no end: %d bytes, %v; want an error with %q", start, len(body), err, want)
		}
	}
	body, err := readAnswer(endless{strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef")})
	if string(body) != "abc" || err != nil {
		t.Errorf("a body of 3 bytes and no end: %q, %v", body, err)
	}
}

// A daemon that sends nothing, or a byte now and then, delays a command for requestTimeout at most.
func TestSlowDaemon(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(net.Conn){
		"silent": func(net.Conn) {},
		"dripping": func(c net.Conn) {
			for range time.Tick(100 * time.Millisecond) {
				if _, err := c.Write([]byte("H")); err != nil {
					return
				}
			}
		},
		"dripping after the head": func(c net.Conn) {
			io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\n")
			for range time.Tick(100 * time.Millisecond) {
				if _, err := c.Write([]byte(" ")); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			done := make(chan struct{})
			defer func() { <-done }()
			go func() {
				defer close(done)
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				serve(c)
				io.Copy(io.Discard, c) // until the command hangs up
			}()
			d, err := parseDaemon(l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, err = d.recent()
			if err == nil || !strings.Contains(err.Error(), "no whole answer within 3s") {
				t.Errorf("error %v", err)
			}
			if took := time.Since(start); took < requestTimeout || took > 2*requestTimeout {
				t.Errorf("gave up after %v", took)
			}
		})
	}
}

func TestPythonJSON(t *testing.T) {
	t.Parallel()
	// The values are the output of python3 -c 'import json,sys; print(json.dumps(json.loads(sys.argv[1])))'.
	for in, want := range map[string]string{
		`{}`:                          `{}`,
		`[]`:                          `[]`,
		` null `:                      `null`,
		`"é"`:                         `"\u00e9"`,
		`[1,2.50,true,"",{"a":{}}]`:   `[1, 2.50, true, "", {"a": {}}]`,
		`{"a":[],"b":[[]],"c":"\/x"}`: `{"a": [], "b": [[]], "c": "/x"}`,
		`{"a":{"b":1,"c":2},"d":3}`:   `{"a": {"b": 1, "c": 2}, "d": 3}`,
		`"\u2028\ud83d\ude00\u007f~"`: `"\u2028\ud83d\ude00\u007f~"`,
	} {
		if got := pythonJSON(json.RawMessage(in)); got != want {
			t.Errorf("pythonJSON(%s) = %s, want %s", in, got, want)
		}
	}
}

// The value stays the same, only spaces and escapes differ.
func FuzzPythonJSON(f *testing.F) {
	f.Add(`{"code": 200, "remote_ip": "127.0.0.1", "ts": 1795215493.37, "x": [null, true, {"é": "😀\n"}]}`)
	f.Add(`[[],{},[{}],"\u0000"]`)
	f.Fuzz(func(t *testing.T, s string) {
		decode := func(s string) (v any, err error) {
			dec := json.NewDecoder(strings.NewReader(s))
			dec.UseNumber()
			err = dec.Decode(&v)
			return v, err
		}
		if !json.Valid([]byte(s)) {
			return
		}
		want, err := decode(s)
		if err != nil {
			t.Fatal(err)
		}
		out := pythonJSON(json.RawMessage(s))
		got, err := decode(out)
		if err != nil || !cmp.Equal(got, want) {
			t.Fatalf("%q became %q: %v", s, out, err)
		}
		for _, r := range out {
			if r < ' ' || r > '~' {
				t.Fatalf("%q became %q, which is more than printable ASCII", s, out)
			}
		}
	})
}

// failing is a closed standard output.
type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("gone") }

// A command whose output cannot be written exits with 1, unless it has no output.
func TestOutputLost(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]int{"--help": ExitFailed, "--bogus": ExitUsage} {
		var stderr strings.Builder
		env := System("1")
		env.Stdout, env.Stderr = failing{}, &stderr
		if got := Main("hastatus", []string{"hastatus", line}, env); got != want {
			t.Errorf("hastatus %s exits %d, want %d; it says %s", line, got, want, &stderr)
		}
	}
}
