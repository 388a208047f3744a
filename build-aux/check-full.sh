# The long part of check.sh --full, which sources it.
clang="CC=clang-14 CXX=clang++-14"

build_and_test maintainer CC=gcc --enable-maintainer-checks NVCC="${nvcc:-no}"
case $nvcc in
'') skip 'CUDA kernels by nvcc' 'there is no nvcc in PATH or /usr/local/cuda/bin' ;;
no) skip 'CUDA kernels by nvcc' 'disabled by NVCC=no' ;;
esac
build_and_test clang $clang --enable-maintainer-checks
build_and_test minimal CC=gcc --disable-openmp --without-hwloc --without-libpng --without-libjpeg --without-libnifti2
build_and_test asan CC=gcc CFLAGS="-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined"

# libomp tells ThreadSanitizer of its synchronisation through libarcher.
tsan_test() {
    export TSAN_OPTIONS="ignore_noninstrumented_modules=1 $TSAN_OPTIONS"
    export OMP_TOOL_LIBRARIES=/usr/lib/llvm-14/lib/libarcher.so
    build_and_test tsan $clang CFLAGS="-g -O1 -fsanitize=thread"
    unset OMP_TOOL_LIBRARIES TSAN_OPTIONS
}
TSAN_OPTIONS=${TSAN_OPTIONS-}
tsan_test

# ---- Every backend and instruction set: 2000 problems each ------------------------------------------------------------
step 'verify reference' build/gcc/nearfield verify --backend reference --cases 2000
for isa in baseline avx2 avx512 avx512bf16; do
    if NEARFIELD_ISA=$isa build/gcc/nearfield plan 'na1d d8 16 w3' --backend cpu 2>/dev/null | grep -qw "$isa"; then
        for threads in 1 2; do
            step "verify cpu, $isa, $threads threads" env NEARFIELD_ISA=$isa NEARFIELD_NUM_THREADS=$threads \
                build/gcc/nearfield verify --backend cpu --cases 2000
        done
        for algo in stencil tile unfused naive; do
            step "verify cpu, $isa, $algo" env NEARFIELD_ISA=$isa \
                build/gcc/nearfield verify --backend cpu --algo $algo --cases 2000
        done
    else
        skip "verify cpu, $isa" "this machine or build does not have it"
    fi
done

# ---- Every OpenCL implementation ---------------------------------------------------------------------------------------
# Intel's comes from PyPI only; its own loader would hide the system's.
intel=build/intel
if [ ! -e $intel/lib/libintelocl.so ]; then
    python3 -m venv $intel && $intel/bin/pip -q install intel-opencl-rt intel-cmplr-lib-rt && rm -f $intel/lib/libOpenCL.so*
fi
on_opencl() { # SCRIPT: with more cases than make check draws
    env top_srcdir="$PWD" top_builddir="$PWD/build/gcc" NEARFIELD="$PWD/build/gcc/nearfield" \
        INTEL_OPENCL="$PWD/$intel/lib" OPENCL_CASES=1000 OPENCL_FEW_CASES=20 CK_TIMEOUT_MULTIPLIER=10 "tests/$1"
}
step 'OpenCL: PoCL, Intel' on_opencl opencl_devices.sh
step 'OpenCL: rusticl' on_opencl opencl_rusticl.sh
step 'OpenCL: Oclgrind' on_opencl opencl_oclgrind.sh

# ---- CUDA kernels on the host ---------------------------------------------------------------------------------------
step 'CUDA kernels' env top_srcdir="$PWD" top_builddir="$PWD/build/gcc" NEARFIELD="$PWD/build/gcc/nearfield" \
    CUDA_CASES=1000 tests/cuda_kernels.sh
step 'CUDA mutants' env top_srcdir="$PWD" top_builddir="$PWD/build/gcc" NEARFIELD="$PWD/build/gcc/nearfield" \
    CXX=g++ CUDA_MUTANTS=all CUDA_ORDERS=all tests/cuda_mutants.sh
for mode in coverage asan tsan; do
    step "CUDA kernels, $mode" env top_srcdir="$PWD" top_builddir="$PWD/build/gcc" NEARFIELD="$PWD/build/gcc/nearfield" \
        CXX=g++ tests/cuda_instrumented.sh $mode
done

# ---- Fuzzing: ten minutes in all --------------------------------------------------------------------------------------
fuzz_flags="-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined"
fuzz_seconds=300

fuzz() { # TARGET
    local corpus=build/fuzz/corpus-$1
    mkdir -p "$corpus" &&
        clang-14 $fuzz_flags -fsanitize=fuzzer -Iinclude "tests/fuzz/fuzz_$1.c" -o "build/fuzz/fuzz_$1" \
            build/fuzz/.libs/libnearfield-tool.a build/fuzz/.libs/libnearfield.a -fopenmp -lhwloc -lm &&
        "build/fuzz/fuzz_$1" -max_total_time=$fuzz_seconds -print_final_stats=1 -artifact_prefix=build/fuzz/ \
            "$corpus" "tests/fuzz/corpus/$1" 2>build/fuzz/fuzz_$1.log
    local status=$?
    tail -n 12 "build/fuzz/fuzz_$1.log"
    return $status
}
step 'build for fuzzing' build fuzz $clang CFLAGS="$fuzz_flags -fsanitize=fuzzer-no-link"
step 'fuzz problem strings' fuzz problem
step 'fuzz npy files' fuzz npy

# ---- What we ship, and another machine --------------------------------------------------------------------------------
step 'make distcheck' make -C build/gcc distcheck

# Static, so that an emulator needs no foreign libraries.
cross_build() {
    build aarch64 --host=aarch64-linux-gnu --disable-shared --without-hwloc --without-check --without-libpng \
        --without-libjpeg --without-libnifti2 &&
        rm -f build/aarch64/nearfield &&
        make -C build/aarch64 nearfield tests/fuzz/replay_problem tests/fuzz/replay_npy AM_LDFLAGS=-all-static
}
step 'aarch64 build' cross_build
if command -v qemu-aarch64-static >/dev/null; then
    step 'aarch64 replay of problem strings' qemu-aarch64-static build/aarch64/tests/fuzz/replay_problem
    step 'aarch64 replay of npy files' qemu-aarch64-static build/aarch64/tests/fuzz/replay_npy
    step 'aarch64 verify' env NEARFIELD_NUM_THREADS=2 qemu-aarch64-static build/aarch64/nearfield verify \
        --backend cpu --cases 200
else
    skip 'aarch64 verify' 'there is no qemu-aarch64-static'
fi
