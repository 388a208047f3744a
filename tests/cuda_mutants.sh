#!/usr/bin/env bash
# Plants faults in the kernel text, one at a time, and expects that the kernels on the host (tests/cuda_host) notice, in one
# order of a block's threads or another. Prints the first mode that did; CUDA_ORDERS=all: every one. Each fault takes seconds,
# so that a tenth of them is planted; CUDA_MUTANTS=all: all.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$top_srcdir/tests/cuda_host/use.sh"
tool=$top_builddir/tests/cuda_host/nearfield
interop=$top_builddir/tests/test_cuda
orders=(forward reverse random greedy greedy-reverse)

# What a file's faults show in: programs, others that run as they are, how the backend is made to run them, problems, and how
# copies land that a kernel does not wait for. Problems have several tiles, partial and full; grouped heads, extra tokens, dilation; a NaN where nobody sees it.
suit() { # FILE [f32|f32-d128]
    algo=portable tiny= suite= copies=(late) try=crosscheck other=
    programs='r2-i0-o0-t64 r2-i0-o0-t32'
    problems=('na2d f32 h4/2 d20/36 9x11 w5x3 s2x1 x3 both' 'na1d f32 d8 130 w60 both' 'na2d f32 d8 6x7 w3 dil2 c0x1 both')
    case $1 in
    gpu/gpu_unfused.cl) # all of it is run by f64, and by f32 where that has too many dimensions
        programs='plain-i1-o1 plain-i0-o0' other=unfused-i0-d64 algo=unfused suite=pair problems=("${problems[@]/f32/f64}")
        ;;
    gpu/gpu_naive.cl) programs=plain-i0-o0 algo=naive ;;
    gpu/gpu_merge.cl) programs='merge-i0 merge-i1' algo='' suite=merging ;;
    cuda/cu_wgmma_backward* | cuda/cu_wgmma_meet.h | cuda/cu_wgmma_open.h)
        programs=wgmma-backward-i2-d64 other=wgmma-i2-d64 algo=wgmma try=verify copies=(late early)
        problems=('na2d bf16 h4/2 d24/32 9x11 w5x3 s2x1 x3 bwd' 'na1d bf16 d8 300 w70 dil3 x130 bwd' 'na2d bf16 d8 6x7 w3 dil2 c0x1 bwd')
        ;;
    cuda/cu_wgmma*)
        programs=wgmma-i2-d64 other=wgmma-backward-i2-d64 algo=wgmma try=verify copies=(late early)
        problems=('na2d bf16 h4/2 d24/32 9x11 w5x3 s2x1 x3 fwd' 'na1d bf16 d8 420 w130 dil3 fwd' 'na3d bf16 d8 3x8x16 w2x8x16 c0x1x0 fwd')
        ;;
    cuda/cu_unfused*)
        programs=unfused-i2-d64 other=plain-i2-o2 algo=unfused copies=(late early)
        problems=('na2d bf16 h4/2 d20/28 9x11 w5x3 s2x1 x3 both' 'na1d bf16 d8 300 w200 both' 'na2d bf16 d8 6x7 w3 dil2 c0x1 both'
            'na1d bf16 d8 90 w3 k80:10 both')
        ;;
    cuda/cu_mma* | cuda/cu_backward_ends.h)
        programs=mma-i2-d32 algo=mma copies=(late early)
        problems=('na2d bf16 h4/2 d20/28 9x11 w5x3 s2x1 x3 both' 'na1d bf16 d8 300 w200 both' 'na2d bf16 d8 6x7 w3 dil2 c0x1 both')
        ;;
    esac
    case $1,${2-} in
    cuda/cu_unfused*,f32) # and scores that are the caller's
        programs=unfused-i0-d64 other=plain-i0-o0 suite=pair problems=("${problems[@]/bf16/f32}")
        ;;
    *,f32-d128) programs=mma-i0-d128 problems=('na1d f32 h2/1 d100/70 100 w60 c1 x1 both') ;;
    cuda/cu_mma_split.h, | *,f32)
        programs=mma-i0-d32 problems=("${problems[@]/bf16/f32}") tiny='na1d f32 d8 20 w9 both' # for denormal numbers
        ;;
    esac
}

plant() { # FILE EXPRESSION
    rm -rf "$work/src" "$work/modules"
    cp -r "$top_srcdir/src" "$work/src" && cp -r "$top_srcdir/include" "$work/"
    sed -i -e "$2" "$work/src/backends/$1" && ! cmp -s "$top_srcdir/src/backends/$1" "$work/src/backends/$1"
}

