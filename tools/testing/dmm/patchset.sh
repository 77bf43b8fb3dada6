#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Make a series for "git am" of this repository, for the kernel source that the
# modules are built from; patches/steps says how it is cut.
#
#   patchset.sh			into build/<release>/patchset
#   patchset.sh --check		the same, and see that it applies and gives the same
#				tree as the hooks and the files here
#   patchset.sh --build [N...]	build all steps, or these, with CONFIG_KVM_DMM=y and n

. "$(dirname "$0")/common.sh"

mode=${1:-}
case $mode in ''|--check|--build) ;; *) sed -n '3,11s/^# \?//p' "$0" >&2; exit 2 ;; esac
[ $# = 0 ] || shift
need_packages git
[ "$mode" != --build ] || need_packages $PKG_DEBUG

KREL=$(choose_release)
export KREL
"$DMM/fetch.sh"
release_dirs
series=$OUT/patchset
mkdir -p "$OUT"
exec 8>"$OUT/patchset.lock"
flock 8
work=$(mktemp -d "$OUT/patchset.XXXXXX")
trap 'rm -rf "$work"' EXIT
tree=$work/tree		# the series as it grows, a git repository
policies=virt/kvm/dmm/policies

# git as it is out of the box, with the author that the hooks name.
date=$(git -C "$TOP" log -1 --format=%cD 2>/dev/null) || date=$(date -R)
author=$(sed -n 's/^From: //p' "$TOP"/patches/*/*.patch | sort | uniq -c | sort -rn | awk 'NR == 1 { $1 = ""; print substr($0, 2) }')
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null HOME=$work
export GIT_AUTHOR_NAME=${author% <*} GIT_AUTHOR_DATE=$date
export GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME GIT_COMMITTER_DATE=$date
GIT_AUTHOR_EMAIL=${author##*<}
GIT_AUTHOR_EMAIL=${GIT_AUTHOR_EMAIL%>}
export GIT_AUTHOR_EMAIL GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL

# What belongs into a kernel tree, at the paths that it has here.
our_files() {
	(cd "$TOP" && find arch include virt Documentation tools/kvm tools/testing/selftests -type f \
		\( ! -name '.*' -o -name .gitignore \) ! -name '*.orig' ! -name '*.rej' \
		! -path tools/kvm/dmm/dmm-fork | sort)
}
hooks() { (cd "$TOP/patches" && ls 6.12/*.patch selftests/*.patch tree/*.patch); }

# The files of the kernel that hooks change, in a git repository.
base_tree() {	# FOLDER
	local file
	mkdir -p "$1"
	git -C "$1" init -q -b series
	sed -n 's,^--- a/\([^[:space:]]*\).*,\1,p' "$TOP"/patches/*/*.patch | sort -u |
		while read -r file; do
			mkdir -p "$1/$(dirname "$file")"
			cp "$SRC/$file" "$1/$file"
		done
	git -C "$1" add -A
	git -C "$1" commit -q -m "linux-source $(cat "$REL/complete")"
}

# Kconfig and Makefile of the policies with the entries of some symbols only.
policies_with() {	# SYMBOL...
	[ -d "$tree/$policies" ] || return 0
	awk -v have=" $* " '
		/^config / { drop = !index(have, " " $2 " ") }
		!drop { line[++n] = $0 }
		END { while (n && line[n] == "") n--; for (i = 1; i <= n; i++) print line[i] }
	' "$TOP/$policies/Kconfig" >"$tree/$policies/Kconfig"
	awk -v have=" $* " 'BEGIN { RS = ""; ORS = "" } {
		drop = match($0, /CONFIG_[A-Z0-9_]+/)
		if (drop) drop = !index(have, " " substr($0, RSTART + 7, RLENGTH - 7) " ")
		if (!drop) print (n++ ? "\n\n" : "") $0
	} END { print "\n" }' "$TOP/$policies/Makefile" >"$tree/$policies/Makefile"
}

declare -A taken	# files and hooks that are in the series by now
symbols=()		# of the policies that are
problems=0

