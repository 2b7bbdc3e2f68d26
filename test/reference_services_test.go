package test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// refService is a plain TCP service that records its requests.
type refService struct {
	port int
	mu   sync.Mutex
	got  []string
}

func (r *refService) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = nil
}

func (r *refService) record(request string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, request)
}

// service returns the test service of that name and starts it at the first call.
func (w *refRun) service(name string) *refService {
	if toy := w.services[name]; toy != nil {
		return toy
	}
	toy := &refService{port: freePort(w.t)}
	w.services[name] = toy
	host := "127.0.0.1"
	var speak func(net.Conn)
	switch name {
	case "closed": // no listener
		return toy
	case "hole": // a connect never completes
		toy.port = portWithFullBacklog(w.t)
		return toy
	case "web":
		speak = func(c net.Conn) { speakHTTP(c, "one", toy.record) }
	case "two":
		host, speak = "127.0.0.2", func(c net.Conn) { speakHTTP(c, "two", toy.record) }
	default:
		lines, ok := refDialogues[name]
		if !ok {
			w.t.Fatalf("there is no toy service %q", name)
		}
		speak = func(c net.Conn) { speakLines(c, lines) }
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(toy.port)))
	if err != nil {
		w.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(waitLimit))
				speak(conn)
			})
		}
	})
	w.t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return toy
}

// portWithFullBacklog returns a port whose accept queue is full: the kernel drops every further SYN.
func portWithFullBacklog(t *testing.T) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := name.(*syscall.SockaddrInet4).Port
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for range 100 {
		conn, err := net.DialTimeout("tcp", addr, 300*time.Millisecond)
		if err != nil {
			return port
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("the queue of a listener does not fill")
	return 0
}

// refDialogues has the texts that test services send: the first one after the connect, and one after each line or
// packet of the client. Then the service closes. "..." waits until the client has closed, "." sends nothing.
var refDialogues = map[string][]string{
	"silent":     {"..."},
	"closes":     {},
	"smtp-ok":    {"220 toy ready\r\n", "221 bye\r\n"},
	"smtp-554":   {"554 go away\r\n", "221 bye\r\n"},
	"smtp-multi": {"220-toy\r\n220 hello again\r\n", "221 bye\r\n"},
	"smtp-500":   {"220 toy\r\n", "500 what\r\n"},
	"smtp-early": {"220 toy\r\n", ""},
	"smtp-blank": {"220 toy\r\n", "\r\n", "..."},
	"smtp-byte":  {"220 toy\r\n", "\xff\xfe\r\n", "..."},
	"smtp-mute":  {"220 toy\r\n", "..."},
	"tls":        {".", "\x15\x03\x01\x00\x02\x02\x46"}, // an alert: not HTTP
	// A handshake of MySQL 5.7 with mysql_native_password; then OK, or access denied; then an answer to SHOW VARIABLES; then
	// QUIT comes.
	"mysql-ok":     {packet(0, mysqlGreeting), packet(2, "\x00\x00\x00\x02\x00\x00\x00"), mysqlVariables, "..."},
	"mysql-denied": {packet(0, mysqlGreeting), packet(2, "\xff\x15\x04#28000Access denied"), "..."},
	"mysql-err":    {packet(0, "\xff\x10\x04Too many connections"), "..."},
}

const mysqlGreeting = "\x0a5.7.0\x00\x01\x00\x00\x00abcdefgh\x00\xff\xf7\x21\x02\x00\xff\x81\x15" +

	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00ijklmnopqrst\x00mysql_native_password\x00"

// mysqlVariables is an answer with the variable read_only. Without an EOF packet after the columns, as mysqlGreeting has it.
var mysqlVariables = packet(1, "\x02") + packet(2, mysqlColumn("Variable_name")) + packet(3, mysqlColumn("Value")) +
	packet(4, "\x09read_only\x03OFF") + packet(5, "\xfe\x00\x00\x02\x00\x00\x00")

// mysqlColumn returns the definition of a column of text.
func mysqlColumn(name string) string {
	text := string([]byte{byte(len(name))}) + name
	return "\x03def\x00\x00\x00" + text + text + "\x0c\x21\x00\xff\x00\x00\x00\xfd\x00\x00\x00\x00\x00"
}

// packet returns a packet of the MySQL protocol.
func packet(sequence byte, payload string) string {
	return string([]byte{byte(len(payload)), 0, 0, sequence}) + payload
}

func speakLines(c net.Conn, lines []string) {
	buf := make([]byte, 4096)
	for i, l := range lines {
		if l == "..." {
			_, _ = io.Copy(io.Discard, c)
			return
		}
		if i > 0 {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
		if l != "." {
			if _, err := io.WriteString(c, l); err != nil {
				return
			}
		}
	}
}

// speakHTTP answers one request by its path. It calls note with the request head.
func speakHTTP(c net.Conn, name string, note func(string)) {
	r := bufio.NewReader(c)
	var head strings.Builder
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if head.WriteString(l); strings.TrimSpace(l) == "" {
			break
		}
	}
	note(head.String())
	target := strings.Fields(head.String() + " - -")[1]
	path, _, _ := strings.Cut(target, "?")
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(c, format, args...) }
	text := name + " " + target
	switch code, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/"); code {
	case "code":
		say("HTTP/1.1 %s Toy\r\nLocation: /redirected\r\nContent-Length: %d\r\n\r\n%s", rest, len(text), text)
	case "empty":
		say("HTTP/1.1 %s Toy\r\n\r\n", rest)
	case "with-length":
		say("HTTP/1.1 204 Toy\r\nContent-Length: 4\r\n\r\nbody")
	case "gzip":
		if regexp.MustCompile(`(?i)\naccept-encoding:.*gzip`).MatchString(head.String()) {
			say("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00")
			return
		}
		say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	case "chunked":
		say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n")
	case "until-close":
		say("HTTP/1.1 200 OK\r\n\r\nuntil the end")
	case "http10":
		say("HTTP/1.0 200 OK\r\n\r\nas in the old days")
	case "2MiB":
		say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", 2<<20, strings.Repeat("x", 2<<20))
	case "200MiB":
		say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", 200<<20, strings.Repeat("x", 2<<20))
		_, _ = io.Copy(io.Discard, r)
	case "101":
		say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
	case "short":
		say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot a hundred")
	case "garbage":
		say("what do you want\r\n\r\n")
		_, _ = io.Copy(io.Discard, r)
	case "hang":
		_, _ = io.Copy(io.Discard, r)
	case "slow": // most of the timeout of the rows that ask for it
		<-time.After(3 * time.Second)
		say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")
	case "close":
	default:
		say("HTTP/1.1 200 OK\r\nX-Toy: %s\r\nContent-Type: text/x-toy\r\nContent-Length: %d\r\n\r\n%s", name, len(text), text)
	}
}
