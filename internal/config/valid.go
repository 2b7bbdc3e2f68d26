package config

import (
	"net/netip"
	"path/filepath"
	"strings"
)

func isAny(string) bool { return true }

// isHeader follows RFC 9110 section 5.6.2.
func isHeader(s string) bool {
	return s != "" && len(s) <= maxHeader && consistsOf(s, digits+letters+"!#$%&'*+-.^_`|~") && !hopByHopHeaders[strings.ToLower(s)]
}

// hopByHopHeaders are the headers that belong to one connection or to how a message is cut; sent on as they came
// they would break the request to the service.
var hopByHopHeaders = map[string]bool{
	"connection": true, "content-length": true, "expect": true, "keep-alive": true, "proxy-connection": true,
	"te": true, "trailer": true, "transfer-encoding": true, "upgrade": true,
}

func isToken(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

// isHost refuses what looks like an IPv4 address and is none (10.0.0.256, 127.1): some resolver would
// make something of it.
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
	if s == "stdout" || s == "stderr" {
		return true
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return filepath.IsAbs(s) && !strings.HasSuffix(s, "/")
}

const (
	digits  = "0123456789"
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// consistsOf reports whether s consists of bytes of set, all of them ASCII.
func consistsOf(s, set string) bool {
	for i := range len(s) {
		if strings.IndexByte(set, s[i]) < 0 {
			return false
		}
	}
	return true
}
