#!/usr/bin/env bash
# The CUDA kernels on the host, compiled with instruments, under the runs of cuda_kernels.sh:
#   tests/cuda_instrumented.sh coverage   which lines of the kernels ran, by gcovr: at least 95 %
#   tests/cuda_instrumented.sh asan       AddressSanitizer and UndefinedBehaviorSanitizer
#   tests/cuda_instrumented.sh tsan       ThreadSanitizer, to which a kernel's threads are threads (cuda_host/block.cpp)
# The environment is that of make check. Minutes each, so that check.sh --full runs them. CUDA_CASES: more cases.
. "$top_srcdir/tests/count.sh"
mode=${1-}
least=95 # percent of lines
folder=$top_builddir/tests/cuda_host/$mode
compiler=${CXX:-g++}
harness='' preload=''

library() { # NAME: where the compiler has it, to be loaded before all else
    "$compiler" -print-file-name="lib$1.so"
}
case $mode in
coverage)
    flags='--coverage -O0'
    command -v gcovr >/dev/null || { skip coverage 'there is no gcovr' && finish; }
    ;;
asan)
    flags='-fsanitize=address,undefined -fno-sanitize-recover=undefined'
    preload="$(library asan) $(library ubsan)"
    # The driver's mock counts leaks; only the kernels are compiled for it.
    export ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0:detect_stack_use_after_return=0
    ;;
tsan)
    flags=-fsanitize=thread harness=-DHOST_TSAN
    preload=$(library tsan)
    # Only the kernels are compiled for it, so that what others do to each other is not its business.
    export TSAN_OPTIONS=ignore_noninstrumented_modules=1:report_signal_unsafe=0
    ;;
*)
    echo "usage: tests/cuda_instrumented.sh coverage|asan|tsan" >&2
    exit 2
    ;;
esac

compile() { # SOURCES FOLDER TARGET
    ${MAKE:-make} -s -j"$(nproc)" -f "$1/backends/cuda/images.mk" src="$1" tests="$top_srcdir/tests/cuda_host" \
        CXX="$compiler" folder="$2" HOST_FLAGS="$flags" HARNESS_FLAGS="$harness" "$3"
}
build() {
    rm -rf "$folder" && mkdir -p "$folder" && compile "$top_srcdir/src" "$folder" host && touch "$folder/stamp"
}
run() {
    CUDA_MODULES=$folder CUDA_PRELOAD=$preload CUDA_CASES=${CUDA_CASES-15} bash "$top_srcdir/tests/cuda_kernels.sh"
}
check 'the kernels build' build
check 'the kernels run' run

# ThreadSanitizer has to know what a fiber is: it sees a race within a block, and one between blocks.
race() { # PROGRAM ALGORITHM FILE EXPRESSION
    local spoiled=$work/spoiled
    rm -rf "$spoiled" && mkdir -p "$spoiled" && cp -r "$top_srcdir/src" "$top_srcdir/include" "$spoiled/" || return
    sed -i -e "$4" "$spoiled/src/backends/gpu/$3"
    ! cmp -s "$top_srcdir/src/backends/gpu/$3" "$spoiled/src/backends/gpu/$3" &&
        compile "$spoiled/src" "$spoiled" "$spoiled/$1.so" || return
    modules=$spoiled on_mock "$work/mock" '' "$top_builddir/tests/cuda_host/nearfield" run 'na2d w3' --backend cuda \
        --algo "$2" --q "$work/q.npy" --k "$work/q.npy" --v "$work/q.npy" --out "$work/out.npy"
    grep -q 'ThreadSanitizer: data race' "$work/said"
}
if [ "$mode" = tsan ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    export CUDA_PRELOAD=$preload
    . "$top_srcdir/tests/cuda_host/use.sh"
    "$top_builddir/tests/make_npy" "$work/q.npy" f4 C 1 1 9 11 2 8
    check 'a race within a block is seen' race r2-i0-o0-t32 portable gpu_tile.cl '/MY_X\] = top;/,/BARRIER/s/BARRIER();/;/'
    check 'a race between blocks is seen' race plain-i0-o0 naive gpu_naive.cl \
        '/ naive_forward(/,/count_rows/s/count_rows(numbers), .*/&\n    if (ITEM_INDEX == 0) *(GLOBAL REAL *)scratch = 1;/'
fi

measure() {
    gcovr --root "$top_srcdir" --filter "$top_srcdir/src/backends/(gpu|cuda)/" --print-summary --fail-under-line $least "$folder" \
        >"$folder/lines"
}
if [ "$mode" = coverage ]; then
    check "lines of the kernels, at least $least %" measure
    sed -n '/^-----/,$p' "$folder/lines"
fi
finish
