#!/usr/bin/env bash
# Every kernel of the cuda backend, compiled for the host (tests/cuda_host) and driven by the backend itself, against the
# reference: in every order of a block's threads, with what is enqueued done late and early. Fuller: CUDA_CASES=1000.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$top_srcdir/tests/cuda_host/use.sh"
tool=$top_builddir/tests/cuda_host/nearfield
cases=${CUDA_CASES:-15}

runs() { # SETTINGS COMMAND...: it succeeds, and the mock has nothing to complain about
    on_mock "$work/mock" "$@" || { tail -n 20 "$work/said"; return 1; }
    sed -n 's/^kernel //p' "$books" >>"$work/kernels"
    books_balance
}

orders=(forward reverse random greedy greedy_reverse)
algorithms=(mma portable unfused naive)
for algo in "${algorithms[@]}"; do
    share=$cases
    case $algo in unfused | naive) share=$(((cases + 4) / 5)) ;; esac # slots take long
    verify() { # SETTINGS SEED
        runs "$1" "$tool" verify --backend cuda --algo "$algo" --cases "$share" --seed "$2"
    }
    check "${algo}_crosscheck" runs '' "$tool" crosscheck --backend cuda --algo "$algo"
    for order in "${!orders[@]}"; do
        check "${algo}_${orders[order]}_order" verify "order=$order" $((100 * order + 100))
    done
    check "${algo}_early" verify 'early=1' 600
    # With many multiprocessors the gradients of extra tokens are summed in parts.
    check "${algo}_many_units" verify 'units=132' 700
done
# Asynchronous copies within a kernel landed as late as its waits allow; now at once.
for algo in mma unfused; do
    share=$cases first=800
    [ "$algo" = mma ] || share=$(((cases + 4) / 5)) first=900
    for order in "${!orders[@]}"; do
        check "${algo}_${orders[order]}_order_copies_at_once" verify "order=$order;copies=1" $((100 * order + first))
    done
done

# What kernels of compute capability 9.0 use, in a kernel of the tests' own.
for order in "${!orders[@]}"; do
    for copies in 0 1; do
        check "warpgroup_${orders[order]}_order_copies_$copies" runs "order=$order;copies=$copies" \
            "$top_builddir/tests/cuda_warpgroup"
    done
done

# Products of warpgroups, where boxes can be copied: problems that are drawn rarely let them. Each has several row tiles,
# partial tiles; verify adds values that are not finite and that nobody sees, and takes long.
algo=wgmma
boxed=('na2d bf16 h4/2 d24/32 9x11 w5x3 s2x1 x3' 'na3d bf16 h3 d16 5x8x7 w3x5x3 dil1x1x2 x2' 'na1d f16 h2/1 d128/120 200 w90 x130'
    'na4d f16 b2 h1 d32 3x4x5x6 w2x3x3x3' 'na2d bf16 h1 d40/72 6x7 w3 c0x1 k1:5x0:7' 'na1d f16 d8 700 w200 dil3')
boxes() { # SETTINGS COMMAND PROBLEM...
    runs "$1" "$tool" "$2" --backend cuda --algo wgmma "${@:3}"
}
for order in "${!orders[@]}"; do
    check "wgmma_${orders[order]}_order" boxes "order=$order" crosscheck "${boxed[@]}"
    check "wgmma_${orders[order]}_order_copies_at_once" boxes "order=$order;copies=1" crosscheck "${boxed[@]}"
done
check wgmma_many_units boxes 'units=132' crosscheck 'na1d bf16 h2 d32 300 w9 x5'
kinds=("${boxed[0]} fwd" "${boxed[0]} bwd" 'na2d bf16 out=f32 d16 5x8 w3 dil1x2 fwd' 'na1d f16 d128 70 w40 x3 fwd')
[ "$cases" -le 15 ] || kinds+=("${boxed[@]/%/ both}")
check wgmma_all_data boxes 'order=2' verify "${kinds[@]}"
refuses() { # PROBLEM WORDS
    ! runs '' "$tool" plan "$1" --backend cuda --algo wgmma && grep -q -F -e "$2" "$work/said"
}
check wgmma_refuses_strides refuses 'na1d bf16 h2 d20 64 w9 fwd' 'k: strides[2] is 20, boxes are copied where it is a positive'
check wgmma_refuses_axes refuses 'na4d bf16 b2 h2 d32 3x4x5x6 w3 fwd' 'k: boxes have 5 coordinates'
check wgmma_refuses_dilation refuses 'na1d bf16 d32 200 w9 dil9 fwd' '9 apart: boxes have at most'
check wgmma_refuses_float_gradients refuses 'na1d bf16 out=f32 d32 64 w9 bwd' 'out_dtype f32: boxes of dout are copied'
older_gpu() {
    ! runs 'capability=80' "$tool" plan 'na1d bf16 d32 64 w9 fwd' --backend cuda --algo wgmma &&
        grep -q "the device's compute capability is not 9.0" "$work/said" &&
        runs 'capability=80' "$tool" verify --backend cuda 'na1d bf16 d32 64 w9 fwd'
}
check wgmma_on_an_older_gpu older_gpu

