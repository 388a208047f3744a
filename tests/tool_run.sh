#!/usr/bin/env bash
# nearfield run: forward and backward on files, the library's choice against the reference backend.
. "$top_srcdir/tests/count.sh"
make_npy=$top_builddir/tests/make_npy
compare_npy=$top_builddir/tests/compare_npy
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

# inputs TYPE ORDER Q_SHAPE K_SHAPE V_SHAPE: q.npy k.npy v.npy
inputs() {
    # shellcheck disable=SC2086
    "$make_npy" q.npy "$1" "$2" 1 $3 && "$make_npy" k.npy "$1" "$2" 2 $4 && "$make_npy" v.npy "$1" "$2" 3 $5
}

run() { # PREFIX PROBLEM OPTION...: outputs are PREFIX.NAME.npy
    local prefix=$1 problem=$2
    shift 2
    "$NEARFIELD" run "$problem" --q q.npy --k k.npy --v v.npy "$@" --out "$prefix.out.npy" --lse "$prefix.lse.npy"
}

run_backward() { # PREFIX PROBLEM OPTION...
    local prefix=$1 problem=$2
    shift 2
    run "$prefix" "$problem" --dout dout.npy "$@" --dq "$prefix.dq.npy" --dk "$prefix.dk.npy" --dv "$prefix.dv.npy"
}

same() { # LIMIT PREFIX PREFIX NAME...
    local limit=$1 a=$2 b=$3 name
    shift 3
    for name in "$@"; do
        "$compare_npy" "$a.$name.npy" "$b.$name.npy" "$limit" || { echo "in $name"; return 1; }
    done
}

forward() { # LIMIT PROBLEM OPTION...: against the reference
    local limit=$1 problem=$2
    shift 2
    rm -f ./?.*.npy
    run a "$problem" "$@" && run b "$problem" "$@" --backend reference && same "$limit" a b out lse
}

backward() { # LIMIT PROBLEM OPTION...
    local limit=$1 problem=$2
    shift 2
    rm -f ./?.*.npy
    run_backward a "$problem" "$@" && run_backward b "$problem" "$@" --backend reference &&
        same "$limit" a b out lse dq dk dv
}

# Ranks and element types, sizes from the files alone.
inputs f4 C '2 40 4 8' '2 40 2 8' '2 40 2 6'
"$make_npy" dout.npy f4 C 4 2 40 4 6
check rank_1_grouped_heads backward 1e-5 'na1d w7 s2'
inputs f4 C '1 9 11 2 16' '1 9 11 2 16' '1 9 11 2 16'
"$make_npy" dout.npy f4 C 4 1 9 11 2 16
check rank_2 backward 1e-5 'na2d w3x5 s1x2 dil2x1 c0x1'
check all_stated_and_equal backward 1e-5 'na2d f32 b1 h2 d16 9x11 w3x5 both'
inputs f8 C '1 5 6 7 1 3' '1 5 6 7 1 3' '1 5 6 7 1 3'
"$make_npy" dout.npy f8 C 4 1 5 6 7 1 3
check rank_3_f64 backward 1e-12 'na3d w3'
inputs f4 C '1 3 4 5 6 1 2' '1 3 4 5 6 1 2' '1 3 4 5 6 1 2'
"$make_npy" dout.npy f4 C 4 1 3 4 5 6 1 2
check rank_4 backward 1e-5 'na4d w2x3x2x3'
inputs f2 C '1 30 2 8' '1 30 2 8' '1 30 2 8'
"$make_npy" dout.npy f2 C 4 1 30 2 8
check f16 backward 1e-2 'na1d w5'
inputs u2 C '1 30 2 8' '1 30 2 8' '1 30 2 8'
"$make_npy" dout.npy u2 C 4 1 30 2 8
check bf16 backward 4e-2 'na1d bf16 w5'
"$make_npy" dout.npy f4 C 4 1 30 2 8
check bf16_out_f32 backward 4e-2 'na1d bf16 out=f32 w5'

