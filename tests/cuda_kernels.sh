#!/usr/bin/env bash
# Every kernel of the cuda backend, compiled for the host (tests/cuda_host) and driven by the backend itself, against the
# reference: in every order of a block's threads, with what is enqueued done late and early. Fuller: CUDA_CASES=1000.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$top_srcdir/tests/cuda_host/use.sh"
tool=$top_builddir/tests/cuda_host/nearfield
cases=${CUDA_CASES:-15}

runs() { # SETTINGS COMMAND...: it succeeds, and the mock has nothing to complain about
    on_mock "$work/mock" "$@" || { tail -n 20 "$work/said"; return 1; }
    sed -n 's/^kernel //p' "$books" >>"$work/kernels"
    books_balance
}

orders=(forward reverse random greedy greedy_reverse)
for algo in portable unfused naive; do
    share=$cases
    [ "$algo" = portable ] || share=$(((cases + 2) / 3)) # slots have no tiles to be cut into
    verify() { # SETTINGS SEED
        runs "$1" "$tool" verify --backend cuda --algo "$algo" --cases "$share" --seed "$2"
    }
    check "${algo}_crosscheck" runs '' "$tool" crosscheck --backend cuda --algo "$algo"
    for order in "${!orders[@]}"; do
        check "${algo}_${orders[order]}_order" verify "order=$order" $((100 * order + 100))
    done
    check "${algo}_early" verify 'early=1' 600
    # With many multiprocessors the gradients of extra tokens are summed in parts.
    check "${algo}_many_units" verify 'units=132' 700
done

# A program's own memory and streams.
interop=$top_builddir/tests/test_cuda
if [ -x "$interop" ]; then
    check interop runs 'devices=2' env CK_FORK=no "$interop"
    check interop_early runs 'devices=2;early=1' env CK_FORK=no "$interop"
else
    skip interop 'built without Check'
fi

# A block's order of threads changes no bit.
"$top_builddir/tests/make_npy" "$work/q.npy" f4 C 1 1 9 11 2 8
attend() { # ORDER ALGORITHM
    local to=$work/$1
    mkdir -p "$to" && runs "order=$1" "$tool" run 'na2d w5x4 s2x1' --backend cuda --algo "$2" --q "$work/q.npy" \
        --k "$work/q.npy" --v "$work/q.npy" --dout "$work/q.npy" --out "$to/out.npy" --dq "$to/dq.npy" --dk "$to/dk.npy" \
        --dv "$to/dv.npy"
}
repeats() { attend 0 "$1" && attend 2 "$1" && diff -r "$work/0" "$work/2"; }
for algo in portable unfused naive; do
    check "${algo}_same_bits_in_any_order" repeats "$algo"
done

# Benchmarks go by the device's clock and its limits.
column() { # NAME: of the row that bench printed
    awk -F, -v name="$1" 'NR == 1 {for (i = 1; i <= NF; i++) if ($i == name) at = i} NR == 2 {print $at}' "$work/said"
}
bench() { # DTYPE BASIS
    runs '' "$tool" bench --backend cuda --no-verify --csv --repeats 1 "na1d $1 h1 d8 16 w3 fwd" && [ "$(column clock)" = device ] &&
        [ "$(column peak_basis)" = "$2" ] && awk -v p="$(column peak_gflops)" 'BEGIN {exit !(p > 0)}'
}
check bench_f32 bench f32 'f32 multiply-adds'
check bench_f64 bench f64 'f64 multiply-adds'
check bench_bf16 bench bf16 'mma.sync bf16'
check bench_f16 bench f16 'mma.sync f16'

# The script for machines with a GPU, as far as a mock can tell.
gpu_script() {
    runs '' bash "$top_srcdir/bench/gpu.sh" --tool "$tool" --out "$work/gpu" --quick && grep -q '^0 failed' "$work/said"
}
check gpu_script gpu_script

# Every kernel there is has run; merging is the program's only.
for kernel in $(sed -n '/define CU_KERNELS/,$s/X(\([a-z_0-9]*\))/\n\1\n/gp' "$top_srcdir"/src/backends/cuda/*.cu | grep -x '[a-z_0-9]*'); do
    if [[ $kernel = merge_* ]] && [ ! -x "$interop" ]; then
        skip "$kernel ran" 'built without Check'
        continue
    fi
    launches=$(sed -n "s/^$kernel //p" "$work/kernels" | awk '{n += $1} END {print n + 0}')
    check "$kernel ran" test "$launches" -gt 0
    echo "$kernel: $launches launches"
done
finish
