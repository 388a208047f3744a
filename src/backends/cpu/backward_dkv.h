/* The walk by key of backward: what a thread works with, and the step that backward_dkv.c repeats, queries meeting keys. */
#ifndef NF_CPU_BACKWARD_DKV_H
#define NF_CPU_BACKWARD_DKV_H

#include "backends/cpu/backward.h"
#include "backends/cpu/backward_keys.h"

/* Workspace of one thread. */
typedef struct dkv_scratch {
    const backward_call *call;
    cpu_item item;
    cpu_row_tile *tiles;
    cpu_span queries, next;                      /* the box at hand, and the one after it; maybe none */
    int64_t head, next_head;
    int64_t slot, next_slot;                     /* where they are loaded to; that of none is never kept */
    int64_t keys;                                /* of the item */
    bool keys_finite;
    void *k_transposed, *v_transposed;           /* lines */
    void *k, *k_straight;                        /* rows, and packed if the table packs pairs */
    void *dk, *dv;
    char *slots;                                 /* boxes of queries: those kept of a stream, and one more */
    bool *kept;                                  /* which of them are loaded */
    int64_t kept_stream;                         /* and of which batch and head; -1: none */
    void *q, *dout, *q_straight, *dout_straight; /* of the box at hand: rows, packed for pairs or to leave out NaN */
    void *lse, *delta;
    void *scores, *dscores, *dq;
    cpu_key_masks masks;
    uint32_t *mask;
    const void **rows;
} dkv_scratch;

void cpu_dkv_carve(const cpu_tile_plan *p, cpu_arena *arena, dkv_scratch *s);

/* Packs keys and values and clears their sums. */
void cpu_dkv_load_keys(dkv_scratch *s, const cpu_span *span, const cpu_view *keys, const cpu_view *values, int64_t batch,
                       int64_t kv_head);
/* Loads a box of queries of one head to s->slot, or finds it there. */
void cpu_dkv_load_queries(dkv_scratch *s, const cpu_span *span, int64_t batch, int64_t head);
/* The m queries that are loaded meet a run of keys, at whose first a mask starts. Returns whether it still does. */
bool cpu_dkv_meet_keys(dkv_scratch *s, int64_t m, cpu_key_run run, uint32_t *mask);

#endif
