package check

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// optionReader reads the options of one Spec for a Type's build. Each method returns the option's value, or the default if
// the option is not given. A wrong value is added to errs and the default is returned. buildType returns all errors,
// so build need not look at them.
type optionReader struct {
	spec Spec
	typ  *Type
	errs []error

	roots *x509.CertPool // those of ca_file, nil until tls has read them
}

// checkNames adds an error for each required option that is missing and for each option that the type does not have.
func (o *optionReader) checkNames() {
	known := []string{"tags", "timeout"}
	for _, opt := range o.typ.Options {
		if !slices.Contains(known, opt.Name) {
			known = append(known, opt.Name)
		}
		if opt.Required && !o.isSet(opt.Name) {
			o.addError(opt.Name, "is required: "+opt.Want)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.spec.Options)) {
		if name != "type" && !slices.Contains(known, name) {
			o.addError(name, fmt.Sprintf("no such option of %s; it has %s", o.typ.Name, strings.Join(known, ", ")))
		}
	}
}

// option returns the description of an option. It panics if the type does not have it.
func (o *optionReader) option(name string) Option {
	opt, ok := o.typ.option(name)
	if !ok && name == "timeout" {
		return Option{Name: name, Want: "a number of seconds above 0 and up to 3600"}
	}
	if !ok {
		panic("check: type " + o.typ.Name + " has no option " + name)
	}
	return opt
}

func (o *optionReader) isSet(name string) bool { return o.spec.Options[name] != nil }

func (o *optionReader) addError(name, what string) {
	o.errs = append(o.errs, &OptionError{name, errors.New(what)})
}

// addValueError adds the error for a value v that the option does not take. It does not show the value of a secret.
func (o *optionReader) addValueError(name string, v any) {
	opt := o.option(name)
	got := fmt.Sprintf("%v", v)
	switch v := v.(type) {
	case string:
		got = fmt.Sprintf("%q", cutTo(v, 60))
	case []any:
		got = "a list"
	case map[string]any:
		got = "a mapping"
	}
	if opt.Secret {
		got = "something else (not shown)"
	}
	o.addError(name, "expected "+opt.Want+", got "+got)
}

func cutTo(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}

// valueOf returns the option's value if it is of type T.
func valueOf[T any](o *optionReader, name string, def T) T {
	switch v := o.spec.Options[name].(type) {
	case nil:
		return def
	case T:
		return v
	default:
		o.addValueError(name, v)
		return def
	}
}

// text returns a string. It also takes numbers, because "password: 1234" is one in YAML.
func (o *optionReader) text(name, def string) string {
	switch v := o.spec.Options[name].(type) {
	case int, float64:
		return fmt.Sprint(v)
	}
	return valueOf(o, name, def)
}

// secret returns a text that cannot print itself.
func (o *optionReader) secret(name string) Secret { return Secret(o.text(name, "")) }

// host returns an address without brackets, or a name; "" when none is given.
func (o *optionReader) host(name string) string {
	s := o.text(name, "")
	if _, err := netip.ParseAddr(s); err == nil || s == "" {
		return s
	}
	if len(s) > 253 || strings.ContainsAny(s, " /:@?#[]%\\\x00\r\n\t") {
		o.addValueError(name, s)
	}
	return s
}

// port returns a port from 1 to 65535; 0 only if def is 0 and none is given.
func (o *optionReader) port(name string, def uint16) uint16 {
	return uint16(o.integer(name, int(def), 1, math.MaxUint16))
}

// integer returns a whole number from least to most.
func (o *optionReader) integer(name string, def, least, most int) int {
	v := o.spec.Options[name]
	if v == nil {
		return def
	}
	n, ok := wholeNumber(v)
	if !ok || n < least || n > most {
		o.addValueError(name, v)
		return def
	}
	return n
}

// wholeNumber returns a whole number, also one in quotes: conn-check takes those, and files that programs write have
// them. It returns false for anything else.
func wholeNumber(v any) (int, bool) {
	switch v := v.(type) {
	case int:
		return v, true
	case string:
		v = strings.TrimSpace(v) // a template leaves the end of a line
		n, err := strconv.Atoi(v)
		return n, err == nil && v[0] != '+'
	}
	return 0, false
}

// ports returns a list of ports from 1 to 65535, nil when there is none.
func (o *optionReader) ports(name string) (ports []uint16) {
	for _, v := range o.list(name) {
		n, ok := wholeNumber(v)
		if !ok || n < 1 || n > math.MaxUint16 {
			o.addValueError(name, o.spec.Options[name])
			return nil
		}
		ports = append(ports, uint16(n))
	}
	return ports
}

// boolean returns a boolean, also one in quotes, which files that programs write have. "false" in quotes is false. (To
// conn-check all texts but the empty one are true.)
func (o *optionReader) boolean(name string, def bool) bool {
	v := o.spec.Options[name]
	if v == nil {
		return def
	}
	b, ok := truth(v)
	if !ok {
		o.addValueError(name, v)
		return def
	}
	return b
}

