#!/usr/bin/env bash
# The opencl backend on CPU runtimes, which need no GPU: PoCL, and Intel's where there is one. Others have scripts of their
# own: opencl_rusticl.sh, opencl_oclgrind.sh. PoCL compiles for several seconds per problem, so the cases are few; fuller:
# OPENCL_CASES=1000 OPENCL_FEW_CASES=20.
. "$top_srcdir/tests/count.sh"
. "$top_srcdir/tests/opencl_use.sh"

# ---- PoCL ------------------------------------------------------------------------------------------------------------
if has_device 'Portable Computing Language'; then
    export NEARFIELD_DEVICE='Portable Computing Language'
    check pocl_crosscheck "$NEARFIELD" crosscheck --backend opencl --device "$NEARFIELD_DEVICE"
    check pocl "$NEARFIELD" verify --backend opencl --cases "$cases" --seed 300
    check pocl_tile "$NEARFIELD" verify --backend opencl --algo tile --cases "$few" --seed 700
    check pocl_unfused "$NEARFIELD" verify --backend opencl --algo unfused --cases "$few" --seed 800
    check pocl_repeats repeats
    check pocl_tile_repeats repeats --algo tile
    check pocl_unfused_repeats repeats --algo unfused
    unset NEARFIELD_DEVICE
else
    skip pocl "PoCL has no device here: $(tail -n 1 "$work/said")"
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
    check_objects intel_objects on_intel
else
    skip intel 'INTEL_OPENCL names no folder with libintelocl.so'
fi
finish
