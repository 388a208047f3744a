#!/usr/bin/env bash
# Plants faults in the kernel text, one at a time, and expects that the kernels on the host (tests/cuda_host) notice, in one
# order of a block's threads or another. Prints the first order that did; CUDA_ORDERS=all: every one.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$top_srcdir/tests/cuda_host/use.sh"
tool=$top_builddir/tests/cuda_host/nearfield
interop=$top_builddir/tests/test_cuda
orders=(forward reverse random greedy greedy-reverse)
# Several tiles, partial and full; grouped heads, extra tokens, dilation; a NaN where nobody sees it.
problems=('na2d f32 h4/2 d20/36 9x11 w5x3 s2x1 x3 both' 'na1d f32 d8 130 w60 both' 'na2d f32 d8 6x7 w3 dil2 c0x1 both')

# What a file's faults show in: programs, and how the backend is made to run them.
suit() { # FILE
    algo=portable suite=
    programs='r2-i0-o0-t64 r2-i0-o0-t32'
    case $1 in
    gpu_unfused.cl) programs=plain-i0-o0 algo=unfused suite=pair ;;
    gpu_naive.cl) programs=plain-i0-o0 algo=naive ;;
    gpu_merge.cl) programs='merge-i0 merge-i1' algo='' suite=merging ;;
    esac
}

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

passes() { # ORDER
    local settings="devices=2;order=$1"
    if [ -n "$algo" ]; then
        on_mock "$work/mock" "$settings" timeout 60 "$tool" crosscheck --backend cuda --device 0 --algo "$algo" \
            "${problems[@]}" && books_balance >/dev/null || return
    fi
    if [ -n "$suite" ] && [ -x "$interop" ]; then
        on_mock "$work/mock" "$settings" env CK_FORK=no CK_RUN_CASE="$suite" timeout 60 "$interop"
    fi
}

# The orders in which a problem fails; what the mock complains of counts.
failing_orders() {
    local order
    modules=$work/modules
    for order in "${!orders[@]}"; do
        if ! passes "$order"; then
            echo -n "${orders[order]} "
            [ "${CUDA_ORDERS-}" = all ] || return 0
        fi
    done
}

mutant() { # FILE EXPRESSION
    plant "$1" "$2" || { echo "the edit changes nothing in $1"; return 1; }
    suit "$1"
    build || return
    failing_orders >"$work/caught"
    [ -s "$work/caught" ]
}

unspoiled() { # FILE
    suit "$1"
    build_original && failing_orders >"$work/caught" && [ ! -s "$work/caught" ]
}
build_original() { rm -rf "$work/src" && cp -r "$top_srcdir/src" "$work/src" && cp -r "$top_srcdir/include" "$work/" && build; }
for file in gpu_tile.cl gpu_unfused.cl gpu_naive.cl gpu_merge.cl; do
    check "$file as it is passes" unspoiled "$file"
done

while IFS='|' read -r name file expression; do
    case $name in '#'* | '') continue ;; esac
    name=$(echo "$name" | sed 's/ *$//')
    : >"$work/caught"
    if [[ $file = *gpu_merge.cl* ]] && [ ! -x "$interop" ]; then
        skip "$name" 'built without Check'
        continue
    fi
    check "$name" mutant "$(echo "$file" | tr -d ' ')" "${expression# }"
    printf '%-44s caught in order %s\n' "$name" "$(cat "$work/caught")"
done <"$top_srcdir/tests/cuda_mutants.list"
finish
