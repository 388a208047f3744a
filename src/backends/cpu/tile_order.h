/* Sums that many work items add to, in a fixed order: dq in five-product backward. Items of a walk with aligned column
 * tiles meet the same tiles; an item adds to a tile when all items before it that meet the tile have. Threads take the
 * items of a batch and head in increasing order (tile_share.h), so the item waited for is always running or done, and the
 * sum does not depend on the number of threads. */
#ifndef NF_CPU_TILE_ORDER_H
#define NF_CPU_TILE_ORDER_H

#include <stdatomic.h>

#include "core/work.h"

/* The segments of one axis that meet a column tile: neighbors. */
typedef struct cpu_turn {
    int32_t first, count;
} cpu_turn;

typedef struct cpu_order {
    const nf_work *work;
    int64_t *base[NF_MAX_RANK];  /* per class of an axis: its first tile */
    cpu_turn *turns[NF_MAX_RANK]; /* per tile of an axis */
    int64_t tiles[NF_MAX_RANK];  /* of an axis, over all classes */
    int64_t counters;            /* product of tiles: counters of one sum */
} cpu_order;

nf_status cpu_order_create(cpu_order *order, const nf_context *context, const nf_work *work);
void cpu_order_destroy(cpu_order *order, const nf_context *context);

/* Which counter belongs to a column tile of item number `index`, and how many items come before this one there. */
int64_t cpu_order_turn(const cpu_order *order, const nf_work_item *item, int64_t index, const nf_box *columns,
                       int32_t *turn);

void cpu_order_wait(const _Atomic int32_t *counter, int32_t turn);
void cpu_order_done(_Atomic int32_t *counter, int32_t turn);

#endif
