// Package cmdline reads the options of a command. It adds to pflag what a user needs to hear when they are
// wrong, and refuses what pflag would take for something else than was meant.
package cmdline

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"hacheck/internal/textfmt"
)

// Parse reads args, without the command's name, into f. Options may stand after positionals, be glued to
// their value (-P1234) or have it behind "="; abbreviated ones are refused with the full name. Its errors
// are the user's to read.
func Parse(f *pflag.FlagSet, args []string) error {
	if err := RefuseSingleDash(f, args); err != nil {
		return err
	}
	if err := f.Parse(args); err != nil {
		return Explain(f, err)
	}
	return nil
}

// RefuseSingleDash catches "-port 80": read letter by letter it would mean "-p ort". For commands that do not
// Parse by themselves, together with Explain.
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

// Explain turns what pflag says about a command line into what the user should do about it. Other errors are
// returned as they are.
func Explain(f *pflag.FlagSet, err error) error {
	var (
		unknown *pflag.NotExistError
		missing *pflag.ValueRequiredError
		invalid *pflag.InvalidValueError
	)
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		return fmt.Errorf("no such option: -%s", unknown.GetSpecifiedName())
	case errors.As(err, &unknown):
		return unknownLong(f, unknown.GetSpecifiedName())
	case errors.As(err, &missing):
		return fmt.Errorf("option %s needs a value", names(missing.GetFlag()))
	case errors.As(err, &invalid):
		return fmt.Errorf("option %s: invalid value %q: %w", names(invalid.GetFlag()), invalid.GetValue(), plain(invalid.Unwrap()))
	}
	return err
}

// plain says what is wrong with a number or a yes-or-no without naming the function that found out.
func plain(err error) error {
	var num *strconv.NumError
	if errors.As(err, &num) {
		if num.Func == "ParseBool" {
			return errors.New("want true or false, or no value at all")
		}
		return errors.New("want a number")
	}
	return err
}

func names(f *pflag.Flag) string {
	if f.Shorthand == "" {
		return "--" + f.Name
	}
	return "-" + f.Shorthand + ", --" + f.Name
}

// maxName is how many bytes of a long option are looked at: none of ours is as long.
const maxName = 50

// unknownLong refuses a long option. What an abbreviation stands for would change the day another option
// begins alike, so it is refused with the full name; anything else gets the nearest name.
func unknownLong(f *pflag.FlagSet, name string) error {
	var full []string
	nearest, distance := "", 3
	f.VisitAll(func(f *pflag.Flag) {
		if strings.HasPrefix(f.Name, name) {
			full = append(full, "--"+f.Name)
		}
		if d := textfmt.EditDistance(name[:min(len(name), maxName)], f.Name); d < distance {
			nearest, distance = f.Name, d
		}
	})
	switch {
	case len(full) > 0 && name != "":
		return fmt.Errorf("option --%s is abbreviated, write the full name: %s", name, strings.Join(full, " or "))
	case nearest != "":
		return fmt.Errorf("no such option: --%s, did you mean --%s?", name, nearest)
	}
	return fmt.Errorf("no such option: --%s", name)
}
