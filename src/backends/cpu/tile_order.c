/* Turns of items at column tiles: row-major ranks in the box of segments that meet a tile. */
#include "backends/cpu/tile_order.h"

#include <sched.h>

#include "core/mem.h"

enum { SPINS = 2000 }; /* before giving the processor away: a waiting time of a few microseconds is usual */

static int32_t tile_of(const nf_work *work, int32_t axis, int32_t column)
{
    return column / work->spec.columns[axis];
}

static nf_status list_turns(cpu_order *order, const nf_context *context, int32_t axis)
{
    const nf_work *work = order->work;
    const nf_axis_table *table = &work->grid->axis[axis];
    int64_t *base = order->base[axis] = nf_alloc_array(context, (size_t)table->dilation, sizeof *base);
    if (!base)
        return NF_ERR_MEMORY;
    for (int64_t g = 0; g < table->dilation; g++) {
        const nf_axis_class c = nf_axis_table_class(table, g);
        base[g] = order->tiles[axis];
        order->tiles[axis] += tile_of(work, axis, nf_max32(c.rule->queries, c.rule->keys)) + 1;
    }
    cpu_turn *turns = order->turns[axis] = nf_alloc_array(context, (size_t)order->tiles[axis], sizeof *turns);
    if (!turns)
        return NF_ERR_MEMORY;
    for (int64_t i = 0; i < work->segment_count[axis]; i++) {
        const nf_segment *segment = &work->segments[axis][i];
        if (nf_interval_size(segment->hull) == 0)
            continue;
        const int32_t last = tile_of(work, axis, segment->hull.end - 1);
        for (int32_t t = tile_of(work, axis, segment->hull.begin); t <= last; t++) {
            cpu_turn *turn = &turns[base[segment->class_index] + t];
            if (turn->count++ == 0)
                turn->first = (int32_t)i;
        }
    }
    return NF_OK;
}

nf_status cpu_order_create(cpu_order *order, const nf_context *context, const nf_work *work)
{
    *order = (cpu_order){.work = work, .counters = 1};
    for (int32_t a = 0; a < work->grid->rank; a++) {
        const nf_status status = list_turns(order, context, a);
        if (status != NF_OK) {
            cpu_order_destroy(order, context);
            return status;
        }
        order->counters *= order->tiles[a];
    }
    return NF_OK;
}

void cpu_order_destroy(cpu_order *order, const nf_context *context)
{
    for (int32_t a = 0; a < NF_MAX_RANK; a++) {
        nf_release(context, order->base[a]);
        nf_release(context, order->turns[a]);
    }
    *order = (cpu_order){0};
}

int64_t cpu_order_turn(const cpu_order *order, const nf_work_item *item, int64_t index, const nf_box *columns,
                       int32_t *turn)
{
    const nf_work *work = order->work;
    int64_t segment[NF_MAX_RANK] = {0}, counter = 0, before = 0;
    for (int32_t a = work->grid->rank - 1; a >= 0; a--) {
        segment[a] = index % work->segment_count[a];
        index /= work->segment_count[a];
    }
    for (int32_t a = 0; a < work->grid->rank; a++) {
        const int64_t tile =
            order->base[a][item->segment[a].class_index] + tile_of(work, a, columns->axis[a].begin);
        const cpu_turn *along = &order->turns[a][tile];
        counter = counter * order->tiles[a] + tile;
        before = before * along->count + segment[a] - along->first;
    }
    *turn = (int32_t)before;
    return counter;
}

void cpu_order_wait(const _Atomic int32_t *counter, int32_t turn)
{
    for (int spins = 0; atomic_load_explicit(counter, memory_order_acquire) != turn; spins++)
        if (spins >= SPINS)
            sched_yield();
}

void cpu_order_done(_Atomic int32_t *counter, int32_t turn)
{
    atomic_store_explicit(counter, turn + 1, memory_order_release);
}
