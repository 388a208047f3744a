#!/usr/bin/env bash
# The problem sets of bench/ parse and are valid, with tags of their own; every target has a measure that exists; and what
# bench/peers/ calls is this library.
. "$top_srcdir/tests/count.sh"
problems=$top_srcdir/bench/problems

# The reference backend's plans are the cheapest, whatever the size.
is_valid() { # PROBLEM
    "$NEARFIELD" plan --backend reference "$1"
}

for file in "$problems"/*.txt; do
    set=$(basename "$file" .txt)
    [ "$set" != targets ] || continue
    while read -r tag problem; do
        check "$set/$tag" is_valid "${problem%%#*}"
    done < <(grep -v '^#' "$file")
    check "$set: no tag twice" test -z "$(grep -v '^#' "$file" | awk '{ print $1 }' | sort | uniq -d)"
done

while IFS='|' read -r name measure goal list; do
    check "target $name: measure $measure" grep -q -x -E ' *(peak|stream|speed|fused|unfused|plan|call|memory) *' <<<"$measure"
    check "target $name: goal $goal" grep -q -x -E ' *(fwd|bwd) [0-9.e-]+( bwd [0-9.e-]+)? *' <<<"$goal"
    while read -r problem; do
        check "target $name" is_valid "$problem"
    done < <(tr ';' '\n' <<<"$list")
done < <(grep '|' "$problems/targets.txt" | grep -v '^#')
library=$top_builddir/.libs/libnearfield.so.0
if [ ! -e "$library" ]; then
    skip peers 'this build has no shared library'
elif ! command -v python3 >/dev/null; then
    skip peers 'there is no python3'
else
    check 'peers: the structures are the library'"'"'s' env PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$top_srcdir/bench/peers" \
        python3 -c 'import sys, nearfield; nearfield.load(sys.argv[1])' "$library"
fi

# The masks that FlexAttention gets show each query the keys that the library does: with a scale of 0 a result is the mean
# of the values that are seen.
check_means() { # PROBLEM VALUES OUT
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$top_srcdir/bench/peers" python3 - "$@" <<'END'
import array, math, sys, masks
def clamp(x, min=-math.inf, max=math.inf):
    return sorted((min, x, max))[1]
def numbers(path):
    with open(path, "rb") as file:
        return array.array("d", file.read()[-8 * tokens:])
problem = masks.parse(sys.argv[1])
tokens = masks.tokens(problem)
sees = masks.visible(problem, clamp) or (lambda *_: True)
values, means = numbers(sys.argv[2]), numbers(sys.argv[3])
for query in range(tokens):
    seen = [values[key] for key in range(tokens) if sees(0, 0, query, key)]
    if not math.isclose(sum(seen) / len(seen), means[query], abs_tol=1e-12):
        sys.exit(f"query {query}: {seen}, mean {means[query]}")
END
}
same_keys() { # PROBLEM EXTENT...
    local problem=$1 x=$work/x.npy
    "$top_builddir/tests/make_npy" "$x" f8 C 1 1 "${@:2}" 1 1 &&
        "$NEARFIELD" run "$problem scale=0 fwd" --backend reference --q "$x" --k "$x" --v "$x" --out "$work/out.npy" &&
        check_means "$problem" "$x" "$work/out.npy"
}
has_no_mask() { # PROBLEM
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$top_srcdir/bench/peers" python3 -c \
        'import sys, masks; sys.exit(masks.parse(sys.argv[1]) is not None)' "$1"
}
if command -v python3 >/dev/null; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    for problem in '40 w9' '41 w10 s4' '20' '20 w0 c1' '33 w7 s7 c1' '43 w5 s3 dil7' '43 w5 s3 dil7 c1' \
        '43 w6 s4 dil7' '7x9 w4x3 s2x3' '7x9 w0x3 c1x0' '19x23 w5x6 s2x3 dil3x2' '19x23 w6x7 s1x2 dil2x1 c0x1' \
        '3x4x5 w2x3x4 s1x3x4' '5x7x9 w2x3x4 s1x2x3 dil2x1x2' '3x4x3x2 w2x1x3x2 s1x1x2x1 dil1x2x1x1 c0x0x1x0'; do
        IFS=x read -ra extents <<<"${problem%% *}"
        check "mask of $problem" same_keys "na${#extents[@]}d f64 d1 $problem" "${extents[@]}"
    done
    for problem in 'na1d d8 20/90 c1' 'na1d d8 20 w3 x2' 'na1d d8 20 w3 q3:4'; do
        check "no mask of $problem" has_no_mask "$problem"
    done
else
    skip masks 'there is no python3'
fi
finish
