package cmdline

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func TestParse(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"a -n3 b --long=x", ""},
		{"--long x -- -long --nope", ""},
		{"-v -n 3", ""},
		{"--lon x", "option --lon is abbreviated, write the full name: --long"},
		{"--l x", "option --l is abbreviated, write the full name: --long or --loud"},
		{"-long x", "option -long: a long option has two dashes, write --long"},
		{"-long=x", "option -long: a long option has two dashes, write --long"},
		{"--nope", "no such option: --nope"},
		{"--olng x", "no such option: --olng, did you mean --long?"},
		{"-x", "no such option: -x"},
		{"-\u2013loud", "no such option: -\u2013loud"},
		{"-v\u2013loud", "no such option: -\u2013loud"},
		{"--long", "option --long needs a value"},
		{"a -n", "option -n, --number needs a value"},
		{"-n x", `option -n, --number: invalid value "x": want a number`},
		{"--loud=x", `option --loud: invalid value "x": want true or false, or no value at all`},
		{"--odd x", `option --odd: invalid value "x": want something even`},
	} {
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.String("long", "", "")
		f.Bool("loud", false, "")
		f.BoolP("verbose", "v", false, "")
		f.IntP("number", "n", 0, "")
		f.Func("odd", "", func(string) error { return errors.New("want something even") })
		got := ""
		if err := Parse(f, strings.Fields(test.args)); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("Parse(%q): %q, want %q", test.args, got, test.want)
		}
	}
}

func TestPositionals(t *testing.T) {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	n := f.IntP("number", "n", 0, "")
	if err := Parse(f, []string{"a", "-n3", "b", "--", "-c"}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a", "b", "-c"}, f.Args()); d != "" || *n != 3 {
		t.Errorf("number %d, positionals (-want +got):\n%s", *n, d)
	}
}
