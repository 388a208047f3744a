#!/usr/bin/env bash
# A reduced sweep of nearfield verify: the reference, and the cpu backend on every instruction set, with one and two
# threads and with every algorithm. Fuller sweeps: VERIFY_CASES=2000.
. "$top_srcdir/tests/count.sh"
cases=${VERIFY_CASES:-80}
tool=$NEARFIELD
mixed=('na2d f32 h8/2 d32 14x14 w7 dil2 both' 'na2d f32 h2 d16 20x20 w13 both' 'na1d bf16 h2 d32 300 w101 both'
    'na2d f32 h8 d32 14x14 w7 dil2 both' 'na1d f32 h2 d32/40 300 w101 c1 both'
    'na2d f16 h4 d16 20x20 w13 q2:7x0:20 both')

# Whether any of the problems is run by one algorithm forward and by another backward.
any_mixed() {
    local problem
    for problem; do
        ! $tool plan "$problem" | grep -q '^chosen: cpu .* for bwd' || return 0
    done
    return 1
}

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
    # Directions that go to different algorithms.
    NEARFIELD_ISA=$isa check "$isa, mixed" any_mixed "${mixed[@]}"
    for threads in 1 3; do
        NEARFIELD_ISA=$isa check "$isa, mixed, $threads threads" \
            $tool verify --backend cpu --threads $threads "${mixed[@]}"
    done
    # Rows long enough for several lane blocks that are scored at once, alone, in classes and with grouped heads.
    NEARFIELD_ISA=$isa check "$isa, runs of lane blocks" $tool verify --backend cpu --algo stencil \
        'na1d f32 d24 300 w31' 'na1d bf16 h4/2 d16 400 w40 dil2' 'na1d f64 b2 d8 257 w17' 'na1d f16 d20 500 w100 c1'
    # Backward whose lines are cut for the threads at hand.
    NEARFIELD_ISA=$isa check "$isa, lines cut for threads" $tool verify --backend cpu --algo stencil \
        'na2d f32 h1 d8 24x20 w11 both'
    # Items whose last column tile nobody sees, taken by threads in another order than each one expects.
    NEARFIELD_ISA=$isa check "$isa, items out of turn" $tool verify --backend cpu --algo tile --threads 3 --seed 2078 \
        'na3d f64 h2/1 d96 8x10x8 w1x1x2 s1x1x2 c1x0x1 q0:0x0:0x1:7 k0:0x0:0x3:3 both'
    # One key outweighs all others: gradients cancel so far that a truth in double would be off itself.
    NEARFIELD_ISA=$isa check "$isa, cancelling gradients" $tool verify --backend cpu --threads 1 --seed 11443 \
        'na1d f64 b1 h1 d6/44 95/1363 w0 c1 k467:507 both'
done
finish
