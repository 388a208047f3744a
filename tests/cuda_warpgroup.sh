#!/usr/bin/env bash
# What tests/cuda_host makes of barriers of phases, copies of boxes and products of warpgroups notices when a kernel leaves
# something out, in every order of a block's threads. cuda_kernels.sh runs the kernel as it is.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$top_srcdir/tests/cuda_host/use.sh"

notices() { # PART COPIES WORDS: what the kernel of warpgroup.cu leaves out, and what is said then
    for order in 0 1 2 3 4; do
        ! on_mock "$work/mock" "order=$order;copies=$2" "$top_builddir/tests/cuda_warpgroup" "$1" &&
            grep -q "$3" "$work/said" || { cat "$work/said"; return 1; }
    done
}
late=0 early=1
check wait_for_products notices 1 $late '^wrong'
check wait_for_a_slot notices 2 $late 'more arrive at a barrier than it awaits'
check wait_for_a_slot_early notices 2 $early 'wait for each other'
check slot_returned_early notices 3 $late '^wrong'
check arrival_of_bytes notices 4 $late 'wait for each other'
check arrival_of_bytes_early notices 4 $early 'wait for each other'
check expected_bytes notices 5 $late 'before its boxes have landed'
check expected_bytes_early notices 5 $early 'more bytes than it expects'
check wait_for_bytes notices 6 $late 'more arrive at a barrier than it awaits'
check begin_of_products notices 7 $late 'without cu_wgmma_begin'
check barrier_made_known notices 8 $late 'before all know that it is made'
check barrier_of_the_block notices 9 $late 'used by others before\|used before it is made'
check last_wait notices 10 $late 'before its products'
check last_wait_early notices 10 $early 'before its products'
check arrival_of_a_thread notices 11 $late 'wait for each other'
check count_of_threads notices 12 $late 'some as so many, some as others'
check alignment notices 13 $late 'not aligned'
check fence notices 14 $late 'did not fence'
check fence_early notices 14 $early 'did not fence'
finish
