#!/bin/bash
# Runs every fuzz test of the module, one after the other, each for the given time (a duration for timeout(1)). The input
# of a failure stays in the package's testdata/fuzz, where `go test` finds it: commit it with the fix.
#
# An interrupt ends each test, not -fuzztime: before Go 1.27, a fuzz test at the end of its -fuzztime can fail with
# "context deadline exceeded" and no input (https://go.dev/issue/75804). Only the coordinator gets the interrupt
# (--foreground): it would report a crash if a worker ended first.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-20s}

# `go test -list` prints the names of a package's tests, then "ok <package> <seconds>".
list=$(go test -list '^Fuzz' ./... |
	awk '/^Fuzz/ { names[n++] = $1 } /^ok/ { for (i = 0; i < n; i++) print $2, names[i]; n = 0 }')
if [ -z "$list" ]; then
	echo "found no fuzz test: the listing must have gone wrong" >&2
	exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cache=$(go env GOCACHE)/fuzz

# inputs lists the failing inputs so far. If an input fails just at the end of the time, the worker writes it, but the
# coordinator exits with 0.
inputs() { ls "$1/testdata/fuzz/$2" 2>/dev/null || true; }

built=
while read -r package name; do
	if [ "$built" != "$package" ]; then
		go test -tags poison -c -fuzz . -o "$work/fuzz.test" "$package"
		dir=$(go list -f '{{.Dir}}' "$package")
		built=$package
	fi
	echo "== $package $name"
	before=$(inputs "$dir" "$name")
	(cd "$dir" && exec timeout --foreground --preserve-status --signal=INT --kill-after=60s "$time" \
		"$work/fuzz.test" -test.run '^$' -test.fuzz "^$name\$" -test.fuzzcachedir "$cache/$package")
	if [ "$(inputs "$dir" "$name")" != "$before" ]; then
		echo "FAIL $package $name: a failing input was written to $dir/testdata/fuzz/$name" >&2
		exit 1
	fi
done <<<"$list"