add_file() {
	[ -z "${taken[$1]:-}" ] || return 0
	taken[$1]=1
	mkdir -p "$tree/$(dirname "$1")"
	cp "$TOP/$1" "$tree/$1"
}

add_files() {	# PATTERN...
	local pattern file
	for pattern in "$@"; do
		while read -r file; do
			case $pattern in
			*/)	[[ $file == "$pattern"* ]] || continue ;;
			# shellcheck disable=SC2053	# a pattern, indeed
			*)	[[ $file == $pattern && ${file//[^\/]/} == "${pattern//[^\/]/}" ]] || continue ;;
			esac
			# Policies come one by one.
			case $file in
			$policies/Kconfig|$policies/Makefile) ;;
			$policies/*) continue ;;
			esac
			add_file "$file"
		done < <(our_files)
	done
}

add_hook() {
	taken[$1]=1
	git -C "$tree" apply --whitespace=nowarn "$TOP/patches/$1" ||
		die "patches/$1 does not apply to $KREL: this release needs its hooks adapted"
}

hook_subject() { sed -n '/^Subject: /{s/^Subject: *\(\[[^]]*\]\)\? *//;:a;N;/\n[ \t]/{s/\n[ \t]*/ /;ba};P;q}' "$TOP/patches/$1"; }
hook_text() { sed -e '1,/^$/d' -e '/^---$/,$d' "$TOP/patches/$1"; }

commit() {	# SUBJECT; the changelog comes on stdin
	{ echo "$1"; echo; cat; } >"$work/message"
	policies_with "${symbols[@]}"
	git -C "$tree" add -A
	git -C "$tree" diff --cached --quiet && return
	git -C "$tree" commit -q --cleanup=whitespace -F "$work/message"
}

hook_step() { add_hook "$1"; hook_text "$1" | commit "$(hook_subject "$1")"; }

# The first comment of a source, without the line that names it.
first_comment() {
	awk '/^\/\*/ { on = 1; next } on && /^ \*\// { exit } on { sub(/^ \* ?/, ""); print }' "$1" |
		sed -e '1{/^Dynamic memory mapping/d}' | sed -e '/./,$!d'
}

# A source or header of policies, with the headers beside it that it includes.
add_source() {
	local header
	[ -z "${taken[$policies/$1]:-}" ] || return 0
	add_file "$policies/$1"
	while read -r header; do
		[ ! -e "$TOP/$policies/$header" ] || add_source "$header"
	done < <(sed -n 's/^#include "\(.*\)"/\1/p' "$TOP/$policies/$1")
}

policy_steps() {
	local symbol sources source subject
	while read -r symbol sources; do
		symbols+=("$symbol")
		for source in $sources; do
			add_source "$source"
		done
		subject=$(awk -v s="$symbol" '$1 == "config" { on = $2 == s }
			on && /^\t(tristate|bool) "/ { sub(/^[^"]*"/, ""); sub(/( for dynamic memory mapping)?".*/, ""); print; exit }' \
			"$TOP/$policies/Kconfig")
		{
			awk -v s="$symbol" '/^(config|endif|if|source|comment)/ { on = $2 == s; help = 0 }
				on && help { sub(/^\t  /, ""); print } on && $1 == "help" { help = 1 }' "$TOP/$policies/Kconfig"
			for source in $sources; do
				echo
				first_comment "$TOP/$policies/$source"
			done
		} | commit "KVM: dmm: Add ${subject,}"
	done < <(awk 'BEGIN { RS = "" } match($0, /CONFIG_[A-Z0-9_]+/) {
		symbol = substr($0, RSTART + 7, RLENGTH - 7); sources = ""
		gsub(/\\\n/, " ")
		n = split($0, line, "\n")
		for (i = 1; i <= n; i++) if (line[i] ~ /^kvm-dmm-.*-y *[:+]?=/) {
			sub(/^[^=]*=/, "", line[i]); sources = sources " " line[i]
		}
		gsub(/\.o/, ".c", sources); print symbol, sources
	}' "$TOP/$policies/Makefile")
}