// truth returns a boolean, or one of YAML 1.1 in quotes. It returns false, false for anything else.
func truth(v any) (value, ok bool) {
	switch v := v.(type) {
	case bool:
		return v, true
	case string:
		switch strings.ToLower(strings.TrimSpace(v)) {
		case "true", "yes", "on":
			return true, true
		case "false", "no", "off":
			return false, true
		}
	}
	return false, false
}

// seconds returns a duration above 0 and up to an hour.
func (o *optionReader) seconds(name string, def time.Duration) time.Duration {
	var f float64
	switch v := o.spec.Options[name].(type) {
	case int:
		f = float64(v)
	case float64:
		f = v
	case string: // a number in quotes, see wholeNumber
		var err error
		if f, err = strconv.ParseFloat(strings.TrimSpace(v), 64); err != nil {
			o.addValueError(name, v)
			return def
		}
	default:
		valueOf(o, name, f) // an error if it is given
		return def
	}
	if math.IsNaN(f) || f <= 0 || f > maxTimeout.Seconds() {
		o.addValueError(name, f)
		return def
	}
	return time.Duration(f * float64(time.Second))
}

// list returns the elements of a list, nil when there is none.
func (o *optionReader) list(name string) []any { return valueOf[[]any](o, name, nil) }

// mapping returns a mapping, nil when there is none.
func (o *optionReader) mapping(name string) map[string]any {
	return valueOf[map[string]any](o, name, nil)
}

// pair returns a user name and a password, nil if there is none.
func (o *optionReader) pair(name string) *credentials {
	var two [2]string
	list := o.list(name)
	switch {
	case list == nil:
		return nil
	case len(list) != len(two):
		o.addValueError(name, list)
		return nil
	}
	for i, v := range list {
		text, ok := scalar(v)
		if !ok || i == 0 && (text == "" || !validValue(text)) {
			o.addValueError(name, list)
			return nil
		}
		two[i] = text
	}
	return &credentials{two[0], Secret(two[1])}
}

// scalar returns a text, or a number or boolean as it is written, and false for anything else.
func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case int, float64, bool:
		return fmt.Sprint(v), true
	}
	return "", false
}

// written returns an option as it is written: a text, a number or a boolean. It returns false if there is none.
func (o *optionReader) written(name string) (text string, ok bool) {
	if !o.isSet(name) {
		return "", false
	}
	if text, ok = scalar(o.spec.Options[name]); !ok {
		o.addValueError(name, o.spec.Options[name])
	}
	return text, ok
}

// address returns a mail address, "" if there is none. It is sent unchanged, so it must not contain characters that end
// the SMTP command. SMTPUTF8 is not supported.
func (o *optionReader) address(name string) string {
	s := o.text(name, "")
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '<' || c == '>' || len(s) > 254 {
			o.addValueError(name, s)
			break
		}
	}
	return s
}

// command returns the words of a command, which is given as a list or as one text.
func (o *optionReader) command(name string) []string {
	v := o.spec.Options[name]
	if text, ok := v.(string); ok {
		words, err := SplitCommand(text)
		if err != nil {
			o.addError(name, "expected "+o.option(name).Want+", got "+err.Error())
		}
		return words
	}
	list := o.list(name)
	if list == nil {
		return nil
	}
	var argv []string
	for _, word := range list {
		switch word := word.(type) {
		case string:
			argv = append(argv, word)
		case int, float64:
			argv = append(argv, fmt.Sprint(word))
		default:
			o.addError(name, "expected a list of words, got one with something else in it")
			return nil
		}
	}
	if len(argv) == 0 || argv[0] == "" || strings.Contains(strings.Join(argv, ""), "\x00") {
		o.addError(name, "expected "+o.option(name).Want+", got a list without a first word or with a NUL character")
		return nil
	}
	return argv
}

// hasOption reports whether the type has an option of that name.
func (o *optionReader) hasOption(name string) bool {
	_, ok := o.typ.option(name)
	return ok
}

// plainText returns an option without control characters, which end a field or a line in most protocols. It returns
// def if the type has no such option.
func (o *optionReader) plainText(name, def string) string {
	if !o.hasOption(name) {
		return def
	}
	s := o.text(name, def)
	if strings.ContainsFunc(s, unicode.IsControl) {
		o.addValueError(name, s)
	}
	return s
}

// password returns the option password. It rejects a NUL byte, which ends a password in most protocols.
func (o *optionReader) password() Secret {
	if !o.hasOption("password") {
		return ""
	}
	s := o.secret("password")
	if strings.ContainsRune(string(s), 0) {
		o.addValueError("password", string(s))
	}
	return s
}
