package spool

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"hacheck/internal/textfmt"
)

var web = Key{Service: "web"}

func at(f float64) time.Time {
	sec := math.Floor(f)
	return time.Unix(int64(sec), int64(math.Round((f-sec)*1e9)))
}

func TestParseEntry(t *testing.T) {
	huge := strings.Repeat("x", 70<<10)
	for _, tt := range []struct {
		content string
		want    Entry
	}{
		// What the original tools and ours write.
		{`{"reason": "some reason", "expiration": null, "creation": 1795215735.7852721}`, Entry{State: Down, Reason: "some reason", Created: at(1795215735.7852721)}},
		{`{"reason": "r", "expiration": 4000000000.0, "creation": 1500000000.5}`, Entry{State: Down, Reason: "r", Created: at(1500000000.5), Expires: at(4e9)}},
		{`{"reason": "r", "expiration": 4000000000, "creation": 1}`, Entry{State: Down, Reason: "r", Created: at(1), Expires: at(4e9)}},
		{`{"reason": "", "expiration": null, "creation": null, "state": "drain"}`, Entry{State: Drain}},
		{`{"state": "maint"}`, Entry{State: Maint}},
		{`{"state": "up"}`, Entry{State: ForceUp}},
		{`{"state": "up", "expiration": null}`, Entry{State: ForceUp}},
		{`{"state": "up", "expiration": Infinity}`, Entry{State: ForceUp}},
		{`{"state": "up", "expiration": 4e9}`, Entry{State: ForceUp, Expires: at(4e9)}},
		{`{"state": "down"}`, Entry{State: Down}},
		{" \n{\"reason\": \"r\"}\n", Entry{State: Down, Reason: "r"}},
		{`{"reason": "\u00e9\ud83d\ude00\n"}`, Entry{State: Down, Reason: "é😀\n"}},
		// What Python writes for odd times.
		{`{"reason": "r", "expiration": NaN, "creation": NaN}`, Entry{State: Down, Reason: "r"}},
		{`{"reason": "r", "expiration": Infinity, "creation": -Infinity}`, Entry{State: Down, Reason: "r"}},
		{`{"reason": "r", "expiration": -Infinity}`, Entry{State: Down, Reason: "r"}},
		{`{"reason": "NaN \"Infinity\\", "expiration": Infinity}`, Entry{State: Down, Reason: `NaN "Infinity\`}},
		{`{"reason": "\udcff"}`, Entry{State: Down, Reason: "\ufffd"}},
		{`{"expiration": 1e400}`, Entry{State: Down}},
		{`{"expiration": 1e300, "creation": 1e300}`, Entry{State: Down}},
		{`{"expiration": 9223372036854775807}`, Entry{State: Down}},
		{`{"expiration": 99999999999999}`, Entry{State: Down, Expires: at(99999999999999)}},
		{`{"expiration": 5.0}`, Entry{State: Down, Expires: at(5)}},
		{`{"expiration": 0}`, Entry{State: Down, Expires: at(0)}},
		{`{"expiration": -1e300}`, Entry{State: Down, Expires: at(earliest)}},
		// Who has set it. Anything odd counts as not known.
		{`{"reason": "r", "expiration": null, "creation": 1.5, "by": "alice"}`, Entry{State: Down, Reason: "r", Created: at(1.5), By: "alice"}},
		{`{"by": "remote 10.0.0.1", "state": "up"}`, Entry{State: ForceUp, By: "remote 10.0.0.1"}},
		{`{"by": "Zo\u00eb"}`, Entry{State: Down, By: "Zoë"}},
		{`{"by": ["alice"], "state": "drain"}`, Entry{State: Drain}},
		{`{"by": 17}`, Entry{State: Down}},
		{`{"by": null}`, Entry{State: Down}},
		{`{"by": "a\nb"}`, Entry{State: Down}},
		{`{"by": "a\u202eb"}`, Entry{State: Down}},
		{`{"by": "` + strings.Repeat("a", MaxBy) + `"}`, Entry{State: Down, By: strings.Repeat("a", MaxBy)}},
		{`{"by": "` + strings.Repeat("a", MaxBy+1) + `"}`, Entry{State: Down}},
		// Wrong types count as not given.
		{`{"reason": null, "expiration": "soon", "creation": [1], "state": 7}`, Entry{State: Down}},
		{`{"reason": "r", "expiration": "4000000000", "state": "up"}`, Entry{State: Down, Reason: "r"}},
		{`{"expiration": [4000000000], "state": "up"}`, Entry{State: Down}},
		{`{"reason": 17, "state": "sideways"}`, Entry{State: Down, Reason: "17"}},
		{`{"reason": {"a": [1]}, "state": null, "expiration": true}`, Entry{State: Down, Reason: `{"a": [1]}`}},
		{`{"Reason": "no", "STATE": "up"}`, Entry{State: Down}},
		{`{"reason": "a", "reason": "b"}`, Entry{State: Down, Reason: "b"}},
		{`{}`, Entry{State: Down}},
		// No object: a reason as it stands.
		{"", Entry{State: Down}},
		{" \n", Entry{State: Down}},
		{"legacy reason\n", Entry{State: Down, Reason: "legacy reason"}},
		{"two\nlines", Entry{State: Down, Reason: "two\nlines"}},
		{`"quoted"`, Entry{State: Down, Reason: "quoted"}},
		{`"half`, Entry{State: Down, Reason: `"half`}},
		{"17", Entry{State: Down, Reason: "17"}},
		{"null", Entry{State: Down, Reason: "null"}},
		{"true", Entry{State: Down, Reason: "true"}},
		{"NaN", Entry{State: Down, Reason: "NaN"}},
		{`["a"]`, Entry{State: Down, Reason: `["a"]`}},
		{`{"reason": "ha`, Entry{State: Down, Reason: `{"reason": "ha`}},
		{`{"reason": "r", "state": "up"} x`, Entry{State: Down, Reason: `{"reason": "r", "state": "up"} x`}},
		{`{"state": "up", NaN`, Entry{State: Down, Reason: `{"state": "up", NaN`}},
		{"\xff\xfe\x00", Entry{State: Down, Reason: "\xff\xfe\x00"}},
		// Large.
		{strings.Repeat("a", MaxReason), Entry{State: Down, Reason: strings.Repeat("a", MaxReason)}},
		{strings.Repeat("a", MaxReason+1), Entry{State: Down, Reason: strings.Repeat("a", MaxReason-3) + "…"}},
		{strings.Repeat("é", MaxReason), Entry{State: Down, Reason: strings.Repeat("é", (MaxReason-3)/2) + "…"}},
		{huge, Entry{State: Down, Reason: huge[:MaxReason-3] + "…"}},
		{`{"state": "up", "reason": "` + huge + `"}`, Entry{State: Down, Reason: `{"state": "up", "reason": "` + huge[:MaxReason-3-len(`{"state": "up", "reason": "`)] + "…"}},
		{strings.Repeat("[", maxContent), Entry{State: Down, Reason: strings.Repeat("[", MaxReason-3) + "…"}},
	} {
		tt.want.Key = web
		got := ParseEntry(web, []byte(tt.content))
		if got != tt.want {
			t.Errorf("ParseEntry(%.80q)\n got %.300v\nwant %.300v", tt.content, got, tt.want)
		}
	}
}

func TestExpired(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, tt := range []struct {
		content string
		want    bool
	}{
		{`{}`, false},
		{`{"expiration": 1800000001}`, false},
		{`{"expiration": 1800000000}`, true},
		{`{"expiration": 1799999999.5}`, true},
		{`{"expiration": 0}`, true},
		{`{"expiration": -1}`, true},
		{`{"expiration": -1e300}`, true},
		{`{"expiration": NaN}`, false},
		{`{"expiration": Infinity}`, false},
		{`{"expiration": 1e17}`, false},
		{`{"expiration": 9.2e18}`, false},
		{`{"expiration": 9.3e18}`, false},
		{`{"expiration": 1e400}`, false},
		{`{"expiration": "5"}`, false},
	} {
		if got := ParseEntry(web, []byte(tt.content)).Expired(now); got != tt.want {
			t.Errorf("%s: expired is %v", tt.content, got)
		}
	}
}

func TestMarshal(t *testing.T) {
	for _, tt := range []struct {
		entry Entry
		want  string
	}{
		{Entry{State: Down, Reason: "some reason", Created: at(1795215735.7852721)}, `{"reason": "some reason", "expiration": null, "creation": 1795215735.7852721}`},
		{Entry{State: Down, Reason: "r", Created: at(1500000000), Expires: at(4e9)}, `{"reason": "r", "expiration": 4000000000.0, "creation": 1500000000.0}`},
		{Entry{State: Drain}, `{"reason": "", "expiration": null, "creation": null, "state": "drain"}`},
		{Entry{State: Maint}, `{"reason": "", "expiration": null, "creation": null, "state": "maint"}`},
		{Entry{State: ForceUp}, `{"reason": "", "expiration": null, "creation": null, "state": "up"}`},
		{Entry{State: Down, Reason: "a\"\\/\n\r\t\b\f\x01\x7fé😀\xff<&>\u2028"}, `{"reason": "a\"\\/\n\r\t\b\f\u0001\u007f\u00e9\ud83d\ude00\ufffd<&>\u2028", "expiration": null, "creation": null}`},
		{Entry{State: Down, Expires: at(1e17)}, `{"reason": "", "expiration": 1e+17, "creation": null}`},
		{Entry{State: Down, By: "Zoë"}, `{"reason": "", "expiration": null, "creation": null, "by": "Zo\u00eb"}`},
		{Entry{State: Drain, By: "alice", Scope: "all", Lost: true}, `{"reason": "", "expiration": null, "creation": null, "state": "drain", "by": "alice"}`},
		{Entry{State: Down, By: strings.Repeat("a", MaxBy+1)}, `{"reason": "", "expiration": null, "creation": null}`},
		{Entry{State: Down, By: "a\nb"}, `{"reason": "", "expiration": null, "creation": null}`},
	} {
		if got := string(tt.entry.Marshal()); got != tt.want {
			t.Errorf("Marshal\n got %s\nwant %s", got, tt.want)
		}
	}
}

// TestPythonAgrees has Python's json, which the original tools use, read what we write and write what we read.
func TestPythonAgrees(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatalf("the original tools are Python, and this test needs python3: %v", err)
	}
	for _, e := range []Entry{
		{Key: web, State: Down, Reason: "plain", Created: at(1795215735.7852721)},
		{Key: web, State: Down, Reason: "a\"\\/\n\r\t\b\f\x01\x7fé😀<&>\u2028", Created: at(1500000000), Expires: at(4e9)},
		{Key: web, State: Maint, Reason: "r", Created: at(0.25), Expires: at(1e17)},
		{Key: web, State: ForceUp, By: "uid 1000"},
	} {
		written := e.Marshal()
		cmd := exec.Command(python, "-c", "import json, sys; sys.stdout.write(json.dumps(json.loads(sys.stdin.read())))")
		cmd.Stdin = bytes.NewReader(written)
		echoed, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", written, err)
		}
		if !bytes.Equal(echoed, written) {
			t.Errorf("Python would write\n%s\nnot\n%s", echoed, written)
		}
		if got := ParseEntry(web, echoed); got != e {
			t.Errorf("ParseEntry(%s) = %+v, want %+v", echoed, got, e)
		}
	}
}

// paasta is the expression of PaaSTA for the line; Python's re.match and Go agree on everything in it.
var paasta = regexp.MustCompile(`^Service (?P<service>.+) in (?P<state>.+) state(?: since (?P<since>[0-9.]+))?(?: until (?P<until>[0-9.]+))?(?:: (?P<reason>.*))?$`)

func TestLine(t *testing.T) {
	for _, tt := range []struct {
		entry Entry
		want  string
	}{
		{Entry{Key: web, State: Down}, "Service web in down state"},
		{Entry{Key: web, State: Down, Reason: "r1", Created: at(1500000000.5)}, "Service web in down state since 1500000000.500000: r1"},
		{Entry{Key: web, State: Down, Created: at(1500000000), Expires: at(4e9)}, "Service web in down state since 1500000000.000000 until 4000000000.000000"},
		{Entry{Key: web, State: Drain, Expires: at(4e9), Reason: "x"}, "Service web in drain state until 4000000000.000000: x"},
		{Entry{Key: web, State: Maint, Reason: "x"}, "Service web in down state: x"},
		{Entry{Key: Key{Service: "all"}, State: Down, Reason: "x"}, "Service all in down state: x"},
		{Entry{Key: Key{Service: "web", Host: "::1", Port: 80}, State: Down, Reason: "x"}, "Service web in down state: x"},
		{Entry{Key: web, State: Down, Reason: "a\r\nb\tc\x00d\x7fe\u0085f\u2028g\xffh"}, "Service web in down state: a  b c d e f g\ufffdh"},
		{Entry{Key: web, State: Down, Created: at(-5), Expires: at(-1)}, "Service web in down state"},
		{Entry{Key: web, State: Down, Created: at(1e17), Reason: "x"}, "Service web in down state since 100000000000000000.000000: x"},
		// Of the fleet.
		{Entry{Key: web, State: Down, Created: at(1), Scope: "group:rack7", Reason: "new kernel", By: "alice"}, "Service web in down state since 1.000000: [group rack7] new kernel"},
		{Entry{Key: web, State: Drain, Expires: at(4e9), Scope: "all"}, "Service web in drain state until 4000000000.000000: [fleet]"},
		{Entry{Key: web, State: Down, Scope: "host:web17", Lost: true, Reason: "x"}, "Service web in down state: [host web17, lost in etcd] x"},
		{Entry{Key: web, State: Down, Created: at(1), Scope: "group:state", Reason: "bad state"}, "Service web in down state since 1.000000: [group state] bad State"},
		{Entry{Key: web, State: Down, Created: at(1), Scope: "odd state", Reason: "a"}, "Service web in down state since 1.000000: [odd state] a"},
		// A greedy expression would take these for more of the state, and lose since.
		{Entry{Key: web, State: Down, Created: at(1), Reason: "fix bad state"}, "Service web in down state since 1.000000: fix bad State"},
		{Entry{Key: web, State: Down, Created: at(1), Reason: "state: x state since 5"}, "Service web in down state since 1.000000: State: x State since 5"},
		{Entry{Key: web, State: Down, Created: at(1), Reason: "solid state disk, stateless in New York state"}, "Service web in down state since 1.000000: solid state disk, stateless in New York State"},
	} {
		if got := tt.entry.Line(); got != tt.want {
			t.Errorf("Line\n got %q\nwant %q", got, tt.want)
		}
		checkLine(t, tt.entry)
	}
}

// checkLine fails if PaaSTA would read something else from e's line than e says.
func checkLine(t *testing.T, e Entry) {
	t.Helper()
	line := e.Line()
	if i := strings.IndexFunc(line, unicode.IsControl); i >= 0 || !utf8.ValidString(line) {
		t.Fatalf("control character or invalid UTF-8 in %q", line)
	}
	m := paasta.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("PaaSTA cannot parse %q", line)
	}
	number := func(x time.Time) string {
		if x.IsZero() || x.Unix() < 0 {
			return ""
		}
		return fmt.Sprintf("%f", UnixSeconds(x))
	}
	state := e.State.String()
	if e.State == Maint {
		state = "down"
	}
	want := []string{line, e.Key.Service, state, number(e.Created), number(e.Expires)}
	for i, w := range want {
		if m[i] != w {
			t.Fatalf("PaaSTA reads %q from %q, want %q", m[1:], line, want[1:])
		}
	}
	if reason := e.ReasonText(); !strings.EqualFold(m[5], reason) {
		t.Fatalf("PaaSTA reads the reason %q from %q, want %q", m[5], line, reason)
	}
}

func FuzzParseEntry(f *testing.F) {
	for _, s := range []string{
		`{"reason": "r", "expiration": 4000000000.0, "creation": 1.5, "state": "drain"}`,
		`{"reason": "NaN", "expiration": Infinity, "creation": -Infinity}`,
		`{"reason": "x in down state since 5: y state"}`, `"x"`, "legacy\n", "", "\xff", `{"reason": "\ud800"}`, `{"expiration": -1e308}`,
		`{"creation": 9.3e18, "expiration": 1e16}`, `{"expiration": 4.611686018427388e18}`,
		`{"reason": "r", "expiration": null, "creation": 1.5, "by": "alice"}`, `{"by": "\u009b"}`, `{"by": {"by": "x"}, "state": "up"}`, `{"by": "\ud800"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		e := ParseEntry(web, content)
		if e.State == Ready || e.State > Maint {
			t.Fatalf("%q is no override", content)
		}
		if len(e.Reason) > MaxReason {
			t.Fatalf("reason of %d bytes", len(e.Reason))
		}
		if len(e.By) > MaxBy || textfmt.OneLine(e.By) != e.By {
			t.Fatalf("set by %q", e.By)
		}
		if e.Scope != "" || e.Lost {
			t.Fatalf("a file is no override of the fleet: %+v", e)
		}
		if fast, ok := parsePlainObject(content); ok {
			slow, ok := parseObject(content)
			if !ok || !maps.EqualFunc(fast, slow, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
				t.Fatalf("%q is %q, want %q, %v", content, fast, slow, ok)
			}
		}
		checkLine(t, e)
		written := e.Marshal()
		if !json.Valid(written) {
			t.Fatalf("%q is no JSON", written)
		}
		again := ParseEntry(web, written)
		if !utf8.ValidString(e.Reason) {
			again.Reason, e.Reason = "", ""
		}
		if again != e {
			t.Fatalf("%q\nis   %+v\nthen %+v\nin   %s", content, e, again, written)
		}
	})
}
