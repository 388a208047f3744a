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

# The masks that FlexAttention gets see as many pairs as the library does.
count_pairs() { # PROBLEM
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$top_srcdir/bench/peers" python3 - "$1" <<'END'
import math, sys, masks
def clamp(x, min=-math.inf, max=math.inf):
    return sorted((min, x, max))[1]
extents, windows, strides = masks.parse(sys.argv[1])
sees, tokens = masks.visible(extents, windows, strides, clamp), math.prod(extents)
print(sum(sees(0, 0, query, key) for query in range(tokens) for key in range(tokens)))
END
}
same_pairs() { # PROBLEM
    local pairs
    pairs=$(count_pairs "$1") && "$NEARFIELD" plan --backend reference "$1" | grep -q "^pairs: $pairs visible"
}
if command -v python3 >/dev/null; then
    for problem in 'na1d h1 d8 40 w9' 'na1d h1 d8 41 w10 s4' 'na2d h1 d8 7x9 w4x3 s2x3' 'na3d h1 d8 3x4x5 w2x3x4 s1x3x4' 'na1d h1 d8 20'; do
        check "mask of $problem" same_pairs "$problem"
    done
else
    skip masks 'there is no python3'
fi
finish
