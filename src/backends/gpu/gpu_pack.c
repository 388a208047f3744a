/* Axis tables, segments, extents and strides, written down for kernels. */
#include "backends/gpu/gpu_pack.h"

#include <string.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "core/problem.h"
#include "core/status.h"

_Static_assert((int)GPU_Q == (int)NF_Q && (int)GPU_DEXTRA_V == (int)NF_DEXTRA_V &&
                   (int)GPU_DSCORES == (int)NF_DSCORES && (int)GPU_MAX_RANK == NF_MAX_RANK,
               "tables name tensors as roles");

enum {
    INTS_PER_NUMBER = sizeof(int64_t) / sizeof(int32_t),
    UNIT_AXIS_INTS = 2 + GPU_SEGMENT_WORDS /* an axis of one row, which sees one column: its rule and its segment */
};

/* Begins and ends of the columns that rows see, for both rules of an axis. */
static int64_t rule_ints(const nf_axis_table *table)
{
    int64_t entries = 0;
    for (int i = 0; i < 2; i++)
        entries += nf_max64(table->rule[i].queries, table->rule[i].keys);
    return 2 * entries;
}

int64_t gpu_pack_walk_ints(const nf_work *work, int32_t rank)
{
    int64_t ints = (rank - work->grid->rank) * UNIT_AXIS_INTS;
    for (int32_t a = 0; a < work->grid->rank; a++)
        ints += rule_ints(&work->grid->axis[a]) + work->segment_count[a] * GPU_SEGMENT_WORDS;
    return ints;
}

static void set_strides(int64_t *header, int tensor, const nf_tensor *t, int32_t axes, bool has_dim)
{
    int64_t *strides = header + GPU_TENSOR + tensor * GPU_STRIDES;
    if (!t->rank)
        return;
    strides[GPU_STRIDE_BATCH] = t->strides[0];
    for (int32_t a = 0; a < axes; a++)
        strides[GPU_STRIDE_AXIS + a] = t->strides[1 + a];
    strides[GPU_STRIDE_HEAD] = t->strides[1 + axes];
    strides[GPU_STRIDE_DIM] = has_dim ? t->strides[2 + axes] : 0;
}

/* [batch, heads, axes, slots] */
static void set_score_strides(int64_t *header, int tensor, const nf_tensor *t, int32_t axes)
{
    int64_t *strides = header + GPU_TENSOR + tensor * GPU_STRIDES;
    if (!t->rank)
        return;
    strides[GPU_STRIDE_BATCH] = t->strides[0];
    strides[GPU_STRIDE_HEAD] = t->strides[1];
    for (int32_t a = 0; a < axes; a++)
        strides[GPU_STRIDE_AXIS + a] = t->strides[2 + a];
    strides[GPU_STRIDE_DIM] = t->strides[2 + axes];
}

static void set_tensors(int64_t *header, const nf_problem *p, const nf_tensor layout[NF_ROLES])
{
    for (int role = 0; role <= NF_DEXTRA_V; role++) {
        const bool extra = role == NF_EXTRA_K || role == NF_EXTRA_V || role == NF_DEXTRA_K || role == NF_DEXTRA_V;
        set_strides(header, role, &layout[role], extra ? 1 : p->rank, role != NF_LSE && role != NF_DLSE);
    }
    set_score_strides(header, GPU_SCORES, &layout[NF_SCORES], p->rank);
    set_score_strides(header, GPU_DSCORES, &layout[NF_DSCORES], p->rank);
    int64_t *delta = header + GPU_TENSOR + GPU_DELTA * GPU_STRIDES, stride = 1;
    delta[GPU_STRIDE_HEAD] = stride;
    stride *= p->heads;
    for (int32_t a = p->rank - 1; a >= 0; a--) {
        delta[GPU_STRIDE_AXIS + a] = stride;
        stride *= nf_axis_query_range(&p->axis[a]).count;
    }
    delta[GPU_STRIDE_BATCH] = stride;
}

static void set_problem(int64_t *header, const nf_request *request, int32_t rank)
{
    const nf_problem *p = request->problem;
    const double scale = nf_problem_scale(p);
    const float narrow = (float)scale;
    if (p->dtype == NF_F64)
        memcpy(&header[GPU_SCALE], &scale, sizeof scale);
    else
        header[GPU_SCALE] = (int64_t)nf_float_bits(narrow);
    header[GPU_BATCH] = p->batch;
    header[GPU_HEADS] = p->heads;
    header[GPU_KV_HEADS] = p->kv_heads;
    header[GPU_HEAD_DIM] = p->head_dim;
    header[GPU_VALUE_DIM] = p->value_dim;
    header[GPU_OUT_TYPE] = p->out_dtype;
    header[GPU_EXTRA] = p->extra;
    header[GPU_QUERIES] = 1;
    for (int32_t a = 0; a < p->rank; a++) {
        header[GPU_QUERY_EXTENT + a] = nf_axis_query_range(&p->axis[a]).count;
        header[GPU_QUERIES] *= header[GPU_QUERY_EXTENT + a];
        header[GPU_STEP + a] = request->grid->axis[a].dilation;
    }
    for (int32_t a = p->rank; a < rank; a++)
        header[GPU_QUERY_EXTENT + a] = header[GPU_STEP + a] = 1;
}

