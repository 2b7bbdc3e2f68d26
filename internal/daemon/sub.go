package daemon

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"hacheck/internal/cmdline"
)

// parseSub reads the command line of a subcommand. done means that nothing is left to do: it was wrong, or
// asked for help or the version.
func parseSub(f *pflag.FlagSet, about string, args []string, env Env) (done bool, code int) {
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	tell := f.Bool("version", false, "print the version")
	switch err := cmdline.Parse(f, args); {
	case errors.Is(err, pflag.ErrHelp):
		_, _ = fmt.Fprint(env.Stdout, about+"Options:\n"+f.FlagUsages())
		return true, 0
	case err != nil:
		return true, usage(f, env.Stderr, err)
	case *tell:
		_, _ = fmt.Fprintf(env.Stdout, "%s %s\n", f.Name(), env.Version)
		return true, 0
	}
	return false, 0
}

func usage(f *pflag.FlagSet, stderr io.Writer, err error) int {
	complain(stderr, "%s: %v\nTry \"%s --help\".", f.Name(), err, f.Name())
	return 2
}
