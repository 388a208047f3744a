#!/usr/bin/env bash
# The kernel text is OpenCL C 1.2 that asks a device for nothing optional but fp64, and that only where the problem is f64;
# and no place in a tensor, which takes 64 bits, is narrowed by the way. Told by clang, whose warnings are errors here.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
folder=$top_srcdir/src/backends/gpu
clang=$(command -v clang || command -v clang-14)
reads_opencl() { "${clang:-false}" -x cl -cl-std=CL1.2 -fsyntax-only -Xclang -finclude-default-header "$@"; }
if ! echo 'kernel void nothing(void) {}' | reads_opencl - >/dev/null 2>&1; then
    skip opencl_text 'there is no clang for OpenCL C'
    finish
fi

# Values of nf_dtype: f32, f64, bf16, f16.
compiles() { # IN_TYPE OUT_TYPE OPTIONS FILE...
    local types="-DIN_TYPE=$1 -DOUT_TYPE=$2" options=$3 extensions=-all
    shift 3
    [[ $types == *_TYPE=1* ]] && extensions+=,+cl_khr_fp64
    # Any device has vload_half; clang declares it only where there is this extension.
    [[ $types == *_TYPE=3* ]] && extensions+=,+cl_khr_fp16
    cat "$folder"/gpu_{words.cl,tables.h,common.cl} "${@/#/$folder/gpu_}" >"$work/text.cl"
    # shellcheck disable=SC2086
    reads_opencl -target spir64-unknown-unknown -Xclang -cl-ext=$extensions -Wall -Wextra -Wpedantic -Wconversion \
        -Wno-sign-conversion -Wno-unused -Wno-unused-parameter -Werror $types $options "$work/text.cl"
}
for rank in 1 4; do
    for types in '0 0' '1 1' '2 2' '2 0' '3 3' '3 0'; do
        # shellcheck disable=SC2086
        set -- $types
        check "lanes, rank $rank, types $types" compiles "$@" "-DRANK=$rank -DCOLUMNS=64 -DLANES=8 -DVECTORS=4" \
            lanes.cl lanes_backward.cl
        check "tile, rank $rank, types $types" compiles "$@" \
            "-DRANK=$rank -DCOLUMNS=64 -DROWS=64 -DITEMS_X=16 -DITEMS_Y=16 -DCHUNK=16 -DOUT_DIMS=64" \
            tile.cl tile_backward.cl
        check "unfused, rank $rank, types $types" compiles "$@" "-DRANK=$rank -DITEMS=64" unfused.cl
    done
done
for type in 0 1; do
    check "merge, type $type" compiles $type $type -DRANK=1 merge.cl
done
finish
