#!/usr/bin/env bash
# What nvcc has made of the kernels: the library embeds it, none spills but those of spills.txt, and the programs for
# warpgroups hold products of warpgroups and copies of boxes, in PTX and, where it can be read, in machine code.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
text=$top_srcdir/src/backends/cuda
built=$top_builddir/src/backends/cuda

if [ -z "$NVCC" ]; then
    reason=$("$NEARFIELD" info | sed -n 's/^cuda: .*; unavailable: //p')
    for gate in images_embedded spills instructions_of_warpgroups; do
        skip "$gate" "nvcc has compiled nothing: $reason"
    done
    finish
fi
mapfile -t programs < <(sed -n 's|.*"}*, image_[0-9]*}, /\* \(.*\) \*/$|\1|p' "$built/cu_images.c")
check images_listed test "${#programs[@]}" -gt 0

# ---- The library -----------------------------------------------------------------------------------------------------
# Images begin with a number of their own, and follow each other in the order of the list.
embeds() { # LIBRARY
    local at found=0
    for at in $(LC_ALL=C grep -obUaF $'\x50\xed\x55\xba' "$1" | cut -d : -f 1); do
        image=$built/${programs[found]-}.fatbin
        [ -f "$image" ] && cmp -s -n "$(wc -c <"$image")" -i "$at:0" "$1" "$image" && found=$((found + 1))
    done
    echo "$found of ${#programs[@]} images are in $1"
    [ "$found" -eq "${#programs[@]}" ]
}
libraries=()
for library in "$top_builddir"/.libs/libnearfield.{so,a}; do
    [ ! -e "$library" ] || libraries+=("$library")
done
check library_built test "${#libraries[@]}" -gt 0
for library in "${libraries[@]}"; do
    check "images_embedded_in_${library##*/}" embeds "$library"
done

# ---- Spills ----------------------------------------------------------------------------------------------------------
spills_nothing() { # PROGRAM
    awk -v program="$1" -f "$text/spills.awk" "$text/spills.txt" "$built/$1.fatbin.log"
}
logs=("${programs[@]/%/.fatbin.log}")
kernels=$(cat "${logs[@]/#/$built/}" | grep -c 'Compiling entry function')
if [ "$kernels" -gt 0 ]; then
    for program in "${programs[@]}"; do
        check "spills_of_$program" spills_nothing "$program"
    done
    echo "$kernels kernels were judged, those for each GPU apart"
else
    skip spills 'built without --enable-maintainer-checks'
fi

# ---- Instructions ----------------------------------------------------------------------------------------------------
make_from_text() { # FILE
    ${MAKE:-make} -s -f "$text/images.mk" src="$top_srcdir/src" NVCC="$NVCC" folder="$work" "$work/$1"
}
# PTX, what cuobjdump prints and what nvdisasm prints name a kernel each in its own way.
count() { # FILE KERNEL INSTRUCTION
    awk -v kernel="$2" -v instruction="$3" '
        match($0, /(\.entry |^\.text\.|Function : )[A-Za-z_0-9]+/) {
            name = substr($0, RSTART, RLENGTH)
            sub(/.*[ .]/, "", name)
        }
        name == kernel && index($0, instruction) { count++ }
        END { print count + 0 }' "$1"
}
holds() { # FILE INSTRUCTION...: in each kernel of $program that is for warpgroups
    local kernels=wgmma_forward kernel instruction found
    [[ $program != *backward* ]] || kernels='wgmma_backward_dq wgmma_backward_dkv'
    for kernel in $kernels; do
        for instruction in "${@:2}"; do
            found=$(count "$1" "$kernel" "$instruction")
            check "${program}_${kernel}_$instruction" test "$found" -gt 0
            echo "$program $kernel: $found $instruction"
        done
    done
}
PATH=$PATH:${NVCC%/*}
read_machine_code() { # PROGRAM
    if command -v cuobjdump >/dev/null; then
        cuobjdump -sass "$built/$1.fatbin"
    else
        make_from_text "$1.cubin" && nvdisasm "$work/$1.cubin"
    fi >"$work/$1.sass"
}
mapfile -t programs < <(printf '%s\n' "${programs[@]}" | grep '^wgmma')
[ "${#programs[@]}" -gt 0 ] || skip instructions_of_warpgroups 'CUDA_ARCHS has no 90'
for program in "${programs[@]}"; do
    check "${program}_ptx" make_from_text "$program.ptx"
    holds "$work/$program.ptx" wgmma.mma_async cp.async.bulk.tensor
    if command -v cuobjdump >/dev/null || command -v nvdisasm >/dev/null; then
        check "${program}_machine_code" read_machine_code "$program"
        holds "$work/$program.sass" HGMMA UTMALDG
    else
        skip "${program}_machine_code" 'there is neither cuobjdump nor nvdisasm in PATH or beside nvcc'
    fi
done
finish
