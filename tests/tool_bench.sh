#!/usr/bin/env bash
# nearfield bench: what it prints has the right columns, and a wrong result is reported before it is timed.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
small='na2d f32 h2 d8 9x11 w3 both'

"$NEARFIELD" bench --csv --repeats 1 --threads 1 "$small" 'na1d f64 d4 40 w5' >rows.csv
check csv_exits_0 test $? -eq 0
check csv_rows test "$(wc -l <rows.csv)" -eq 4
check csv_columns test "$(awk -F, '{print NF}' rows.csv | sort -u)" = 32

column() { # NAME: its values, one a line
    awk -F, -v name="$1" 'NR == 1 {for (i = 1; i <= NF; i++) if ($i == name) c = i; next} {print $c}' rows.csv
}
all() { # NAME CONDITION on x
    column "$1" | awk "{x = \$1; n++; if (!($2)) {print \"$1 is \" x; bad = 1}} END {exit bad || !n}"
}
check directions test "$(column direction | tr '\n' ' ')" = 'fwd bwd fwd '
check problem_is_canonical test "$(column problem | head -1)" = 'na2d f32 b1 h2 d8 9x11 w3 both'
check checked_by_reference test "$(column checked_by | sort -u)" = reference
check threads all threads 'x == 1'
check samples all samples 'x >= 1'
check median_positive all median_s 'x > 0'
check rate_positive all gflops 'x > 0'
check computed_at_least_useful all computed_per_useful 'x >= 1'
check below_peak all peak_fraction 'x > 0 && x < 1.05'
check peak_plausible all peak_gflops 'x > 0.1'
check bandwidth_plausible all bandwidth_gbs 'x > 0.1'
check floor_positive all floor_s 'x > 0'
check plan_again all plan_s 'x > 0 && x < 1'
check stream_below_floor awk -F, 'NR > 1 && $29 > $28 * 1.001 {exit 1}' rows.csv
check errors_within_limits awk -F, 'NR > 1 && $9 > $10 {exit 1}' rows.csv
check library_counter_covers_plan awk -F, 'NR > 1 && $25 < $24 {exit 1}' rows.csv

says() { # PATTERN ARGUMENT...
    local pattern=$1
    shift
    "$NEARFIELD" bench --repeats 1 --threads 1 "$@" >text && cat text && grep -q -e "$pattern" text
}
check text_verified says 'verified by reference: .* off by .*, limit' "$small"
check text_rate grep -q 'fwd .* ms (.* GFLOP/s, .* % of the .* peak' text
check text_memory grep -q 'plan .* MiB, workspace .* MiB, library peak .* MiB, process grew' text
check sampled says 'verified by samples' 'na1d f32 d32 4096 w2048 c1 both'
check sampled_cross says 'verified by samples' 'na1d f32 d64 2048/4096 c1'
check sampled_extra says 'verified by samples' 'na2d f32 d64 h2/1 64x64 w33 x5 s2 dil1 both'
check backward_alone says '^  bwd .* ms' 'na2d f32 h2 d8 9x11 w3 bwd'
check backward_alone_sampled says 'verified by samples' 'na1d f32 d32 4096 w2048 c1 bwd'
check unverified says 'not verified' --no-verify "$small"
check reference_backend says 'reference/naive' --backend reference "$small"
check every_algorithm says 'cpu/' --algo all --no-verify "$small"
"$NEARFIELD" bench --csv --repeats 1 --interleave --threads 1,2 --algo auto,tile "$small" 'na1d f64 d4 40 w5' >rows.csv
check interleaved_rows test "$(wc -l <rows.csv)" -eq 13
check interleaved_threads test "$(column threads | tr '\n' ' ')" = '1 1 1 1 2 2 2 2 1 1 2 2 '
check interleaved_algorithms test "$(column algo | sed -n '3p;4p;7p;8p' | sort -u)" = tile
# Two runs of one seed judge the same numbers.
says_error() { says "verified" "$@" && grep -o 'off by [^,]*' text; }
check seeded test "$(says_error --seed 5 "$small" | tail -1)" = "$(says_error --seed 5 "$small" | tail -1)"

# Memory beyond inputs and outputs stays below 16 MiB per thread, by both counts.
"$NEARFIELD" bench --csv --no-verify --repeats 1 --threads 1 'na1d f32 b1 h1 d64 131072 w257' >rows.csv
check long_sequence_library all library_peak_bytes 'x > 0 && x < 16 * 1048576'
check long_sequence_process all process_growth_bytes 'x < 16 * 1048576'
check counts_agree awk -F, 'NR > 1 && ($26 > $25 + 4194304) {exit 1}' rows.csv
finish