# Order in the file, threads and the batch dimension change nothing.
both_orders() {
    rm -f ./?.*.npy
    inputs f4 C '2 9 11 2 16' '2 9 11 2 16' '2 9 11 2 16' && "$make_npy" dout.npy f4 C 4 2 9 11 2 16 &&
        run_backward a 'na2d w5x3' &&
        inputs f4 F '2 9 11 2 16' '2 9 11 2 16' '2 9 11 2 16' && "$make_npy" dout.npy f4 F 4 2 9 11 2 16 &&
        run_backward b 'na2d w5x3' && same 0 a b out lse dq dk dv
}
check fortran_order both_orders
one_and_two_threads() {
    run_backward a 'na2d w5x3' --threads 1 && run_backward b 'na2d w5x3' --threads 2 && same 0 a b out lse dq dk dv
}
check threads one_and_two_threads
inputs f4 C '1 21 2 8' '1 21 2 8' '1 21 2 8'
run a 'na1d w5'
inputs f4 C '21 2 8' '21 2 8' '1 21 2 8'
run b 'na1d w5'
check no_batch_same_values same 0 a b out lse
has_dimensions() { # FILE SHAPE
    head -c 128 "$1" | grep -a -F -q "'shape': $2"
}
check no_batch_in_no_batch_out has_dimensions b.out.npy '(21, 2, 8)'
check batch_in_batch_out has_dimensions a.out.npy '(1, 21, 2, 8)'
check lse_shape has_dimensions a.lse.npy '(1, 21, 2)'

# Extra tokens, and the gradient of lse.
inputs f8 C '2 12 4 8' '2 12 2 8' '2 12 2 5'
"$make_npy" dout.npy f8 C 4 2 12 4 5
"$make_npy" dlse.npy f8 C 5 2 12 4
"$make_npy" ek.npy f8 F 6 2 3 2 8
"$make_npy" ev.npy f8 C 7 2 3 2 5
check gradient_of_lse backward 1e-12 'na1d w5 scale=0.3' --dlse dlse.npy
check extra_tokens_forward forward 1e-12 'na1d w5' --extra-k ek.npy --extra-v ev.npy
extra_gradients() {
    local prefix
    for prefix in a b; do
        run_backward $prefix 'na1d w5 x3' --extra-k ek.npy --extra-v ev.npy --dextra-k $prefix.dek.npy \
            --dextra-v $prefix.dev.npy $1 || return 1
        set -- '--backend=reference'
    done
    same 1e-12 a b out lse dq dk dv dek dev
}
check extra_tokens_backward extra_gradients ''

# Queries and keys of different lengths, and ranges.
inputs f4 C '1 10 2 8' '1 25 2 8' '1 25 2 8'
"$make_npy" dout.npy f4 C 4 1 10 2 8
check cross_attention backward 1e-5 'na1d'
check cross_attention_causal backward 1e-5 'na1d c1'
check cross_attention_stated backward 1e-5 'na1d 10/25 w0'
check query_range backward 1e-5 'na1d 25 w9 c1 q15:10'
inputs f4 C '1 25 2 8' '1 10 2 8' '1 10 2 8'
"$make_npy" dout.npy f4 C 4 1 25 2 8
check key_range backward 1e-5 'na1d 25 w9 k4:10'

# Only what is asked for is written, and nothing else is left beside it.
mkdir only && cd only || exit 1
cp ../q.npy ../k.npy ../v.npy ../dout.npy .
"$NEARFIELD" run 'na1d 25 w9 k4:10' --q q.npy --k k.npy --v v.npy --dout dout.npy --dv dv.npy
check one_gradient test "$(echo *)" = 'dout.npy dv.npy k.npy q.npy v.npy'
check prints_nothing test -z "$("$NEARFIELD" run 'na1d 25 w9 k4:10' --q q.npy --k k.npy --v v.npy --out o.npy 2>&1)"
finish
