#!/usr/bin/env bash
# The opencl backend on the implementations that need no GPU: PoCL, Mesa's rusticl on llvmpipe, and Oclgrind, which also
# looks for races, bounds and divergent barriers. PoCL compiles for several seconds per problem, so the cases are few;
# fuller: OPENCL_CASES=1000 OPENCL_FEW_CASES=20.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cases=${OPENCL_CASES:-8}
few=${OPENCL_FEW_CASES:-3}
# Nothing is left in the user's folders, and nothing found there is believed.
# Drivers leak; what the backend leaves to them is counted in opencl_faults.sh.
export ASAN_OPTIONS=detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}
export NEARFIELD_CACHE_DIR=$work/cache POCL_CACHE_DIR=$work/pocl MESA_SHADER_CACHE_DIR=$work/mesa
unset NEARFIELD_BACKEND NEARFIELD_DEVICE

# Small enough for a simulator; every rank and type, extra tokens, grouped heads, ranges, cross attention.
tiny=('na1d f32 h2 d5 19 w4 s2 x1' 'na1d bf16 h4/2 d8/3 12 w5 c1' 'na1d f32 d4 5/9 c1' 'na2d f16 d6 4x5 w3 dil1'
    'na2d f32 b2 d3/4 5x4 w3x2 s2x1 c0x1 q1:3x0:4 k0:4x1:3' 'na3d f32 d4 3x2x4 w2x2x3' 'na4d f32 d2 2x3x2x2 w2')

if "$NEARFIELD" info | grep -q '^opencl: .*disabled at build time'; then
    skip opencl 'this build has no opencl backend'
    finish
fi

has_device() { # PART OF A NAME
    NEARFIELD_DEVICE=$1 "$NEARFIELD" plan 'na1d d8 16 w3' --backend opencl >"$work/said" 2>&1
}

# Forward and backward twice in two processes: the same bits.
"$top_builddir/tests/make_npy" "$work/q.npy" f4 C 1 1 9 11 2 8
attend() { # FOLDER OPTION...
    local folder=$1
    shift
    mkdir -p "$folder" && "$NEARFIELD" run 'na2d w5x4 s2x1' --backend opencl --q "$work/q.npy" --k "$work/q.npy" \
        --v "$work/q.npy" --dout "$work/q.npy" --out "$folder/out.npy" --dq "$folder/dq.npy" --dk "$folder/dk.npy" \
        --dv "$folder/dv.npy" "$@"
}
repeats() { # OPTION...
    rm -rf "$work/first" "$work/second"
    attend "$work/first" "$@" && attend "$work/second" "$@" && diff -r "$work/first" "$work/second"
}

# ---- PoCL ------------------------------------------------------------------------------------------------------------
if has_device 'Portable Computing Language'; then
    export NEARFIELD_DEVICE='Portable Computing Language'
    check pocl_crosscheck "$NEARFIELD" crosscheck --backend opencl --device "$NEARFIELD_DEVICE"
    check pocl "$NEARFIELD" verify --backend opencl --cases "$cases" --seed 300
    check pocl_tile "$NEARFIELD" verify --backend opencl --algo tile --cases "$few" --seed 700
    check pocl_repeats repeats
    check pocl_tile_repeats repeats --algo tile
    unset NEARFIELD_DEVICE
else
    skip pocl "PoCL has no device here: $(tail -n 1 "$work/said")"
fi

# ---- rusticl ---------------------------------------------------------------------------------------------------------
export RUSTICL_ENABLE=llvmpipe
if has_device llvmpipe; then
    export NEARFIELD_DEVICE=llvmpipe
    check rusticl "$NEARFIELD" verify --backend opencl --cases "$few" --seed 904
    check rusticl_repeats repeats
    unset NEARFIELD_DEVICE
else
    skip rusticl "rusticl has no device here: $(tail -n 1 "$work/said")"
fi

# ---- Intel's CPU runtime ---------------------------------------------------------------------------------------------
# From PyPI: pip install intel-opencl-rt intel-cmplr-lib-rt. INTEL_OPENCL names the folder of its libraries.
intel_driver=${INTEL_OPENCL-}/libintelocl.so
on_intel() {
    OCL_ICD_VENDORS=$intel_driver LD_LIBRARY_PATH=$INTEL_OPENCL${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$@"
}
if [ -e "$intel_driver" ] && on_intel has_device Intel; then
    check intel on_intel "$NEARFIELD" verify --backend opencl --cases "$few" --seed 1300
    check intel_tile on_intel "$NEARFIELD" verify --backend opencl --algo tile --cases "$few" --seed 1500
    check intel_repeats on_intel repeats
else
    skip intel 'INTEL_OPENCL names no folder with libintelocl.so'
fi

# ---- All that this machine has ---------------------------------------------------------------------------------------
crosschecks() { # DEVICES PROBLEM...: at least so many of OpenCL, and the host's own, all right
    local devices=$1
    shift
    "$NEARFIELD" crosscheck "$@" >"$work/matrix" || { cat "$work/matrix"; return 1; }
    [ "$(grep -c '^ *[0-9]*  opencl: ' "$work/matrix")" -ge "$devices" ] &&
        grep -q '^ *[0-9]*  cpu: ' "$work/matrix" && grep -q '^ *[0-9]*  reference: ' "$work/matrix"
}
if [ "$(NEARFIELD_DEVICE=none "$NEARFIELD" plan 'na1d d8 16 w3' --backend opencl 2>&1 | grep -o ', [0-9]' | wc -l)" -gt 0 ]; then
    check crosscheck_two_devices crosschecks 2 "${tiny[@]}"
else
    skip crosscheck_two_devices 'there are not two OpenCL devices'
fi
unset RUSTICL_ENABLE

# ---- Oclgrind --------------------------------------------------------------------------------------------------------
# It comes as a driver of its own; its log, not the exit status, tells what it found.
oclgrind_driver=$(find /usr/lib /usr/local/lib -name 'liboclgrind-rt-icd.so' 2>/dev/null | head -n 1)
on_oclgrind() { # COMMAND...
    rm -f "$work/oclgrind"
    OCL_ICD_VENDORS=$oclgrind_driver OCLGRIND_DATA_RACES=1 OCLGRIND_UNIFORM_WRITES=1 OCLGRIND_CHECK_API=1 \
        OCLGRIND_LOG=$work/oclgrind "$@" || return
    if [ -s "$work/oclgrind" ]; then
        head -n 40 "$work/oclgrind"
        return 1
    fi
}
if [ -n "$oclgrind_driver" ] && OCL_ICD_VENDORS=$oclgrind_driver has_device oclgrind; then
    for algo in lanes tile; do
        for problem in "${tiny[@]}"; do
            check "oclgrind, $algo, $problem" on_oclgrind "$NEARFIELD" crosscheck --backend opencl --algo $algo "$problem"
        done
    done
    # It takes minutes for a problem of verify.
    if [ -n "${OPENCL_FEW_CASES-}" ]; then
        check oclgrind on_oclgrind "$NEARFIELD" verify --backend opencl --cases "$few" --seed 1100
    else
        skip oclgrind_verify 'OPENCL_FEW_CASES asks for it'
    fi
else
    skip oclgrind 'Oclgrind is not installed as an OpenCL driver'
fi
finish
