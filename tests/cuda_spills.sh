#!/usr/bin/env bash
# spills.awk sees what ptxas -v says of registers kept in memory, and lets pass what a list allows. No nvcc is needed;
# cuda_images.sh judges what one has compiled.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cuda=$top_srcdir/src/backends/cuda

said() { # KERNEL GPU BYTES
    cat <<END
ptxas info    : Compiling entry function '$1' for '$2'
ptxas info    : Function properties for $1
    8 bytes stack frame, $3 bytes spill stores, $3 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers
END
}
judge() { # LIST
    printf '%s\n' "$1" >"$work/list"
    awk -v program=r2-i0-o0-t64 -f "$cuda/spills.awk" "$work/list" "$work/log" 2>"$work/said"
}
fails() { # WORDS LIST
    ! judge "$2" && grep -q -F -e "$1" "$work/said"
}

{ said forward sm_80 0 && said backward_dq sm_90 0; } >"$work/log"
check no_spills judge '# none'
said backward_dq sm_90 64 >>"$work/log"
check a_spill fails 'backward_dq for sm_90 spills 64 bytes' '# none'
check another_kernel fails 'backward_dq for sm_90' 'r2-.* forward sm_90 64 a reason'
check another_gpu fails 'backward_dq for sm_90' 'r2-.* backward_dq sm_80 64 a reason'
check another_program fails 'backward_dq for sm_90' 'r2 backward_dq sm_90 64 a reason'
check more_than_allowed fails 'backward_dq for sm_90' 'r2-.* backward_dq sm_90 60 a reason'
check allowed judge 'r2-.* backward_.* sm_.* 64 a reason'
check reason_missing fails 'line 1: gives no reason' 'r2-.* backward_dq sm_90 64'
said forward sm_80 0 >"$work/log"
echo 'ptxas info : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to ...' >>"$work/log"
check serialized fails 'serialized' '# none'
said forward sm_80 0 >"$work/log"
check committed_list awk -v program=none -f "$cuda/spills.awk" "$cuda/spills.txt" "$work/log"

# Where ptxas says something else, nothing was judged.
sed -i 's/Compiling entry function/Entry function/' "$work/log"
check no_kernel fails 'ptxas names no kernel' '# none'
: >"$work/log"
check no_output fails 'ptxas names no kernel' '# none'
{ said forward sm_80 0 | sed '/spill/d' && said backward_dq sm_80 0; } >"$work/log"
check first_kernel_not_judged fails 'does not say how many bytes forward for sm_80 spills' '# none'
{ said backward_dq sm_80 0 && said forward sm_90 0 | sed '/spill/d'; } >"$work/log"
check last_kernel_not_judged fails 'does not say how many bytes forward for sm_90 spills' '# none'
finish
