#!/usr/bin/env bash
# The opencl backend on Mesa's rusticl on llvmpipe, and on all devices of this machine side by side.
. "$top_srcdir/tests/count.sh"
. "$top_srcdir/tests/opencl_use.sh"

export RUSTICL_ENABLE=llvmpipe
if has_device llvmpipe; then
    export NEARFIELD_DEVICE=llvmpipe
    check rusticl "$NEARFIELD" verify --backend opencl --cases "$few" --seed 904
    check rusticl_unfused "$NEARFIELD" crosscheck --backend opencl --device llvmpipe --algo unfused "${tiny[@]:0:3}"
    check rusticl_repeats repeats
    check_objects rusticl_objects
    unset NEARFIELD_DEVICE
else
    skip rusticl "rusticl has no device here: $(tail -n 1 "$work/said")"
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
finish
