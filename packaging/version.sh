#!/bin/sh
# Prints the version of the sources, for `make`: the last tag as git describe writes it (v1.2.3, v1.2.3-5-gabc). Without a
# tag it is the time and the commit, as Go writes it (v0.0.0-20260131120000-abcdef123456). Changed files add "-dirty".
# Without git it is "dev".
cd "$(dirname "$0")/.." || exit

# git refuses a checkout of another user otherwise, as on many build machines.
git() { command git -c safe.directory='*' "$@"; }

if git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null; then
	exit 0
elif commit=$(TZ=UTC git log -1 --date=format-local:%Y%m%d%H%M%S --abbrev=12 --format=%cd-%h 2>/dev/null); then
	case $(git describe --always --dirty) in
	*-dirty) commit=$commit-dirty ;;
	esac
	echo "v0.0.0-$commit"
else
	echo dev
fi
