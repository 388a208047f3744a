#!/usr/bin/env bash
# A reduced sweep of nearfield verify: the reference, and the cpu backend on every instruction set, with one and two
# threads and with every algorithm. Fuller sweeps: VERIFY_CASES=2000.
. "$top_srcdir/tests/count.sh"
cases=${VERIFY_CASES:-80}
tool=$NEARFIELD

check reference $tool verify --backend reference --cases "$cases" --seed 11
available=$($tool info | sed -n 's/^ *instruction sets: //p')
for isa in baseline avx2 avx512 avx512bf16; do
    case $available in
    *"$isa (available)"* | *"$isa (in use)"*) ;;
    *)
        skip "$isa" "this machine or build has no $isa"
        continue
        ;;
    esac
    for threads in 1 2; do
        NEARFIELD_ISA=$isa check "$isa, $threads threads" \
            $tool verify --backend cpu --cases "$cases" --seed $((threads * 1000)) --threads $threads
    done
    for algo in stencil tile unfused naive; do
        NEARFIELD_ISA=$isa check "$isa, $algo" $tool verify --backend cpu --algo $algo --cases "$cases" --seed 5000
    done
done
finish
