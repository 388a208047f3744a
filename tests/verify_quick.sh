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
    # Rows long enough for several lane blocks that are scored at once, alone, in classes and with grouped heads.
    NEARFIELD_ISA=$isa check "$isa, runs of lane blocks" $tool verify --backend cpu --algo stencil \
        'na1d f32 d24 300 w31' 'na1d bf16 h4/2 d16 400 w40 dil2' 'na1d f64 b2 d8 257 w17' 'na1d f16 d20 500 w100 c1'
    # Items whose last column tile nobody sees, taken by threads in another order than each one expects.
    NEARFIELD_ISA=$isa check "$isa, items out of turn" $tool verify --backend cpu --algo tile --threads 3 --seed 2078 \
        'na3d f64 h2/1 d96 8x10x8 w1x1x2 s1x1x2 c1x0x1 q0:0x0:0x1:7 k0:0x0:0x3:3 both'
done
finish
