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

check crosscheck runs '' "$tool" crosscheck --backend cuda
check forward_order runs 'order=0' "$tool" verify --backend cuda --cases "$cases" --seed 100
check reverse_order runs 'order=1' "$tool" verify --backend cuda --cases "$cases" --seed 200
check random_order runs 'order=2' "$tool" verify --backend cuda --cases "$cases" --seed 300
check greedy_order runs 'order=3' "$tool" verify --backend cuda --cases "$cases" --seed 400
check greedy_reverse_order runs 'order=4' "$tool" verify --backend cuda --cases "$cases" --seed 500
check early runs 'early=1' "$tool" verify --backend cuda --cases "$cases" --seed 600
# With many multiprocessors the gradients of extra tokens are summed in parts.
check many_units runs 'units=132' "$tool" verify --backend cuda --cases "$cases" --seed 700

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
attend() { # ORDER
    mkdir -p "$work/$1" && runs "order=$1" "$tool" run 'na2d w5x4 s2x1' --backend cuda --q "$work/q.npy" --k "$work/q.npy" \
        --v "$work/q.npy" --dout "$work/q.npy" --out "$work/$1/out.npy" --dq "$work/$1/dq.npy" --dk "$work/$1/dk.npy" \
        --dv "$work/$1/dv.npy"
}
repeats() { attend 0 && attend 2 && diff -r "$work/0" "$work/2"; }
check same_bits_in_any_order repeats

# The script for machines with a GPU, as far as a mock can tell.
gpu_script() {
    runs '' bash "$top_srcdir/bench/gpu.sh" --tool "$tool" --out "$work/gpu" --quick && grep -q '^0 failed' "$work/said"
}
check gpu_script gpu_script

for kernel in forward backward_delta backward_dq backward_dkv backward_extra backward_extra_sum; do
    launches=$(sed -n "s/^$kernel //p" "$work/kernels" | awk '{n += $1} END {print n + 0}')
    check "$kernel ran" test "$launches" -gt 0
    echo "$kernel: $launches launches"
done
finish
