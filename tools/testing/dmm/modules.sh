#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Build kvm.ko, kvm-amd.ko, kvm-intel.ko and kvm-dmm-*.ko into
# build/<release>/modules.
#
#   modules.sh [--debug|--kcsan|--static] [MAKEARG...]	e.g. modules.sh W=1 C=2
#
# --debug and --kcsan build them for that kernel in the cache; --static builds into
# build/<release>/static, so that other flags leave the usual objects alone.

. "$(dirname "$0")/common.sh"

debug='' static=''
case ${1:-} in
--debug|--kcsan) debug=${1#--}; shift ;;
--static)	static=1; shift ;;
esac

# shellcheck disable=SC2086
need_packages $PKG_BUILD
for arg in "$@"; do
	case $arg in C=*) need_packages sparse ;; esac
done

KREL=$(choose_release)
export KREL
"$DMM/fetch.sh"
release_dirs
kernel=$KBUILD_DIR
if [ -n "$debug" ]; then
	kernel=$REL/$debug
	[ -e "$kernel/Module.symvers" ] || die "no $debug kernel yet: run make check-$debug"
	OUT=$TOP/build/$(cat "$kernel/include/config/kernel.release")
fi
[ -z "$static" ] || OUT=$OUT/static

tree=$OUT/kbuild	# what make works on
base=$OUT/base		# kernel files with the hooks applied
mkdir -p "$OUT"
exec 8>"$OUT/lock"
flock 8

# KVM as it is in the kernel source, hooks applied.  Made again only when the
# source or the hooks change.
patches=()
if [ -e "$TOP/patches/$SERIES/series" ]; then
	while read -r name; do
		patches+=("$TOP/patches/$SERIES/$name")
	done < <(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$TOP/patches/$SERIES/series")
fi
want=$({ cat "$REL/complete" "$0"; cat /dev/null "${patches[@]}"; } | sha256sum)
if [ "$(cat "$base.stamp" 2>/dev/null)" != "$want" ]; then
	say COPY "KVM of linux-source $(cat "$REL/complete")"
	rm -rf "$base" "$base.stamp"
	mkdir -p "$base"
	(
		cd "$SRC"
		find arch/x86/kvm virt/kvm virt/lib \
			arch/x86/include/asm/kvm* arch/x86/include/uapi/asm/kvm* \
			include/linux/kvm* include/uapi/linux/kvm* include/kvm \
			include/trace/define_trace.h include/trace/events/kvm* \
			-type f -print0
	) | tar -C "$SRC" --null -T - -cf - | tar -C "$base" -xf -
	for patch in "${patches[@]}"; do
		say PATCH "$(basename "$patch")"
		patch -s -p1 -F0 --no-backup-if-mismatch -r- -d "$base" <"$patch" ||
			die "$(basename "$patch") does not apply to $KREL: this release needs its hooks adapted"
	done
	# There is no Kconfig and no srctree with our files in it.
	find "$base" \( -name 'Makefile*' -o -name Kbuild \) \
		-exec sed -i 's/\$(srctree)/$(KVM_DMM_TREE)/g' {} +
	echo "$want" >"$base.stamp"
fi

# The work tree is base plus our files.  Copy what differs and nothing else, so
# that make compiles what changed and nothing else.
sync_into() {	# FROM FILE: bring one file up to date
	local to=$tree/$2
	cmp -s "$1" "$to" && return
	mkdir -p "$(dirname "$to")"
	rm -f "$to"
	cp "$1" "$to"
}
mkdir -p "$tree"
list=$OUT/files
{
	(cd "$base" && find . -type f -printf 'base %P\n')
	(cd "$TOP" && find Kbuild arch virt include -type f \
		! -name '.*' ! -name '*.orig' ! -name '*.rej' -printf 'ours %p\n')
} >"$list.new"
while read -r from file; do
	case $from in
	base)
		[ -e "$TOP/$file" ] || sync_into "$base/$file" "$file"
		;;
	ours)
		case $file in
		*/Makefile*|*/Kbuild)
			sed 's/\$(srctree)/$(KVM_DMM_TREE)/g' "$TOP/$file" >"$OUT/makefile"
			sync_into "$OUT/makefile" "$file"
			;;
		*)	sync_into "$TOP/$file" "$file" ;;
		esac
		;;
	esac
done <"$list.new"
# What is gone here must be gone there.
if [ -e "$list" ]; then
	comm -23 <(awk '{ print $2 }' "$list" | sort -u) <(awk '{ print $2 }' "$list.new" | sort -u) |
		while read -r file; do
			rm -f "$tree/$file" "$tree/${file%.[cS]}.o"
		done
fi
mv "$list.new" "$list"

say BUILD "modules for ${OUT#"$TOP/build/"}"
# BTF of modules would need pahole and a minute more.
make --no-print-directory -j"$JOBS" -C "$kernel" M="$tree" \
	CONFIG_DEBUG_INFO_BTF_MODULES= "$@" modules |
	sed -u -e '/^make\[/d' -e "s| $tree/| |"

mkdir -p "$OUT/modules"
keep=
while read -r ko; do
	name=$(basename "$ko")
	keep+=" $name "
	[ "$OUT/modules/$name" -nt "$ko" ] && continue
	cp "$ko" "$OUT/modules/.$name"
	strip --strip-debug "$OUT/modules/.$name"
	mv "$OUT/modules/.$name" "$OUT/modules/$name"
	touch "$OUT/modules/$name"
done < <(sed -n "s|^\(.*\)\.o\$|\1.ko|p" "$tree/modules.order" | sed "\|^/|!s|^|$tree/|")
for old in "$OUT"/modules/*.ko; do
	case $keep in *" $(basename "$old") "*) ;; *) rm -f "$old" ;; esac
done
say MODULES "${OUT#"$TOP/"}/modules:$(cd "$OUT/modules" && printf ' %s' *.ko)"
