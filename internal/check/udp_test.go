package check_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/check"
	"hacheck/test/checktest"
)

// Each result has a text of its own.
func TestUDP(t *testing.T) {
	for name, c := range map[string]struct {
		answer func([]byte) []byte // nil: nothing listens
		code   int
		reason check.Reason
		want   string
	}{
		"answered":           {pong, 200, check.ReasonAnswered, "Answered as expected in 0."},
		"answered otherwise": {func([]byte) []byte { return []byte("no\x1b\n") }, 503, check.ReasonFailed, `AT answered, but not as expected: "no"`},
		"nothing there":      {nil, 503, check.ReasonRefused, "Nothing listens on UDP port AT (its machine refused the datagram)"},
		"no answer":          {func([]byte) []byte { return nil }, 503, check.ReasonTimeout, "No answer from AT over UDP after 0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			port := udpSocketGone(t)
			if c.answer != nil {
				port = checktest.ServeUDP(t, "127.0.0.1", c.answer)
			}
			configured := build(t, check.Defaults{}, "udp", map[string]any{"host": "127.0.0.1", "port": int(port), "send": "ping", "expect": "pong", "timeout": 0.2})
			r := configured.Check(t.Context(), check.Target{})
			at := strings.TrimPrefix(configured.Name, "udp:")
			if r.Code != c.code || r.Reason != c.reason || !strings.HasPrefix(string(r.Body), strings.ReplaceAll(c.want, "AT", at)) {
				t.Errorf("%d %s %s", r.Code, r.Reason, r.Body)
			}
			if diff := cmp.Diff([]string{"udp:" + at}, stepNames(configured)); diff != "" || configured.Endpoint.Network != "udp" {
				t.Errorf("steps (-want +got):\n%s%+v", diff, configured.Endpoint)
			}
		})
	}
}

// TestUDPBytes: protocols that are no text, and answers whose end is not known before.
func TestUDPBytes(t *testing.T) {
	port := checktest.ServeUDP(t, "127.0.0.1", func(datagram []byte) []byte {
		if string(datagram) != "\x00\xff\x80" {
			return nil
		}
		return []byte("\xff\xfe and more")
	})
	for name, c := range map[string]struct {
		options map[string]any
		code    int
	}{
		"whole":             {map[string]any{"expect_hex": "fffe20616e64206d6f7265"}, 200},
		"beginning is less": {map[string]any{"expect_hex": "fffe"}, 503},
		"beginning":         {map[string]any{"expect_hex": "FF fe", "expect_prefix": true}, 200},
		"other beginning":   {map[string]any{"expect_hex": "fffd", "expect_prefix": true}, 503},
		"text":              {map[string]any{"expect_prefix": "pong"}, 503},
	} {
		c.options["host"], c.options["port"], c.options["send_hex"], c.options["timeout"] = "127.0.0.1", int(port), "00 ff 80", 2
		if r := build(t, check.Defaults{}, "udp", c.options).Check(t.Context(), check.Target{}); r.Code != c.code {
			t.Errorf("%s: %d %s", name, r.Code, r.Body)
		}
	}
	wantOptionErrors(t, "udp", map[string][]any{
		"send: is required, or send_hex":                                  {"host", "h", "port", 1, "expect", "x"},
		"expect: is required, or expect_hex or expect_prefix":             {"host", "h", "port", 1, "send", "x"},
		"expect: is required, or expect_hex":                              {"host", "h", "port", 1, "send", "x", "expect_prefix", true},
		"send_hex: expected bytes in hexadecimal, with or without spaces": {"host", "h", "port", 1, "send_hex", "0", "expect", "x"},
		"send: expected only one of send, send_hex":                       {"host", "h", "port", 1, "send", "x", "send_hex", "00", "expect", "x"},
		"expect_prefix: expected at least one byte":                       {"host", "h", "port", 1, "send", "x", "expect_prefix", ""},
		"expect_prefix: expected at least one byte that":                  {"host", "h", "port", 1, "send", "x", "expect", "", "expect_prefix", true},
	})
	// The generator for Django writes "expect: ''" for statsd. It means an empty datagram, and never any answer.
	for answer, code := range map[string]int{"": 200, "x": 503} {
		port := checktest.ServeUDP(t, "127.0.0.1", func([]byte) []byte { return []byte(answer) })
		c := buildAt(t, check.Defaults{}, "udp", "127.0.0.1", port, "send", "conncheck.test:1|c", "expect", "")
		if r := c.Check(t.Context(), check.Target{}); r.Code != code {
			t.Errorf("an empty datagram wanted, %q received: %d %s", answer, r.Code, r.Body)
		}
	}
}

func TestUDPLarge(t *testing.T) {
	long := strings.Repeat("x", 60_000)
	port := checktest.ServeUDP(t, "127.0.0.1", func(datagram []byte) []byte { return datagram })
	options := map[string]any{"host": "127.0.0.1", "port": int(port), "send": long, "expect": long}
	if r := build(t, check.Defaults{}, "udp", options).Check(t.Context(), check.Target{}); r.Code != 200 {
		t.Errorf("60,000 bytes: %d %s", r.Code, r.Body)
	}
	options["send"] = strings.Repeat("x", 70_000)
	if r := build(t, check.Defaults{}, "udp", options).Check(t.Context(), check.Target{}); r.Code != 500 || r.Reason != check.ReasonConfig {
		t.Errorf("70,000 bytes: %d %s", r.Code, r.Body)
	}
}
