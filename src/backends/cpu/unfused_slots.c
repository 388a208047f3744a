/* Between rows of slots and rows over boxes of keys: which slots of a query lie in a box, and copies of them. */
#include <string.h>

#include "backends/cpu/unfused.h"

enum { LAST = NF_MAX_RANK - 1 };

cpu_view cpu_unfused_view(const nf_tensor *tensor, int32_t rank)
{
    if (!tensor)
        return (cpu_view){0};
    cpu_view view = {.data = tensor->data,
                     .dtype = tensor->dtype,
                     .batch = tensor->strides[0],
                     .element = (int64_t)nf_dtype_size(tensor->dtype),
                     .head = tensor->strides[1],
                     .dim = tensor->strides[2 + rank]};
    for (int32_t a = 0; a < rank; a++)
        view.axis[a] = tensor->strides[2 + a];
    return view;
}

cpu_view cpu_unfused_own(const cpu_unfused_plan *plan, void *scores)
{
    const nf_problem *problem = plan->request->problem;
    const bool wide = plan->kernels->real_size == (int64_t)sizeof(double);
    cpu_view view = {.data = scores, .dtype = wide ? NF_F64 : NF_F32, .element = plan->kernels->real_size, .dim = 1};
    int64_t stride = plan->row;
    for (int32_t a = problem->rank - 1; a >= 0; a--) {
        view.axis[a] = stride;
        stride *= nf_axis_query_range(&problem->axis[a]).count;
    }
    view.head = stride;
    view.batch = stride * problem->heads;
    return view;
}

void cpu_slots_of_box(const cpu_unfused_plan *plan, const nf_work_item *item, const int32_t *query, const nf_box *keys,
                      cpu_slots *s)
{
    const int32_t rank = plan->request->problem->rank;
    int64_t column_step = 1;
    s->column = s->slot = 0;
    s->keys = 1;
    for (int32_t a = 0; a < NF_MAX_RANK - rank; a++) {
        s->count[a] = 1;
        s->column_step[a] = s->slot_step[a] = 0;
    }
    for (int32_t a = rank - 1; a >= 0; a--) {
        const nf_axis_class *c = &item->axis_class[a];
        const nf_interval all = nf_class_sees(c, NF_ROWS_QUERIES, query[a]), box = keys->axis[a];
        const nf_interval seen = {nf_max32(all.begin, box.begin), nf_min32(all.end, box.end)};
        const int32_t to = a + NF_MAX_RANK - rank;
        s->count[to] = nf_interval_size(seen);
        s->column_step[to] = column_step;
        s->slot_step[to] = plan->slot_step[a];
        s->column += (seen.begin - box.begin) * column_step;
        s->slot += (seen.begin - c->rule->first[query[a]]) * plan->slot_step[a];
        s->keys *= s->count[to];
        column_step *= nf_interval_size(box);
    }
}

void cpu_slots_of_extra(const cpu_unfused_plan *plan, int64_t begin, int64_t count, cpu_slots *s)
{
    *s = (cpu_slots){.slot = plan->window + begin, .count = {1, 1, 1, count}, .keys = count};
    s->column_step[LAST] = s->slot_step[LAST] = 1;
}

int64_t cpu_slots_seen(const nf_work_item *item, int32_t rank, const int32_t *query)
{
    int64_t seen = 1;
    for (int32_t a = 0; a < rank; a++)
        seen *= nf_interval_size(nf_class_sees(&item->axis_class[a], NF_ROWS_QUERIES, query[a]));
    return seen;
}

void cpu_slots_next(const nf_box *box, int32_t rank, int32_t *position)
{
    for (int32_t a = rank - 1; a >= 0 && ++position[a] == box->axis[a].end; a--)
        position[a] = box->axis[a].begin;
}

/* Runs are often shorter than a vector: two overlapping moves beat a call. */
static inline void copy_run(char *to, const char *from, int64_t bytes)
{
    if (bytes > 256) {
        memcpy(to, from, (size_t)bytes);
    } else if (bytes >= 16) {
        for (int64_t i = 0; i + 16 < bytes; i += 16)
            memcpy(to + i, from + i, 16);
        memcpy(to + bytes - 16, from + bytes - 16, 16);
    } else if (bytes >= 8) {
        memcpy(to, from, 8);
        memcpy(to + bytes - 8, from + bytes - 8, 8);
    } else if (bytes) {
        memcpy(to, from, 4);
    }
}

/* One run along the last axis, elements `to_step` and `from_step` apart. */
static inline void copy_elements(char *to, const char *from, int64_t count, int64_t size, int64_t to_step,
                                 int64_t from_step)
{
    if (to_step == 1 && from_step == 1) {
        copy_run(to, from, count * size);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        memcpy(to + i * to_step * size, from + i * from_step * size, (size_t)size);
}

typedef struct runs {
    const cpu_slots *s;
    int64_t index[LAST], column, slot;
} runs;

static bool next_run(runs *r)
{
    for (int a = LAST - 1; a >= 0; a--) {
        r->column += r->s->column_step[a];
        r->slot += r->s->slot_step[a];
        if (++r->index[a] < r->s->count[a])
            return true;
        r->column -= r->s->column_step[a] * r->s->count[a];
        r->slot -= r->s->slot_step[a] * r->s->count[a];
        r->index[a] = 0;
    }
    return false;
}

void cpu_slots_put(const cpu_slots *s, int64_t size, const void *row, void *slots, int64_t step)
{
    if (s->keys == 0)
        return;
    runs r = {.s = s, .column = s->column, .slot = s->slot};
    do
        copy_elements((char *)slots + r.slot * step * size, (const char *)row + r.column * size, s->count[LAST], size,
                      step, 1);
    while (next_run(&r));
}

void cpu_slots_get(const cpu_slots *s, int64_t size, void *row, int64_t n, const void *slots, int64_t step)
{
    if (s->keys < n)
        memset(row, 0, (size_t)(n * size));
    if (s->keys == 0)
        return;
    runs r = {.s = s, .column = s->column, .slot = s->slot};
    do
        copy_elements((char *)row + r.column * size, (const char *)slots + r.slot * step * size, s->count[LAST], size,
                      1, step);
    while (next_run(&r));
}
