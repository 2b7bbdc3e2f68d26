#!/bin/bash
# Runs every fuzz test of the module for the given time, one after the other. A crasher's input is
# left in the package's testdata/fuzz, where `go test` finds it from then on: commit it with the fix.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-20s}

# `go test -list` prints the names of a package's tests and then "ok <package> <seconds>".
list=$(go test -list '^Fuzz' ./... |
	awk '/^Fuzz/ { names[n++] = $1 } /^ok/ { for (i = 0; i < n; i++) print $2, names[i]; n = 0 }')
if [ -z "$list" ]; then
	echo "found no fuzz test: the listing must have gone wrong" >&2
	exit 1
fi

while read -r package name; do
	echo "== $package $name"
	go test "$package" -run '^$' -fuzz "^$name\$" -fuzztime "$time"
done <<<"$list"
