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

build() {
    rm -rf "$folder" && mkdir -p "$folder" &&
        ${MAKE:-make} -s -j"$(nproc)" -f "$top_srcdir/src/backends/cuda/images.mk" src="$top_srcdir/src" \
            tests="$top_srcdir/tests/cuda_host" CXX="$compiler" folder="$folder" HOST_FLAGS="$flags" HARNESS_FLAGS="$harness" \
            host && touch "$folder/stamp"
}
run() {
    CUDA_MODULES=$folder CUDA_PRELOAD=$preload CUDA_CASES=${CUDA_CASES-5} bash "$top_srcdir/tests/cuda_kernels.sh"
}
check 'the kernels build' build
check 'the kernels run' run

measure() {
    gcovr --root "$top_srcdir" --filter '.*/src/backends/(gpu|cuda)/' --print-summary --fail-under-line $least "$folder" \
        >"$folder/lines"
}
if [ "$mode" = coverage ]; then
    check "lines of the kernels, at least $least %" measure
    sed -n '/^-----/,$p' "$folder/lines"
fi
finish