# end_step: commit what the lines of patches/steps since the last [] said
end_step() {
	[ -n "$open" ] || return 0
	open=
	[ ${#step_hooks[@]} = 0 ] || [ -n "$subject" ] || subject=$(hook_subject "${step_hooks[0]}")
	grep -q . "$work/text" || [ ${#step_hooks[@]} = 0 ] || hook_text "${step_hooks[0]}" >"$work/text"
	sed -e '/./,$!d' "$work/text" | commit "$subject"
}

make_series() {
	local line hook file open='' subject='' step_hooks=()
	base_tree "$tree"
	: >"$work/text"
	while IFS= read -r line; do
		case $line in
		'#'*)	;;
		'[policies]')
			end_step
			policy_steps
			;;
		'[hooks '*)
			end_step
			line=${line#\[hooks }
			for hook in $(hooks | grep "^${line%]}/"); do
				[ -n "${taken[$hook]:-}" ] || named "$hook" || hook_step "$hook"
			done
			;;
		'['*)
			end_step
			open=1 subject=${line#\[} step_hooks=()
			subject=${subject%\]}
			: >"$work/text"
			;;
		'files: '*)
			set -f
			# shellcheck disable=SC2086	# patterns
			add_files ${line#files: }
			set +f
			;;
		'hook: '*)
			step_hooks+=("${line#hook: }")
			add_hook "${line#hook: }"
			;;
		*)	echo "$line" >>"$work/text" ;;
		esac
	done <"$TOP/patches/steps"
	end_step

	for file in $(our_files) $(hooks); do
		[ -z "${taken[$file]:-}" ] || continue
		echo "patchset: no step of patches/steps adds $file" >&2
		problems=1
	done
	[ "$problems" = 0 ] || exit 1
}
named() { grep -qxF "hook: $1" "$TOP/patches/steps"; }

# The results of the last "make bench" that the documentation carries.
figures() {
	[ ! -e "$1" ] || sed -n '/^ *results begin$/,/^ *results end$/p' "$1" |
		sed -e '/^ *results \(begin\|end\)$/d' -e '/^\.\.$/d' | sed -e '/./,$!d'
}

# The cover letter, with what was measured last.
cover_letter() {
	local line
	figures "$TOP/Documentation/virt/kvm/dmm/benchmark.rst" >"$work/figures"
	while IFS= read -r line; do
		case $line in
		Subject:*) ;;
		@testing)
			echo "The series was made for linux-source $(cat "$REL/complete") of Debian."
			;;
		@figures)
			if grep -q . "$work/figures"; then
				echo "Instructions of the emulated host for each 4 KiB page; how they were measured is"
				echo "said in Documentation/virt/kvm/dmm/benchmark.rst."
				echo
				cat "$work/figures"
			else
				echo "None yet: Documentation/virt/kvm/dmm/benchmark.rst has no results."
				say NOTE "no results of \"make bench\" for the cover letter" >&2
			fi
			;;
		*)	printf '%s\n' "$line" ;;
		esac
	done <"$TOP/patches/cover-letter" | sed -e '/./,$!d'
}

format_series() {
	local cover
	rm -rf "$series.new"
	git -C "$tree" format-patch -q --cover-letter --no-signature --full-index -o "$series.new" \
		"$(git -C "$tree" rev-list --max-parents=0 HEAD)"
	cover=$series.new/0000-cover-letter.patch
	cover_letter >"$work/cover"
	awk -v subject="$(sed -n 's/^Subject: //p' "$TOP/patches/cover-letter")" -v text="$work/cover" '
		/^Subject: / { sub(/\*\*\* SUBJECT HERE \*\*\*/, subject) }
		/^\*\*\* BLURB HERE \*\*\*$/ { while ((getline line < text) > 0) print line; next }
		{ print }' "$cover" >"$work/cover.patch"
	mv "$work/cover.patch" "$cover"
	rm -rf "$series"
	mv "$series.new" "$series"
}

make_series
format_series
n=$(git -C "$tree" rev-list --count HEAD)
say PATCHES "$((n - 1)) and a cover letter in build/$KREL/patchset"

