// Package cmdline parses the options of a command. It adds helpful errors to pflag, and refuses options that pflag would
// misread.
package cmdline

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// Parse parses args, without the command's name, into f. Options may follow positional arguments. A value may follow its
// option, "=" or a short option directly (-P1234). An abbreviated option is an error that names the full one. Errors are
// messages for the user.
func Parse(f *pflag.FlagSet, args []string) error {
	if err := RefuseSingleDash(f, args); err != nil {
		return err
	}
	if err := f.Parse(args); err != nil {
		return Explain(f, err)
	}
	return nil
}

// RefuseSingleDash returns an error for a long option with one dash: pflag would read "-port 80" as "-p ort". Commands
// that do not call Parse call it together with Explain.
func RefuseSingleDash(f *pflag.FlagSet, args []string) error {
	for _, a := range args {
		if a == "--" {
			return nil
		}
		if word, one := strings.CutPrefix(a, "-"); one {
			word, _, _ = strings.Cut(word, "=")
			if len(word) > 1 && f.Lookup(word) != nil {
				return fmt.Errorf("option -%s: a long option has two dashes, write --%s", word, word)
			}
		}
	}
	return nil
}

// Explain returns an error of pflag as a message that says what to do. It returns other errors unchanged.
func Explain(f *pflag.FlagSet, err error) error {
	var (
		unknown *pflag.NotExistError
		missing *pflag.ValueRequiredError
		invalid *pflag.InvalidValueError
	)
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		name := unknown.GetSpecifiedName()
		if name > "~" { // pflag takes the first byte of a character, such as a dash of a word processor, for the name
			name = unknown.GetSpecifiedShortnames()
		}
		return fmt.Errorf("no such option: -%s", name)
	case errors.As(err, &unknown):
		return unknownLong(f, unknown.GetSpecifiedName())
	case errors.As(err, &missing):
		return fmt.Errorf("option %s needs a value", flagNames(missing.GetFlag()))
	case errors.As(err, &invalid):
		return fmt.Errorf("option %s: invalid value %q: %w", flagNames(invalid.GetFlag()), invalid.GetValue(), withoutFunc(invalid.Unwrap()))
	}
	return err
}

// withoutFunc replaces an error of package strconv, which names a Go function.
func withoutFunc(err error) error {
	var num *strconv.NumError
	if errors.As(err, &num) {
		if num.Func == "ParseBool" {
			return errors.New("want true or false, or no value at all")
		}
		return errors.New("want a number")
	}
	return err
}

func flagNames(f *pflag.Flag) string {
	if f.Shorthand == "" {
		return "--" + f.Name
	}
	return "-" + f.Shorthand + ", --" + f.Name
}

// maxName is how many bytes of an unknown option are compared. No option is as long.
const maxName = 50

// unknownLong returns the error for an unknown long option. For an abbreviation it names the full option: abbreviations
// are not accepted, because a new option with the same beginning would change their meaning. Otherwise it names the most
// similar option.
func unknownLong(f *pflag.FlagSet, name string) error {
	var full, names []string
	f.VisitAll(func(f *pflag.Flag) {
		if strings.HasPrefix(f.Name, name) {
			full = append(full, "--"+f.Name)
		}
		names = append(names, f.Name)
	})
	closest := Closest(name[:min(len(name), maxName)], names, 2)
	switch {
	case len(full) > 0 && name != "":
		return fmt.Errorf("option --%s is abbreviated, write the full name: %s", name, strings.Join(full, " or "))
	case closest != "":
		return fmt.Errorf("no such option: --%s, did you mean --%s?", name, closest)
	}
	return fmt.Errorf("no such option: --%s", name)
}
