#!/usr/bin/env bash
# Plants faults in the kernel text, one at a time, and expects that the kernels on the host (tests/cuda_host) notice, in one
# order of a block's threads or another. Prints the first order that did; CUDA_ORDERS=all: every one.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$top_srcdir/tests/cuda_host/use.sh"
tool=$top_builddir/tests/cuda_host/nearfield
orders=(forward reverse random greedy greedy-reverse)
# Several tiles, partial and full; grouped heads, extra tokens, dilation; a NaN where nobody sees it.
problems=('na2d f32 h4/2 d20/36 9x11 w5x3 s2x1 x3 both' 'na1d f32 d8 130 w60 both' 'na2d f32 d8 6x7 w3 dil2 c0x1 both')
programs='r2-i0-o0-t64 r2-i0-o0-t32'

plant() { # FILE EXPRESSION
    rm -rf "$work/src" "$work/modules"
    cp -r "$top_srcdir/src" "$work/src" && cp -r "$top_srcdir/include" "$work/"
    sed -i -e "$2" "$work/src/backends/gpu/$1" && ! cmp -s "$top_srcdir/src/backends/gpu/$1" "$work/src/backends/gpu/$1"
}

build() {
    mkdir -p "$work/modules" && for program in $programs; do
        ${MAKE:-make} -s -f "$work/src/backends/cuda/images.mk" src="$work/src" tests="$top_srcdir/tests/cuda_host" \
            CXX="$CXX" folder="$work/modules" "$work/modules/$program.so" || return
    done
}

# The orders in which a problem fails; what the mock complains of counts.
failing_orders() {
    local order
    modules=$work/modules
    for order in "${!orders[@]}"; do
        if ! on_mock "$work/mock" "order=$order" timeout 60 "$tool" crosscheck --backend cuda "${problems[@]}" ||
            ! books_balance >/dev/null; then
            echo -n "${orders[order]} "
            [ "${CUDA_ORDERS-}" = all ] || return 0
        fi
    done
}

mutant() { # FILE EXPRESSION
    plant "$1" "$2" || { echo "the edit changes nothing in $1"; return 1; }
    build || return
    failing_orders >"$work/caught"
    [ -s "$work/caught" ]
}

unspoiled() { build_original && failing_orders >"$work/caught" && [ ! -s "$work/caught" ]; }
build_original() { rm -rf "$work/src" && cp -r "$top_srcdir/src" "$work/src" && cp -r "$top_srcdir/include" "$work/" && build; }
check 'the text as it is passes' unspoiled

while IFS='|' read -r name file expression; do
    case $name in '#'* | '') continue ;; esac
    name=$(echo "$name" | sed 's/ *$//')
    : >"$work/caught"
    check "$name" mutant "$(echo "$file" | tr -d ' ')" "${expression# }"
    printf '%-44s caught in order %s\n' "$name" "$(cat "$work/caught")"
done <"$top_srcdir/tests/cuda_mutants.list"
finish
