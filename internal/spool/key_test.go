package spool

import (
	"slices"
	"errors"
	"strings"
	"testing"
)

func TestParseKey(t *testing.T) {
	for _, tt := range []struct {
		name string
		want Key
		back string // Name, where it is not name
	}{
		{name: "web", want: Key{Service: "web"}},
		{name: "all", want: Key{Service: "all"}},
		{name: ".x", want: Key{Service: ".x"}},
		{name: ".foo.swp", want: Key{Service: ".foo.swp"}},
		{name: "...", want: Key{Service: "..."}},
		{name: "a-b_c.D9", want: Key{Service: "a-b_c.D9"}},
		{name: "web:80", want: Key{Service: "web", Port: 80}},
		{name: "web:65535", want: Key{Service: "web", Port: 65535}},
		{name: "all:80", want: Key{Service: "all", Port: 80}},
		{name: "web:0080", want: Key{Service: "web", Port: 80}, back: "web:80"},
		{name: "web:10.0.0.1:80", want: Key{Service: "web", Host: "10.0.0.1", Port: 80}},
		{name: "web:localhost:80", want: Key{Service: "web", Host: "127.0.0.1", Port: 80}, back: "web:127.0.0.1:80"},
		{name: "web:db.example:80", want: Key{Service: "web", Host: "db.example", Port: 80}},
		{name: "web:2001:db8::1:80", want: Key{Service: "web", Host: "2001:db8::1", Port: 80}},
		{name: "web:::1:80", want: Key{Service: "web", Host: "::1", Port: 80}},
		{name: "web:[::1]:80", want: Key{Service: "web", Host: "::1", Port: 80}, back: "web:::1:80"},
		{name: "web:0:0:0:0:0:0:0:1:80", want: Key{Service: "web", Host: "::1", Port: 80}, back: "web:::1:80"},
		{name: "web:2001:DB8::1:80", want: Key{Service: "web", Host: "2001:db8::1", Port: 80}, back: "web:2001:db8::1:80"},
		{name: "web:::ffff:10.0.0.1:80", want: Key{Service: "web", Host: "10.0.0.1", Port: 80}, back: "web:10.0.0.1:80"},
		{name: strings.Repeat("a", 200), want: Key{Service: strings.Repeat("a", 200)}},
	} {
		got, err := ParseKey(tt.name)
		if err != nil || got != tt.want {
			t.Errorf("ParseKey(%q) = %+v, %v, want %+v", tt.name, got, err, tt.want)
			continue
		}
		back := tt.back
		if back == "" {
			back = tt.name
		}
		if got.Name() != back {
			t.Errorf("ParseKey(%q).Name() = %q, want %q", tt.name, got.Name(), back)
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	for name, why := range map[string]string{
		"":                          "no service name",
		".":                         "no service name",
		"..":                        "no service name",
		"foo~":                      "no service name",
		"#foo":                      "no service name",
		"a b":                       "no service name",
		"a/b":                       "no service name",
		"a\x00b":                    "no service name",
		"ä":                         "no service name",
		":80":                       "no service name",
		"foo:":                      "no port",
		"foo:0":                     "no port",
		"foo:-5":                    "no port",
		"foo:+5":                    "no port",
		"foo:bar":                   "no port",
		"foo:65536":                 "no port",
		"foo:184467440737095516160": "no port",
		"foo::80":                   "neither",
		"foo:a b:80":                "neither",
		"foo:fe80::1%eth0:80":       "neither",
		"foo:[::1]:":                "no port",
		"foo:10.0.0.1:0":            "no port",
		strings.Repeat("a", 201):    "longer",
		strings.Repeat("a", 10000):  "longer",
		strings.Repeat("a", 182) + ":1::3:4:5:6:7:8:9":  "",
		strings.Repeat("a", 182) + ":1::30:4:5:6:7:8:9": "longer", // 1:0:30:... is one byte more
	} {
		k, err := ParseKey(name)
		if why == "" {
			if err != nil {
				t.Errorf("ParseKey(%.20q...) = %v", name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("ParseKey(%.40q) = %+v, %v, want an error with %q", name, k, err, why)
		}
	}
}

func TestKeyCheck(t *testing.T) {
	for _, tt := range []struct {
		key  Key
		want string // "" is fine
	}{
		{Key{Service: "web"}, ""},
		{Key{Service: "all"}, ""},
		{Key{Service: "web", Port: 80}, ""},
		{Key{Service: "web", Host: "10.0.0.1", Port: 80}, ""},
		{Key{Service: "web", Host: "::1", Port: 80}, ""},
		{Key{Service: "web", Host: "localhost", Port: 80}, ""},
		{Key{}, "empty service name"},
		{Key{Service: ".."}, `".." is no service name`},
		{Key{Service: "a/b"}, `"a/b" is no service name`},
		{Key{Service: "a:b"}, `"a:b" is no service name`},
		{Key{Service: strings.Repeat("a", 201)}, "service name of 201 bytes is longer than 200"},
		{Key{Service: strings.Repeat("a", 198), Port: 80}, "longer than 200 bytes"},
		{Key{Service: "web", Host: "10.0.0.1"}, `host "10.0.0.1" without a port`},
		{Key{Service: "web", Host: "db", Port: 80}, `"db" is no IP address`},
		{Key{Service: "web", Host: "fe80::1%eth0", Port: 80}, "is no IP address"},
		{Key{Service: "web", Host: "../x", Port: 80}, "is no IP address"},
		{Key{Service: "all", Port: 80}, "all covers every service"},
		{Key{Service: "all", Host: "x", Port: 80}, `"x" is no IP address`},
	} {
		err := tt.key.Check()
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%+v: %v", tt.key, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%+v: %v, want %q", tt.key, err, tt.want)
		}
	}
	if err := (Key{Service: "all", Port: 80}).Check(); !errors.Is(err, ErrAllInstance) {
		t.Errorf("all:80: %v, want ErrAllInstance", err)
	}
}

// TestCovers checks Covers and CoveringKeys against each other: which overrides decide about which target.
func TestCovers(t *testing.T) {
	key := func(name string) Key {
		k, err := ParseKey(name)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	all := []string{
		"all", "all:80", "web", "web:80", "web:81", "web:127.0.0.1:80", "web:10.0.0.5:80", "web:10.0.0.5:81", "web:db:80",
		"web:2001:db8::1:80", "api", "api:80",
	}
	for _, tc := range []struct {
		target string
		local  bool
		want   []string // the widest first
	}{
		{"all", false, []string{"all"}},
		{"all:80", false, []string{"all", "all:80"}},
		{"web", false, []string{"all", "web"}},
		{"web:80", false, []string{"all", "web", "web:80"}},
		{"web:80", true, []string{"all", "web", "web:80"}},
		{"web:127.0.0.1:80", true, []string{"all", "web", "web:80", "web:127.0.0.1:80"}},
		{"web:10.0.0.5:80", true, []string{"all", "web", "web:80", "web:10.0.0.5:80"}},
		{"web:10.0.0.5:80", false, []string{"all", "web", "web:10.0.0.5:80"}},
		{"web:2001:db8::1:80", false, []string{"all", "web", "web:2001:db8::1:80"}},
		{"web:db:80", false, []string{"all", "web", "web:db:80"}},
		{"other", false, []string{"all", "other"}},
	} {
		var got []string
		for _, k := range key(tc.target).CoveringKeys(tc.local) {
			got = append(got, k.Name())
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("CoveringKeys of %s (local %v) are %q, want %q", tc.target, tc.local, got, tc.want)
		}
		for _, name := range all {
			if covers := key(name).Covers(key(tc.target), tc.local); covers != slices.Contains(tc.want, name) {
				t.Errorf("Covers: %s covers %s (local %v) is %v", name, tc.target, tc.local, covers)
			}
		}
	}
	mapped := Key{Service: "web", Host: "::ffff:10.0.0.5", Port: 80}
	if !mapped.Covers(key("web:10.0.0.5:80"), false) || mapped.Covers(key("web:10.0.0.6:80"), false) {
		t.Error("Covers does not compare the canonical text of hosts")
	}
}

func TestAbove(t *testing.T) {
	for _, tc := range []struct {
		k    Key
		want []Key
	}{
		{Key{Service: All}, nil},
		{Key{Service: "web"}, []Key{{Service: All}}},
		{Key{Service: "web", Port: 80}, []Key{{Service: "web"}, {Service: All}}},
		{Key{Service: "web", Host: "10.0.0.5", Port: 80}, []Key{{Service: "web"}, {Service: All}}},
		{Key{Service: All, Port: 80}, []Key{{Service: All}}},
	} {
		if got := tc.k.Above(); !slices.Equal(got, tc.want) {
			t.Errorf("above %s are %v, want %v", tc.k.Name(), got, tc.want)
		}
	}
}

func TestParkedName(t *testing.T) {
	for _, name := range []string{"web", "web:80", "web:::1:80", strings.Repeat("a", MaxName)} {
		aside := parkName(name)
		if got, ok := parkedName(aside); !ok || got != name || len(aside) > 255 {
			t.Errorf("parkedName(%q) = %q, %v, %d bytes", aside, got, ok, len(aside))
		}
		if _, err := ParseKey(aside); err == nil {
			t.Errorf("%q is a key", aside)
		}
	}
	for _, name := range []string{"web", "#web", parkPrefix, parkPrefix + "0123456789abcdef", parkPrefix + "0123456789abcdef#", newPrefix + "0123456789abcdef"} {
		if got, ok := parkedName(name); ok {
			t.Errorf("parkedName(%q) = %q", name, got)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"web", "web:80", "web:::1:80", "web:[::1]:080", "a:localhost:1", "a:b:c", "..:5", ":", "a:1::3:4:5:6:7:8:9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		k, err := ParseKey(name)
		if err != nil {
			return
		}
		if strings.ContainsAny(name, "/\x00\n#") || name == "." || name == ".." {
			t.Fatalf("%q is a key", name)
		}
		if k != k.canonical() {
			t.Fatalf("%q: %+v is not canonical", name, k)
		}
		back := k.Name()
		if len(back) > MaxName {
			t.Fatalf("%q: Name is %d bytes", name, len(back))
		}
		again, err := ParseKey(back)
		if err != nil || again != k {
			t.Fatalf("%q: %+v, then %q: %+v, %v", name, k, back, again, err)
		}
	})
}
