# What tests of OpenCL implementations share: a folder $work, fresh caches, how many cases, small problems, and a run that is
# repeated. Sourced after count.sh; finishes the test where this build has no opencl backend.
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

# tests/test_opencl on $NEARFIELD_DEVICE, where enough cases are asked for: it takes minutes on slow devices.
check_objects() { # NAME [COMMAND...]
    local name=$1
    shift
    if [ -z "${OPENCL_FEW_CASES-}" ]; then
        skip "$name" 'OPENCL_FEW_CASES asks for it'
    elif [ ! -x "$top_builddir/tests/test_opencl" ]; then
        skip "$name" 'there is no Check'
    else
        check "$name" "$@" "$top_builddir/tests/test_opencl"
    fi
}
