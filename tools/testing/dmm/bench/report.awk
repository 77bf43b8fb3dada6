# SPDX-License-Identifier: GPL-2.0-only
#
# Make tables of measured values.  Input, all separated by tabs:
#
#   info   KEY VALUE
#   value  PAGING MODULES COMMAND VALUE
#   row    NAME TITLE UNIT PAGING MEASURE AGAINST MODULES TARGET
#
# PAGING is npt or shadow, MODULES ours or stock.  Variables: runs is the
# number of values that each command must have, json, markdown and text name the
# files to write.  Exits with 1 if a target is not met.

function median(key,    n, i, j, t, v) {
	n = count[key]
	for (i = 1; i <= n; i++) {
		t = value[key, i]
		for (j = i - 1; j > 0 && v[j] > t; j--)
			v[j + 1] = v[j]
		v[j + 1] = t
	}
	lowest = v[1]
	highest = v[n]
	return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}

# Largest difference of two runs, in percent of the median
function spread(middle) {
	return middle ? 100 * (highest - lowest) / middle : 0
}

# 1234567.8 as 1,234,568; small numbers keep some digits
function readable(x,    s, r) {
	if (x < 10)
		return sprintf("%.2f", x)
	if (x < 1000)
		return sprintf("%.1f", x)
	s = sprintf("%.0f", x)
	while (length(s) > 3) {
		r = "," substr(s, length(s) - 2) r
		s = substr(s, 1, length(s) - 3)
	}
	return s r
}

function number(target) {
	return sub(/^1\//, "", target) ? 1 / target : target + 0
}

function fraction(x, like) {
	if (like ~ /^1\// || (like == "" && x < 0.75))
		return sprintf("1/%.2f", 1 / x)
	return sprintf("%.3f", x)
}

function quoted(s) {
	gsub(/["\\]/, "\\\\&", s)
	return "\"" s "\""
}

function list(key,    i, s) {
	for (i = 1; i <= count[key]; i++)
		s = s (i > 1 ? ", " : "") value[key, i]
	return "[" s "]"
}

function cost(label, command, modules, key, middle, wide) {
	return sprintf(",\n      \"%s\": { \"command\": %s, \"modules\": \"%s\", " \
		"\"median\": %s, \"spread_percent\": %.3f, \"runs\": %s }",
		label, quoted(command), modules, middle, wide, list(key))
}

function incomplete(key) { return failed[key] || count[key] != runs }

BEGIN {
	FS = "\t"
	last_paging = ""
}

$1 == "info" { info[$2] = $3 }

$1 == "value" && $5 ~ /^-?[0-9.]+$/ {
	key = $2 SUBSEP $3 SUBSEP $4
	value[key, ++count[key]] = $5
}

$1 == "value" && $5 !~ /^-?[0-9.]+$/ { failed[$2 SUBSEP $3 SUBSEP $4] = 1 }

$1 == "row" {
	name = $2; title = $3; unit = $4; paging = $5; target = $9
	mine = paging SUBSEP "ours" SUBSEP $6
	other = paging SUBSEP $8 SUBSEP $7
	rows++
	if (paging != last_paging) {
		last_paging = paging
		line = paging == "npt" ? "Nested paging" : "Shadow paging"
		printf "%s## %s\n\n", (rows > 1 ? "\n" : ""), line >markdown
		printf "| case | unit | cost | compared to | ratio | spread | target | |\n" >markdown
		printf "|---|---|--:|--:|--:|--:|--:|---|\n" >markdown
		printf "\n%-68s %9s %9s %7s %6s  %s\n", line, "cost", "against",
			"ratio", "spread", "target" >text
	}
	entry = sprintf("    { \"row\": %s, \"title\": %s, \"paging\": \"%s\", \"unit\": %s",
		quoted(name), quoted(title), paging, quoted(unit))

	verdict = ""
	ratio_text = compared = mine_text = ""
	wide = 0
	if (incomplete(mine) || ($7 != "" && incomplete(other))) {
		verdict = "FAILED"
		missed++
	} else {
		middle = median(mine)
		wide = spread(middle)
		mine_text = readable(middle)
		entry = entry cost("cost", $6, "ours", mine, middle, wide)
		got = middle
		if ($7 != "") {
			base = median(other)
			wide2 = spread(base)
			entry = entry cost("against", $7, $8, other, base, wide2)
			compared = readable(base)
			got = base ? middle / base : 0
			ratio_text = got ? fraction(got, target) : "0"
			entry = entry sprintf(",\n      \"ratio\": %.4f", got)
			if (wide2 > wide)
				wide = wide2
		}
		if (target != "") {
			verdict = got <= number(target) ? "met" : "NOT MET"
			if (verdict != "met")
				missed++
			entry = entry sprintf(",\n      \"target\": %.4f, \"met\": %s",
				number(target), verdict == "met" ? "true" : "false")
		}
	}
	if (verdict == "FAILED")
		entry = entry ",\n      \"failed\": true"
	entries = entries (entries == "" ? "" : ",\n") entry " }"
	printf "| %s | %s | %s | %s | %s | %.1f %% | %s | %s |\n", title, unit,
		mine_text, compared, ratio_text, wide,
		target == "" ? "" : "≤ " target, verdict >markdown
	printf "%-68s %9s %9s %7s %4.1f %%  %-9s %s\n",
		title ($7 == "" ? ", " unit : ""),
		mine_text, compared, ratio_text, wide,
		target == "" ? "" : "<= " target, verdict >text
}

END {
	printf "{\n  \"release\": %s,\n  \"commit\": %s,\n  \"date\": %s,\n",
		quoted(info["release"]), quoted(info["commit"]), quoted(info["date"]) >json
	printf "  \"counts\": \"instructions of the emulated host; no cache or TLB misses, no cost of a real exit\",\n" >json
	printf "  \"rows\": [\n%s\n  ]\n}\n", entries >json
	exit missed > 0
}