nf_status gpu_pack_begin(gpu_packer *packer, const nf_request *request, const nf_tensor layout[NF_ROLES], int32_t rank,
                         int64_t room)
{
    const int64_t ints = GPU_HEADER * INTS_PER_NUMBER + room;
    if (ints > INT32_MAX)
        return nf_fail(NF_ERR_UNSUPPORTED, "the axis tables have %lld entries, kernels can number 2^31 - 1",
                       (long long)ints);
    int64_t *header = nf_alloc_array(request->context, (size_t)ints + 1, sizeof(int32_t));
    if (!header)
        return NF_ERR_MEMORY;
    *packer = (gpu_packer){.header = header,
                           .ints = (int32_t *)(void *)header,
                           .used = GPU_HEADER * INTS_PER_NUMBER,
                           .capacity = ints,
                           .rank = rank};
    set_problem(header, request, rank);
    set_tensors(header, request->problem, layout);
    return NF_OK;
}

/* Appends the two tables of a rule. Returns where the first lies; the second follows after `rows` entries. */
static int32_t pack_rule(gpu_packer *packer, const nf_axis_rule *rule, nf_side side)
{
    const int32_t rows = side == NF_ROWS_QUERIES ? rule->queries : rule->keys, at = (int32_t)packer->used;
    const int32_t *first = side == NF_ROWS_QUERIES ? rule->first : rule->lo;
    const int32_t *last = side == NF_ROWS_QUERIES ? rule->last : rule->hi;
    for (int32_t r = 0; r < rows; r++) {
        packer->ints[at + r] = first[r];
        packer->ints[at + rows + r] = last[r] + 1;
    }
    packer->used += 2 * (int64_t)rows;
    return at;
}

static void pack_segment(int32_t *to, const nf_axis_class *c, nf_side side, const nf_segment *segment, int32_t table)
{
    const nf_interval first = nf_class_sees(c, side, segment->rows.begin);
    const nf_interval last = nf_class_sees(c, side, segment->rows.end - 1);
    const bool queries = side == NF_ROWS_QUERIES;
    to[GPU_SEGMENT_BEGIN] = segment->rows.begin;
    to[GPU_SEGMENT_COUNT] = nf_interval_size(segment->rows);
    to[GPU_SEGMENT_HULL_BEGIN] = segment->hull.begin;
    to[GPU_SEGMENT_HULL_END] = segment->hull.end;
    to[GPU_SEGMENT_FULL_BEGIN] = last.begin;
    to[GPU_SEGMENT_FULL_END] = first.end;
    to[GPU_SEGMENT_FIRST] = table;
    to[GPU_SEGMENT_END] = table + (queries ? c->rule->queries : c->rule->keys);
    to[GPU_SEGMENT_COLUMN_MIN] = queries ? c->k_begin : c->q_begin;
    to[GPU_SEGMENT_COLUMN_MAX] = queries ? c->k_end : c->q_end;
    to[GPU_SEGMENT_ROW_ORIGIN] = (int32_t)(queries ? c->q_origin : c->k_origin);
    to[GPU_SEGMENT_COLUMN_ORIGIN] = (int32_t)(queries ? c->k_origin : c->q_origin);
}

static void pack_axis(gpu_packer *packer, const nf_work *work, int32_t axis, int at)
{
    const nf_axis_table *table = &work->grid->axis[axis];
    const nf_side side = work->spec.rows;
    const int32_t rules[2] = {pack_rule(packer, &table->rule[0], side), pack_rule(packer, &table->rule[1], side)};
    packer->header[at + GPU_WALK_COUNT + axis] = work->segment_count[axis];
    packer->header[at + GPU_WALK_SEGMENTS + axis] = packer->used;
    packer->header[at + GPU_WALK_COLUMNS + axis] = work->spec.columns[axis];
    for (int64_t i = 0; i < work->segment_count[axis]; i++, packer->used += GPU_SEGMENT_WORDS) {
        const nf_segment *segment = &work->segments[axis][i];
        const nf_axis_class c = nf_axis_table_class(table, segment->class_index);
        pack_segment(packer->ints + packer->used, &c, side, segment, rules[c.rule == &table->rule[1]]);
    }
}

static void pack_unit_axis(gpu_packer *packer, int32_t axis, int at)
{
    const int32_t table = (int32_t)packer->used;
    packer->ints[table] = 0;
    packer->ints[table + 1] = 1;
    packer->used += 2;
    packer->header[at + GPU_WALK_COUNT + axis] = packer->header[at + GPU_WALK_COLUMNS + axis] = 1;
    packer->header[at + GPU_WALK_SEGMENTS + axis] = packer->used;
    const int32_t segment[GPU_SEGMENT_WORDS] = {
        [GPU_SEGMENT_COUNT] = 1,     [GPU_SEGMENT_HULL_END] = 1,    [GPU_SEGMENT_FULL_END] = 1,
        [GPU_SEGMENT_FIRST] = table, [GPU_SEGMENT_END] = table + 1, [GPU_SEGMENT_COLUMN_MAX] = 1,
    };
    memcpy(packer->ints + packer->used, segment, sizeof segment);
    packer->used += GPU_SEGMENT_WORDS;
}

void gpu_pack_walk(gpu_packer *packer, const nf_work *work, int at)
{
    packer->header[at + GPU_WALK_ITEMS] = work->items;
    for (int32_t a = 0; a < work->grid->rank; a++)
        pack_axis(packer, work, a, at);
    for (int32_t a = work->grid->rank; a < packer->rank; a++)
        pack_unit_axis(packer, a, at);
}
