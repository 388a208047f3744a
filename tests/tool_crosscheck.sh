#!/usr/bin/env bash
# nearfield crosscheck: the matrix has a row per problem and a column per device, counts its cells, and what it refuses.
# That it notices wrong results is shown in opencl_faults.sh, on a device that computes nothing.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
problem='na2d bf16 h2 d8 9x11 w3 x1'

# The last run, its last line and its exit status.
crosscheck() {
    "$NEARFIELD" crosscheck "$@" >"$work/said" 2>&1
    status=$?
    last=$(tail -n 1 "$work/said")
}
said() { grep -q -e "$1" "$work/said" || { cat "$work/said"; return 1; }; }

crosscheck --backend cpu
check default_passes test $status -eq 0
problems=$(grep -c '^na[1-4]d ' "$work/said")
for rank in 1 2 3 4; do
    check "default_has_na${rank}d" said "^na${rank}d "
done
check default_counts test "$last" = "$problems passed, 0 failed, 0 skipped"
for word in f32 f64 bf16 f16 ' s[0-9]' ' dil[0-9]' ' c[01]' ' h[0-9]*/' ' x[0-9]' ' q[0-9]'; do
    check "default_has$word" said "^na.*$word"
done
crosscheck --backend reference
check reference_passes test "$last" = "$problems passed, 0 failed, 0 skipped"

NEARFIELD_DEVICE= OCL_ICD_VENDORS=$work crosscheck "$problem" 'na1d f32 d4 40 w5'
check all_pass test $status -eq 0
check cpu_is_a_device said '^ *[0-9]*  cpu: '
check reference_is_a_device said '^ *[0-9]*  reference: '
check absent_with_reason said '^   -  .*cuda is unavailable: '
check counts_cells test "$last" = '4 passed, 0 failed, 0 skipped'
columns() { awk '/^na2d bf16/ {if (NF != 7 + 2) exit 1; for (i = 8; i <= NF; i++) if ($i <= 0 || $i > 1) exit 1; n++} END {exit !n}' "$work/said"; }
check errors_are_fractions columns
check worst_row said '^worst  *[0-9.]*  *[0-9.]*$'

crosscheck --backend cpu --isa baseline,baseline "$problem"
check isa_devices test "$last" = '2 passed, 0 failed, 0 skipped'
check isa_names said '^   2  cpu: baseline$'
crosscheck --backend cpu --algo unfused "$problem" 'na1d f32 d4 40 w5'
check algo test "$last" = '2 passed, 0 failed, 0 skipped'
# Another seed, other numbers; the same seed, the same matrix.
crosscheck --backend cpu --seed 5 "$problem" && cp "$work/said" "$work/five"
crosscheck --backend cpu --seed 5 "$problem"
check seeded cmp "$work/said" "$work/five"
crosscheck --backend cpu --seed 6 "$problem"
check other_seed bash -c "! cmp -s '$work/said' '$work/five'"
crosscheck --backend cpu 'na1d f32 d16 40000 w129'
check large_problems_are_cut test "$last" = '1 passed, 0 failed, 0 skipped'

refuses() { # MESSAGE ARGUMENT...
    local message=$1
    shift
    crosscheck "$@"
    [ $status -eq 2 ] && said "$message"
}
check bad_problem refuses 'problem "na1d d8": axis 0: extent 0' --backend cpu 'na1d d8'
check bad_backend refuses '--backend nope: there is no such backend' --backend nope
check absent_backend refuses '--backend cuda: .*cuda is unavailable: ' --backend cuda
check bad_isa refuses "--isa nope" --backend cpu --isa nope
check algo_alone refuses '--algo tile: needs --backend' --algo tile
finish
