package config

import "testing"

func TestDecimalNumber(t *testing.T) {
	for s, want := range map[string]bool{
		"0": true, "15": true, "-1": true, "+1": true, "1.5": true, "0.5": true, ".5": true, "5.": true, "0.": true,
		"1e3": true, "1E+3": true, "1.e-3": true, "1_000": true, "1_000.000_1": true,
		"": false, "-": false, ".": false, "e3": false, "1e": false, "1e+": false, "010": false, "00": false, "0_1": false,
		"0x10": false, "0b1": false, "0o7": false, "1:30": false, ".inf": false, ".nan": false, "NaN": false, "inf": false,
		"_1": false, "._1": false, "1 0": false, "--1": false, "1e--1": false, "1e1.5": false, "１": false, "1e1_0": false,
	} {
		if got := decimalNumber.MatchString(s); got != want {
			t.Errorf("decimalNumber(%q) = %v, want %v", s, got, want)
		}
	}
}

func TestIsHost(t *testing.T) {
	for s, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "2001:db8::1": true, "localhost": true, "web-1.example.com": true, "web.": true,
		"_srv.x": true, "1st.example": true, "example.c0m": true,
		"": false, ".": false, "a..b": false, "-a": false, "a-": false, "a b": false, "[::1]": false, "a:80": false,
		"127.1": false, "10.0.0.256": false, "1": false, "10.0.0.1.": false, "fe80::1%eth0": false, "é": false,
	} {
		if got := isHost(s); got != want {
			t.Errorf("isHost(%q) = %v, want %v", s, got, want)
		}
	}
}
