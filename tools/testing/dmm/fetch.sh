#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Fetch and unpack Debian's source, headers and image of one kernel release
# into the cache folder; install nothing.  Prints the release on request.
#
#   fetch.sh [--release]

. "$(dirname "$0")/common.sh"

KREL=$(choose_release)
if [ "${1:-}" = --release ]; then
	echo "$KREL"
	exit
fi
release_dirs
[ ! -e "$REL/complete" ] || exit 0
need_packages xz-utils binutils
cache_lock
[ ! -e "$REL/complete" ] || exit 0

version=$(release_version "$KREL") || { apt_update && version=$(release_version "$KREL"); } ||
	die "apt does not offer source, headers and image of $KREL in one version"
base=${KREL%-amd64}
base=${base%-cloud}

# download PACKAGE: leaves the path of the .deb in $deb
# What apt leaves when it is interrupted has the name of the whole, so each try has a
# folder of its own.
download() {
	local try file new=$CACHE/dl/new sandbox=()
	file=$1_${version//:/%3a}
	[ "$(id -u)" != 0 ] || sandbox=(-o APT::Sandbox::User=root)
	for try in 1 2 3; do
		for deb in "$CACHE/dl/$file"_*.deb; do
			dpkg-deb -I "$deb" >/dev/null 2>&1 && return
		done
		[ "$try" = 1 ] || apt_update || true
		say FETCH "$1 $version"
		rm -rf "$new"
		mkdir -p "$new"
		if (cd "$new" && apt-get -q=2 "${sandbox[@]}" download "$1=$version" >/dev/null); then
			mv "$new"/*.deb "$CACHE/dl/"
		else
			sleep "$try"
		fi
	done
	die "could not download $1=$version"
}

# unpack FOLDER PACKAGE...: all of them into one folder, which appears at once
unpack() {
	local to=$1 package
	shift
	[ ! -d "$to" ] || return 0
	rm -rf "$to.new"
	for package in "$@"; do
		download "$package"
		say UNPACK "$package"
		dpkg-deb -x "$deb" "$to.new"
	done
	mv "$to.new" "$to"
}

mkdir -p "$REL"
unpack "$IMAGE" "linux-image-$KREL-unsigned"
unpack "$REL/kbuild" "linux-headers-$KREL" "linux-headers-$base-common" "linux-kbuild-$base"

# The headers' only absolute path.
printf 'include %s\n' "\$(dir \$(lastword \$(MAKEFILE_LIST)))../linux-headers-$base-common/Makefile" \
	>"$KBUILD_DIR/Makefile"

if [ ! -d "$SRC" ]; then
	download "linux-source-$SERIES"
	say UNPACK "linux-source-$SERIES (half a minute)"
	rm -rf "$SRC.new"
	mkdir -p "$SRC.new"
	dpkg-deb --fsys-tarfile "$deb" |
		tar -xO --wildcards './usr/src/linux-source-*.tar.xz' |
		tar -xJ -C "$SRC.new" --strip-components=1
	mv "$SRC.new" "$SRC"
fi
echo "$version" >"$REL/complete"