# Every program, whatever was drawn: each type, rank, tile and number of dimensions, with extra tokens. With one
# multiprocessor few rows are enough for large tiles. What crosscheck runs is both directions.
tiles=() slots=() scores=() matrices=() warpgroups=()
for type in f32 f64 bf16 f16 'bf16 out=f32' 'f16 out=f32'; do
    tiles+=("na1d $type d64 64 x2" "na1d $type d16 9 w5 x2" "na3d $type d64 4x4x4 x2" "na3d $type d16 2x3x3 w2 x2")
    slots+=("na2d $type h2/1 d8/12 6x7 w3 x2")
    scores+=("na1d $type h2/1 d260/3 5 w3 x2") # more dimensions than tensor cores take
done
for dims in 64 128; do
    scores+=("na1d f32 d$dims 9 w5 x2" "na1d bf16 d$dims 9 w5 x2" "na1d f16 d$dims 9 w5 x2")
done
scores+=('na1d bf16 d256 9 w5 x2' 'na1d f16 d256 9 w5 x2')
for dims in 32 64 128; do
    for type in bf16 f16; do
        matrices+=("na1d $type d$dims 70 w9 x2" "na1d $type d$dims 9 w5 x2")
        [ $dims -eq 32 ] || warpgroups+=("na1d $type d$dims 9 w5 x2")
    done
    matrices+=("na1d f32 d$dims 9 w5 x2")
done
matrices+=('na1d bf16 d256 9 w5 x2' 'na1d f16 d256 9 w5 x2')
every() { # ALGORITHM PROBLEM...
    runs 'units=1' "$tool" crosscheck --backend cuda --algo "$1" "${@:2}"
}
check portable_programs every portable "${tiles[@]}"
check unfused_programs every unfused "${scores[@]}"
check naive_programs every naive "${slots[@]}"
check mma_programs every mma "${matrices[@]}"
check wgmma_programs every wgmma "${warpgroups[@]}"
# Rows of f32 are 128 at a time where forward is alone.
check mma_f32_forward runs 'units=1' "$tool" bench --backend cuda --algo mma --repeats 1 'na1d f32 d32 100 w40 fwd' \
    'na1d f32 d64 100 w40 fwd'

# A program's own memory and streams.
interop=$top_builddir/tests/test_cuda
if [ -x "$interop" ]; then
    check interop runs 'devices=2' env CK_FORK=no "$interop"
    check interop_early runs 'devices=2;early=1' env CK_FORK=no "$interop"
else
    skip interop 'built without Check'
fi

# A block's order of threads changes no bit.
"$top_builddir/tests/make_npy" "$work/f32.npy" f4 C 1 1 9 11 2 8
"$top_builddir/tests/make_npy" "$work/bf16.npy" u2 C 1 1 9 11 2 8
attend() { # FOLDER TYPE BACKEND COMMAND...: the results that the backend has for the command to run
    local to=$work/$1 type=$2 backend=$3 x=$work/$2.npy
    shift 3
    # shellcheck disable=SC2086
    mkdir -p "$to" && "$@" "$tool" run "na2d $type w5x4 s2x1" --backend $backend --q "$x" --k "$x" --v "$x" --dout "$x" \
        --out "$to/out.npy" --dq "$to/dq.npy" --dk "$to/dk.npy" --dv "$to/dv.npy"
}
repeats() { # ALGORITHM TYPE
    attend first "$2" "cuda --algo $1" runs 'order=0' && attend second "$2" "cuda --algo $1" runs 'order=2;copies=1' &&
        diff -r "$work/first" "$work/second"
}
check mma_same_bits_in_any_order repeats mma bf16
check wgmma_same_bits_in_any_order repeats wgmma bf16
check unfused_bf16_same_bits_in_any_order repeats unfused bf16
check mma_f32_same_bits_in_any_order repeats mma f32
for algo in portable unfused naive; do
    check "${algo}_same_bits_in_any_order" repeats "$algo" f32
done

