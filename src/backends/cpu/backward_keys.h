/* Which keys of an item a box of queries sees, as lanes: a run that all its queries stay in, and for each query a mask. */
#ifndef NF_CPU_BACKWARD_KEYS_H
#define NF_CPU_BACKWARD_KEYS_H

#include "backends/cpu/tile.h"

/* Keys begin .. end - 1 of an item's, in the order of its walk; both even, or all of them. */
typedef struct cpu_key_run {
    int64_t begin, end; /* none: begin = end */
    bool whole;         /* every query sees every key of the run: no mask needed */
} cpu_key_run;

cpu_key_run cpu_find_key_run(const cpu_item *item, const nf_box *queries);

/* What masks are made of, kept from one box to the next: the keys that are seen on all axes but the leading
 * one. */
typedef struct cpu_key_masks {
    uint32_t *words; /* CPU_MASK_WORDS for each place on those axes */
    nf_box box;      /* of queries that it holds for */
    int64_t places;  /* 0: for none yet */
} cpu_key_masks;

/* One mask of CPU_MASK_WORDS per query of a box; bit i belongs to key first + i, first <= the begin of the box's run. */
void cpu_build_key_masks(cpu_key_masks *masks, const cpu_item *item, const nf_box *queries, int64_t first,
                         uint32_t *mask);

#endif
