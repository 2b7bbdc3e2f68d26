package config

import (
	"net/netip"
	"path/filepath"
	"strings"
)

func isAny(string) bool { return true }

// isHeader reports whether s is a header name (RFC 9110, section 5.6.2) that may be copied.
func isHeader(s string) bool {
	return s != "" && len(s) <= maxHeader && consistsOf(s, digits+letters+"!#$%&'*+-.^_`|~") && !hopByHopHeaders[strings.ToLower(s)]
}

// hopByHopHeaders are the headers about one connection or about the framing of a message. Copied, they would break the
// request to the service.
var hopByHopHeaders = map[string]bool{
	"connection": true, "content-length": true, "expect": true, "keep-alive": true, "proxy-connection": true,
	"te": true, "trailer": true, "transfer-encoding": true, "upgrade": true,
}

func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// isHost reports whether s is an IP address or a host name. It refuses what only looks like an IPv4 address (10.0.0.256,
// 127.1): some resolvers accept it.
func isHost(s string) bool {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Zone() == ""
	}
	labels := strings.Split(strings.TrimSuffix(s, "."), ".")
	for _, l := range labels {
		if l == "" || l[0] == '-' || l[len(l)-1] == '-' || !consistsOf(l, digits+letters+"-_") {
			return false
		}
	}
	return len(s) <= maxHostName && !consistsOf(labels[len(labels)-1], digits)
}

func isLogPath(s string) bool {
	isControl := func(r rune) bool { return r < ' ' || r == 0x7f }
	return s == "stdout" || s == "stderr" || filepath.IsAbs(s) && !strings.HasSuffix(s, "/") && !strings.ContainsFunc(s, isControl)
}

const (
	digits  = "0123456789"
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// consistsOf reports whether every byte of s is in set, which is ASCII.
func consistsOf(s, set string) bool { return strings.Trim(s, set) == "" }