# A fault may leave a variable without a use.
build() {
    mkdir -p "$work/modules" || return
    for program in $other; do
        cp "$top_builddir/tests/cuda_host/modules/$program.so" "$work/modules/" || return
    done
    for program in $programs; do
        ${MAKE:-make} -s -f "$work/src/backends/cuda/images.mk" src="$work/src" tests="$top_srcdir/tests/cuda_host" \
            CXX="$CXX" HOST_FLAGS=-w folder="$work/modules" "$work/modules/$program.so" || return
    done
}

# Runs a command on the mock for so many seconds at most. The mock names what waits for ever, so that time which is over
# says nothing of a kernel, unless it has named a fault before.
seconds=120
on_device() { # SETTINGS COMMAND...
    on_mock "$work/mock" "$1" timeout "$seconds" "${@:2}"
    local status=$?
    if [ $status -eq 124 ] && ! grep -q '^cuda_host: kernel ' "$work/said"; then
        too_long=yes
    fi
    return $status
}

passes() { # ORDER COPIES
    local settings="devices=2;order=$1"
    [ "$2" = late ] || settings="$settings;copies=1"
    if [ -n "$algo" ]; then
        on_device "$settings" env NEARFIELD_DEVICE=0 "$tool" $try --backend cuda --algo "$algo" \
            "${problems[@]}" && books_balance >/dev/null || return
    fi
    if [ -n "$tiny" ]; then
        on_device "$settings" "$tool" verify --backend cuda --algo "$algo" "$tiny" || return
    fi
    if [ -n "$suite" ] && [ -x "$interop" ]; then
        on_device "$settings" env CK_FORK=no CK_RUN_CASE="$suite" "$interop"
    fi
}

# The modes in which a problem fails; what the mock complains of counts. Fails where one takes too long, and none before it
# has failed.
failing_modes() {
    local order landing caught=
    modules=$work/modules too_long=
    for landing in "${copies[@]}"; do
        for order in "${!orders[@]}"; do
            if ! passes "$order" "$landing"; then
                if [ -n "$too_long" ]; then
                    echo "${orders[order]}/$landing took too long, $seconds s" >&2
                    [ -n "$caught" ]
                    return
                fi
                caught=yes
                echo -n "${orders[order]}/$landing "
                [ "${CUDA_ORDERS-}" = all ] || return 0
            fi
        done
    done
}

mutant() { # FILE EXPRESSION [f32|f32-d128]
    plant "$1" "$2" || { echo "the edit changes nothing in $1"; return 1; }
    suit "$1" "${3-}"
    build || return
    failing_modes >"$work/caught" && [ -s "$work/caught" ]
}

unspoiled() { # FILE [f32|f32-d128]
    suit "$@"
    build_original && failing_modes >"$work/caught" && [ ! -s "$work/caught" ]
}
build_original() { rm -rf "$work/src" && cp -r "$top_srcdir/src" "$work/src" && cp -r "$top_srcdir/include" "$work/" && build; }
for file in gpu/gpu_tile.cl gpu/gpu_unfused.cl gpu/gpu_naive.cl gpu/gpu_merge.cl cuda/cu_mma.cu cuda/cu_mma_split.h \
    cuda/cu_unfused.cu cuda/cu_wgmma.cu cuda/cu_wgmma_backward.cu; do
    check "$file as it is passes" unspoiled "$file"
done
check 'cuda/cu_mma.cu as it is passes, f32-d128' unspoiled cuda/cu_mma.cu f32-d128

listed=0 left=0
while IFS='|' read -r name file expression; do
    case $name in '#'* | '') continue ;; esac
    listed=$((listed + 1))
    if [ "${CUDA_MUTANTS-}" != all ] && [ $((listed % 10)) -ne 0 ]; then
        left=$((left + 1))
        continue
    fi
    name=$(echo "$name" | sed 's/ *$//')
    read -r file type <<<"$file"
    : >"$work/caught"
    if [[ $file = *gpu_merge.cl* ]] && [ ! -x "$interop" ]; then
        skip "$name" 'built without Check'
        continue
    fi
    check "$name" mutant "$file" "${expression# }" "$type"
    [ ! -s "$work/caught" ] || printf '%-44s caught in %s\n' "$name" "$(cat "$work/caught")"
done <"$top_srcdir/tests/cuda_mutants.list"
[ "$left" -eq 0 ] || skip 'other faults' "$left of $listed, which CUDA_MUTANTS=all plants, too"
finish
