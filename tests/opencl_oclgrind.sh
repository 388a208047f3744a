#!/usr/bin/env bash
# The opencl backend on Oclgrind, a simulator that looks for races, bounds and divergent barriers.
. "$top_srcdir/tests/count.sh"
. "$top_srcdir/tests/opencl_use.sh"

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
    for algo in lanes tile unfused; do
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
    check_objects oclgrind_objects on_oclgrind
else
    skip oclgrind 'Oclgrind is not installed as an OpenCL driver'
fi
finish
