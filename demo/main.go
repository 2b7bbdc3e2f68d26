// Command demo shows in a minute what hacheck does. It starts two small services, an HAProxy in front of them and a
// hacheck that HAProxy asks. It takes one service out, drains it, replaces it and brings it back, while requests go on
// and none is lost. Everything runs on free ports of 127.0.0.1, needs no root, and is removed at the end.
//
// With -fleet it shows three hosts, each with a hacheck of its own, that coordinate through an etcd.
//
//	make demo                  # on a terminal a table is drawn in place
//	make demo-fleet            # needs etcd, too; docs/demo-fleet.txt is a recording
//	make demo DEMO_PACE=0      # without pauses
//	make demo | cat            # plain lines; docs/demo.txt is a recording
//
// Exit status: 0 every step succeeded and no request was lost, 1 a step failed or a request was lost, 2 usage, 128 plus
// the signal number when interrupted.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxRunTime is how long the demo runs at most, at any pace.
const maxRunTime = 10 * time.Minute

// errUsage means that the command line is wrong. The message is already printed.
var errUsage = errors.New("usage")

func main() {
	// SIGPIPE is handled too, so that the demo cleans up when the reader of its output ends.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := context.WithTimeoutCause(context.Background(), maxRunTime, fmt.Errorf("not done after %v", maxRunTime))
	ctx, interrupt := context.WithCancelCause(ctx)
	go func() { interrupt(signalError{<-signals}) }()

	err := run(ctx)
	interrupt(nil)
	stop()
	var s signalError
	switch {
	case err == nil:
	case errors.As(err, &s):
		fmt.Fprintln(os.Stderr, "demo:", s)
		if n, ok := s.Signal.(syscall.Signal); ok {
			os.Exit(128 + int(n))
		}
		os.Exit(1)
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// signalError means that a signal has ended the demo.
type signalError struct{ os.Signal }

func (s signalError) Error() string { return s.String() + ", all is cleaned up" }

func run(ctx context.Context) (err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	bin := flags.String("bin", "bin", "`directory` of the commands")
	haproxy := flags.String("haproxy", cmp.Or(os.Getenv("HAPROXY"), "haproxy"), "HAProxy's `program`; by default $HAPROXY, or the installed haproxy")
	fleet := flags.Bool("fleet", false, "show three hosts that coordinate through etcd")
	etcd := flags.String("etcd", cmp.Or(os.Getenv("ETCD"), "etcd"), "etcd's `program` for -fleet; by default $ETCD, or the installed etcd")
	pace := flags.String("pace", os.Getenv("DEMO_PACE"), "a `factor` for the pauses in which one reads: 0 for none; by default $DEMO_PACE, or 1")
	if err := flags.Parse(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return errUsage // the flag package has printed why
	}
	factor := 1.0
	if *pace != "" {
		if factor, err = strconv.ParseFloat(*pace, 64); err != nil || !(factor >= 0 && factor <= 10) || flags.NArg() > 0 {
			fmt.Fprintf(os.Stderr, "demo: -pace and DEMO_PACE are a number from 0 to 10, not %q\n", *pace)
			return errUsage
		}
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "demo: takes no arguments, not %q\n", flags.Arg(0))
		return errUsage
	}

	balancer, err := findServer(*haproxy, "HAProxy 2.2 or later", "haproxy")
	if err != nil {
		return err
	}
	var store string
	if *fleet {
		if store, err = findServer(*etcd, "etcd 3.4 or later", "etcd-server"); err != nil {
			return err
		}
	}
	commands, err := filepath.Abs(*bin)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(commands, "hacheck")); err != nil {
		return fmt.Errorf("there is no hacheck in %s: make build", *bin)
	}
	dir, err := os.MkdirTemp("", "hacheck-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	start, show := func(c *cluster) error { return c.startPair(ctx, commands, balancer) }, (*demo).run
	if *fleet {
		start, show = func(c *cluster) error { return c.startFleet(ctx, commands, balancer, store) }, (*demo).runFleet
	}
	c, err := startCluster(ctx, dir, start)
	if err != nil {
		return exitCause(ctx, err)
	}
	defer c.stop()
	screen := newScreen(os.Stdout)
	defer screen.finish()
	return exitCause(ctx, show(newDemo(c, screen, factor), ctx))
}

// exitCause returns why the demo ends: the signal or the timeout, and not an error that follows from it.
func exitCause(ctx context.Context, err error) error {
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, syscall.EPIPE): // the write returned before the signal arrived
		return signalError{syscall.SIGPIPE}
	}
	return err
}

// findServer returns the path of a server. what describes the server for an error, debianPackage has it. Debian installs
// servers in sbin, which is not in the PATH of an unprivileged user.
func findServer(name, what, debianPackage string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed, and the demo needs %s: apt-get install %[3]s (or dnf, apk, brew install %[4]s)",
		name, what, debianPackage, strings.TrimSuffix(debianPackage, "-server"))
}
