#!/bin/bash
# Builds the packages, for `make package`. Environment variables:
#   VERSION, SOURCE_DATE_EPOCH  the same values give the same packages, byte for byte
#   DIST                        the output directory
#   ARCHES, FORMATS             what to build; formats are deb, rpm, and root (the file system of a container)
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH CGO_ENABLED=0

work=$DIST/work
rm -rf "$work"
mkdir -p "$work"

# The package version sorts like the output of git describe: v1.2.3-rc1 before v1.2.3 before v1.2.3-5-gabc. It contains no
# "-", which separates the release of a package. Without a tag it is older than any version.
case $VERSION in
v[0-9]* | [0-9]*) version=$(sed -E 's/^v//; s/-([0-9]+)-g([0-9a-f]+)/+\1.g\2/; s/-dirty$/+dirty/; s/-/~/g' <<<"$VERSION") ;;
*) version=0~$(tr -c 'a-zA-Z0-9.\n' . <<<"$VERSION") ;;
esac

# build OS ARCH DIR
build() {
	GOOS=$1 GOARCH=$2 go build -tags grpcnotrace -trimpath -ldflags "-s -w -X main.version=$VERSION" -o "$3/" \
		./cmd/hacheck ./cmd/haup ./cmd/hadown ./cmd/hastatus
	ln -sf hastatus "$3/halist"
	ln -sf hastatus "$3/hashowdowned"
}
for arch in $ARCHES; do
	mkdir -p "$work/$arch/usr/bin"
	build linux "$arch" "$work/$arch/usr/bin"
done

# packaging/generate makes the man pages and completions from the commands, so they must run on this machine.
host=$work/$(go env GOHOSTARCH)/usr/bin
if [ "$(go env GOHOSTOS)" != linux ] || [ ! -d "$host" ]; then
	host=$work/host
	mkdir -p "$host"
	build "$(go env GOHOSTOS)" "$(go env GOHOSTARCH)" "$host"
fi
go run ./packaging/generate -bin "$host" -out "$work/text" -version "$VERSION" -date "$(date -u -d "@$SOURCE_DATE_EPOCH" +%F)"

for arch in $ARCHES; do
	root=$work/$arch
	mkdir -p "$root/usr/share" "$root/etc"
	cp -r "$work/text/man" "$root/usr/share/man"
	gzip -9n "$root"/usr/share/man/*/*
	cp -r "$work/text/completions" "$root/completions"
	cp "$work/text/hacheck.yaml" "$root/etc/"
	gzip -9nc CHANGELOG.md >"$root/changelog.gz"
	gzip -9n >"$root/changelog.Debian.gz" <<-END
		hacheck ($version-1) stable; urgency=medium

		  * Version $VERSION; see changelog.gz.

		 -- the hacheck authors <hacheck@localhost>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
	END
	# nfpm copies the modification time of each file.
	find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	for format in $FORMATS; do
		if [[ $format == root ]]; then continue; fi # built below, without nfpm
		ARCH=$arch PACKAGE_VERSION=$version ROOT=$root \
			go tool -modfile=tools/go.mod nfpm package -f packaging/nfpm.yaml -p "$format" -t "$DIST/" >/dev/null
	done

	# Builds the file system of a container, see packaging/Containerfile.
	if [[ $FORMATS != *root* ]]; then continue; fi
	image=$work/image-$arch
	mkdir -p "$image/etc" "$image/usr/bin" "$image/var/spool/hacheck"
	cp -P "$root"/usr/bin/* "$image/usr/bin/"
	cp "$root/etc/hacheck.yaml" "$image/etc/"
	echo 'hacheck:x:65532:65532:hacheck:/var/spool/hacheck:/sbin/nologin' >"$image/etc/passwd"
	tar=$DIST/hacheck-root-$arch.tar
	# Everything belongs to root, except the spool directory.
	tar -C "$image" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=ustar \
		--exclude=./var/spool/hacheck -cf "$tar" ./etc ./usr ./var
	tar -C "$image" --mtime="@$SOURCE_DATE_EPOCH" --owner=65532 --group=65532 --numeric-owner --format=ustar \
		--mode=0750 -rf "$tar" ./var/spool/hacheck
	gzip -nf "$tar"
done
rm -rf "$work"
ls "$DIST"
