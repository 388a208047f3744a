/* Who writes what in the stencil's backward: queries and keys cut into shares, so that most pairs have both in one. Such a
 * pair takes five products; a pair whose key lies in another share is met once for dq and once for dk and dv, seven. No sum
 * is shared between items, so results do not depend on the number of threads. */
#include "backends/cpu/stencil.h"
#include "core/mem.h"

/* The hull of what positions first .. end - 1 of one side see. */
static nf_interval hull_of(const nf_axis_class *c, nf_side side, nf_interval positions)
{
    if (nf_interval_size(positions) == 0)
        return (nf_interval){0, 0};
    return (nf_interval){nf_class_sees(c, side, positions.begin).begin, nf_class_sees(c, side, positions.end - 1).end};
}

static nf_interval join(nf_interval a, nf_interval b)
{
    if (nf_interval_size(a) == 0 || nf_interval_size(b) == 0)
        return nf_interval_size(a) ? a : b;
    return (nf_interval){nf_min32(a.begin, b.begin), nf_max32(a.end, b.end)};
}

/* Where the keys of the queries before `row` end: in the middle of what its neighbors see. */
static int32_t key_cut(const nf_axis_class *c, int32_t row)
{
    const int32_t begin = nf_class_sees(c, NF_ROWS_QUERIES, row - 1).begin, end = nf_class_sees(c, NF_ROWS_QUERIES, row).end;
    return nf_min32(nf_max32(begin + (end - begin) / 2, c->k_begin), c->k_end);
}

/* A class without queries still has one group, of its keys. */
static int32_t count_groups(const nf_axis_class *c, int32_t size)
{
    const int32_t queries = nf_interval_size(nf_class_rows(c, NF_ROWS_QUERIES));
    return nf_interval_size(nf_class_rows(c, NF_ROWS_KEYS)) + queries == 0 ? 0 : nf_max32((queries + size - 1) / size, 1);
}

static void share_class(const nf_axis_class *c, int32_t class_index, int32_t size, nf_segment *segment,
                        cpu_stencil_share *share)
{
    const nf_interval queries = nf_class_rows(c, NF_ROWS_QUERIES), keys = nf_class_rows(c, NF_ROWS_KEYS);
    const int32_t groups = count_groups(c, size);
    int32_t key = keys.begin;
    for (int32_t i = 0; i < groups; i++, segment++, share++) {
        const bool last = i == groups - 1;
        share->rows = (nf_interval){queries.begin + i * size, last ? queries.end : queries.begin + (i + 1) * size};
        share->columns = (nf_interval){key, last ? keys.end : nf_max32(key_cut(c, share->rows.end), key)};
        key = share->columns.end;
        segment->class_index = class_index;
        segment->rows = join(share->rows, hull_of(c, NF_ROWS_KEYS, share->columns));
        segment->hull = join(share->columns, hull_of(c, NF_ROWS_QUERIES, share->rows));
    }
}

static nf_status share_axis(cpu_stencil_walk *walk, const nf_context *context, int32_t axis)
{
    const nf_axis_table *table = &walk->work.grid->axis[axis];
    const int32_t size = walk->work.spec.group[axis];
    int64_t count = 0;
    for (int64_t g = 0; g < table->dilation; g++) {
        const nf_axis_class c = nf_axis_table_class(table, g);
        count += count_groups(&c, size);
    }
    nf_segment *segments = walk->work.segments[axis] = nf_alloc_array(context, (size_t)count, sizeof *segments);
    cpu_stencil_share *shares = walk->shares[axis] = nf_alloc_array(context, (size_t)count, sizeof *shares);
    if (!segments || !shares)
        return NF_ERR_MEMORY;
    walk->work.segment_count[axis] = count;
    walk->work.items *= count;
    for (int64_t g = 0; g < table->dilation; g++) {
        const nf_axis_class c = nf_axis_table_class(table, g);
        const int32_t groups = count_groups(&c, size);
        share_class(&c, (int32_t)g, size, segments, shares);
        segments += groups;
        shares += groups;
    }
    return NF_OK;
}

nf_status cpu_stencil_share_out(cpu_stencil_walk *walk, const nf_context *context, const nf_grid *grid,
                                const nf_work_spec *spec)
{
    walk->work = (nf_work){.grid = grid, .spec = *spec, .items = 1};
    for (int32_t a = 0; a < grid->rank; a++) {
        const nf_status status = share_axis(walk, context, a);
        if (status != NF_OK) {
            cpu_stencil_release(walk, context);
            return status;
        }
    }
    return NF_OK;
}

void cpu_stencil_release(cpu_stencil_walk *walk, const nf_context *context)
{
    for (int32_t a = 0; a < NF_MAX_RANK; a++)
        nf_release(context, walk->shares[a]);
    nf_work_destroy(&walk->work, context);
    *walk = (cpu_stencil_walk){0};
}