# As whoever takes them up does: to a tree that has seen none of this.
check_series() {
	local got=$work/am want=$work/want hook file
	base_tree "$got"
	git -C "$got" am -q --empty=drop "$series"/*.patch >"$work/am.log" 2>&1 ||
		{ cat "$work/am.log" >&2; echo "not ok 1 patchset_applies"; exit 1; }
	! grep -i warning "$work/am.log" >&2 ||
		{ echo "not ok 1 patchset_applies"; exit 1; }
	echo "ok 1 patchset_applies"
	base_tree "$want"
	for hook in $(hooks); do
		patch -s -p1 -F0 --no-backup-if-mismatch -d "$want" <"$TOP/patches/$hook"
	done
	(cd "$TOP" && our_files | tar -cf - -T -) | tar -C "$want" -xf -
	if diff -r --exclude=.git "$want" "$got" >&2; then
		echo "ok 2 patchset_is_the_same_tree"
	else
		echo "not ok 2 patchset_is_the_same_tree"
		exit 1
	fi
}

# A kernel of its own, small, with KVM as modules; one build folder for y and one
# for n, so that a step costs what it changes.  The source is made of hard links:
# files are replaced, never written to.
build_steps() {
	local full=$OUT/patchset-src step rev failed=0 i=0 n=0 value objects file log symbol
	rm -rf "$full"
	# Another file system has no links to it.
	cp -al "$SRC" "$full" 2>/dev/null || { rm -rf "$full"; cp -a "$SRC" "$full"; }
	step=$(git -C "$tree" rev-list --max-parents=0 HEAD)
	for rev in $step $(git -C "$tree" rev-list --reverse HEAD | sed 1d); do
		git -C "$tree" checkout -q "$rev"
		git -C "$tree" diff --name-only "$step" "$rev" | while read -r file; do
			mkdir -p "$full/$(dirname "$file")"
			cp --remove-destination "$tree/$file" "$full/$file"
		done
		step=$rev
		if [ $# -gt 0 ] && [[ " $* " != *" $i "* ]]; then
			i=$((i + 1))
			continue
		fi
		for value in y n; do
			n=$((n + 1))
			objects=$OUT/patchset-build/$value
			log=$OUT/patchset-build/$i-$value.log
			mkdir -p "$objects"
			build_config "$value" "$full" "$objects" >"$log" 2>&1 &&
			make -C "$full" O="$objects" -j"$JOBS" vmlinux modules >>"$log" 2>&1 &&
			! grep -q 'warning:\|WARNING:' "$log" && {
				echo "ok $n step_${i}_$value # $(git -C "$tree" log -1 --format=%s)"
				continue
			}
			grep -m 20 'error:\|ERROR:\|warning:\|WARNING:' "$log" >&2 || tail -n 20 "$log" >&2
			echo "not ok $n step_${i}_$value # $(git -C "$tree" log -1 --format=%s)"
			failed=1
		done
		i=$((i + 1))
	done
	git -C "$tree" checkout -q series
	for symbol in KVM_DMM "${symbols[@]}"; do
		grep -q "^CONFIG_$symbol=[ym]" "$OUT/patchset-build/y/.config" ||
			{ echo "not ok config_$symbol # not in the build with y"; failed=1; }
		! grep -q "^CONFIG_$symbol=" "$OUT/patchset-build/n/.config" ||
			{ echo "not ok config_$symbol # in the build with n"; failed=1; }
	done
	rm -rf "$full"
	return $failed
}

build_config() {	# y|n SOURCE OBJECTS
	local symbol
	[ -e "$3/.config" ] || make -C "$2" O="$3" tinyconfig
	{
		cat "$DMM/patchset.config"
		echo "CONFIG_KVM_DMM=$1"
		for symbol in "${symbols[@]}"; do echo "CONFIG_$symbol=m"; done
	} >"$3/fragment"
	# Only what differs is written, or everything would be built again.
	cp "$3/.config" "$3/before"
	(cd "$3" && "$2/scripts/kconfig/merge_config.sh" -m -O "$3" before fragment)
	make -C "$2" O="$3" olddefconfig
}

case $mode in
--check) check_series ;;
--build) build_steps "$@" ;;
esac