# What is not finite reaches all that see it and nothing else: verify tries that with keys and values, here it is the query
# and the gradient, too.
numbers=$((9 * 11 * 2 * 8)) # of a file
put() { # FILE SIZE BYTES: in place of one of its numbers, each of so many bytes
    printf "$3" | dd of="$1" bs=1 seek=$(($(wc -c <"$1") - (numbers - 50 * 8) * $2)) conv=notrunc 2>"$work/said"
}
cp "$work/f32.npy" "$work/large.npy"
put "$work/large.npy" 4 '\xff\xff\x7f\x7f' # the largest f32
put "$work/bf16.npy" 2 '\xc0\x7f'
put "$work/f32.npy" 4 '\x00\x00\xc0\x7f'
spoiled() { # FOLDER SIZE: which numbers of the results are not finite
    for file in out dq dk dv; do
        tail -c $((numbers * $2)) "$work/$1/$file.npy" | od -An -v -w$2 -t x$2 |
            sed 's/^ *[7f]f[89a-f][0-9a-f]*$/not finite/; t; s/.*/finite/'
    done
}
spreads_alike() { # ALGORITHM TYPE SIZE
    attend spoiled "$2" "cuda --algo $1" runs '' && attend truth "$2" reference env && spoiled truth "$3" >"$work/truth.txt" &&
        grep -q 'not finite' "$work/truth.txt" && spoiled spoiled "$3" | diff - "$work/truth.txt"
}
check mma_spreads_what_is_not_finite spreads_alike mma bf16 2
check wgmma_spreads_what_is_not_finite spreads_alike wgmma bf16 2
check mma_f32_spreads_what_is_not_finite spreads_alike mma f32 4
check unfused_spreads_what_is_not_finite spreads_alike unfused bf16 2
check unfused_f32_spreads_what_is_not_finite spreads_alike unfused f32 4

# What rounds to infinity as bf16, or is too large to be scaled, is finite as f32.
weigh_large() { # QUERY VALUE OUT BACKEND COMMAND...
    local large=$work/large.npy small=$work/small.npy out=$3 backend=$4
    local q=${!1} v=${!2}
    shift 4
    # shellcheck disable=SC2086
    "$@" "$tool" run 'na2d f32 w5x4 fwd' --backend $backend --q "$q" --k "$small" --v "$v" --out "$out"
}
takes() { # ALGORITHM QUERY VALUE: large or small
    weigh_large "$2" "$3" "$work/large_out.npy" "cuda --algo $1" runs '' &&
        weigh_large "$2" "$3" "$work/large_truth.npy" reference env &&
        "$top_builddir/tests/compare_npy" "$work/large_out.npy" "$work/large_truth.npy" 1e-6
}
"$top_builddir/tests/make_npy" "$work/small.npy" f4 C 1 1 9 11 2 8
for algo in mma unfused; do
    check "${algo}_f32_takes_the_largest_values" takes "$algo" small large
    check "${algo}_f32_takes_the_largest_queries" takes "$algo" large small
done

# Benchmarks go by the device's clock and its limits.
column() { # NAME: of the row that bench printed
    awk -F, -v name="$1" 'NR == 1 {for (i = 1; i <= NF; i++) if ($i == name) at = i} NR == 2 {print $at}' "$work/said"
}
bench() { # DTYPE BASIS [SETTINGS]
    runs "${3-}" "$tool" bench --backend cuda --no-verify --csv --repeats 1 "na1d $1 h1 d8 16 w3 fwd" &&
        [ "$(column clock)" = device ] && [ "$(column peak_basis)" = "$2" ] && awk -v p="$(column peak_gflops)" 'BEGIN {exit !(p > 0)}'
}
check bench_f32 bench f32 'f32 multiply-adds'
check bench_f64 bench f64 'f64 multiply-adds'
check bench_bf16 bench bf16 'wgmma bf16'
check bench_f16 bench f16 'wgmma f16'
check bench_bf16_on_an_older_gpu bench bf16 'mma.sync bf16' 'capability=80'
check bench_f16_on_an_older_gpu bench f16 'mma.sync f16' 'capability=80'

# Every kernel of every program has run: the mock lists those of what it has loaded. Merging is the program's only.
awk '{count[$1 " " $2] += $3} END {for (kernel in count) print kernel, count[kernel]}' "$work/kernels" | sort >"$work/counts"
while read -r program _; do
    if [[ $program = merge-* ]] && [ ! -x "$interop" ]; then
        skip "kernels_of_$program" 'built without Check'
        continue
    fi
    said=
    while read -r kernel launches; do
        check "$kernel of $program ran" test "$launches" -gt 0
        said+=" $kernel $launches"
    done < <(sed -n "s/^$program //p" "$work/counts")
    check "$program was loaded" test -n "$said"
    echo "$program:$said"
done < <(awk -f "$top_srcdir/src/backends/gpu/ahead.awk" "$top_srcdir/src/backends/gpu/gpu_ahead.h")
finish
