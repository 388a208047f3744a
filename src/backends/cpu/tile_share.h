/* Hands the items of a walk to threads: a thread takes the items of one stream, a batch and head, in order, and when no
 * stream is left untouched helps with those of others. What a stream's items share stays near its thread. Items of a
 * stream are handed out in increasing order, so that one may wait for an earlier one. */
#ifndef NF_CPU_TILE_SHARE_H
#define NF_CPU_TILE_SHARE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cpu_share {
    _Atomic int64_t *begun; /* streams that a thread has begun with */
    _Atomic int64_t *taken; /* of each stream: items handed out; more than it has once it is exhausted */
    int64_t streams, items; /* items of one stream */
} cpu_share;

/* Memory for the counters of so many streams. */
size_t cpu_share_bytes(int64_t streams);
/* Nothing is handed out yet. */
cpu_share cpu_share_create(void *memory, int64_t streams, int64_t items);

/* The next item for a thread whose last one came from *stream (-1: it has had none); -1 if there is none left. Items of
 * a stream follow those of the one before. */
int64_t cpu_share_take(const cpu_share *share, int64_t *stream);
/* What the next item after one of that stream will probably be; -1: unknown or none. */
int64_t cpu_share_guess(const cpu_share *share, int64_t stream);

#endif
