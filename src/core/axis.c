/* Axis tables from the rules of neighborhood attention: doc/semantics.md, "One axis" and "The inverse". */
#include "core/axis.h"

#include "core/mem.h"
#include "core/problem.h"
#include "core/status.h"

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return -floor_div(-a, b);
}

/* The rule of one class of n tokens. */
typedef struct class_rule {
    int64_t n, window, stride;
    int causal;
} class_rule;

static void fill_keys_of_queries(const class_rule *r, nf_axis_rule *table)
{
    for (int64_t u = 0; u < r->n; u++) {
        const int64_t block = r->stride * (u / r->stride);
        int64_t first, last;
        if (r->causal) {
            const int64_t leader = nf_min64(block + r->stride - 1, r->n - 1);
            first = nf_max64(leader - r->window + 1, 0);
            last = u;
        } else {
            const int64_t leader = nf_min64(block + r->stride / 2, r->n - 1);
            first = nf_min64(nf_max64(leader - r->window / 2, 0), r->n - r->window);
            last = first + r->window - 1;
        }
        table->first[u] = (int32_t)first;
        table->last[u] = (int32_t)last;
    }
}

static void fill_queries_of_keys(const class_rule *r, nf_axis_rule *table)
{
    const int64_t n = r->n, w = r->window, s = r->stride;
    const int64_t half = s / 2, left = w / 2, right = w - 1 - left;
    for (int64_t k = 0; k < n; k++) {
        int64_t lo, hi;
        if (r->causal) {
            lo = k;
            hi = k + w - 1 >= n - 1 ? n - 1 : s * ((k + w) / s) - 1;
        } else {
            const int64_t last_block = s * ((n - 1) / s);
            lo = k < w ? 0 : nf_min64(s * nf_max64(0, ceil_div(k - right - half, s)), last_block);
            hi = k >= n - w ? n - 1 : nf_min64(s * floor_div(k + left - half, s) + s - 1, n - 1);
        }
        table->lo[k] = (int32_t)lo;
        table->hi[k] = (int32_t)hi;
    }
}

/* Cross attention sees the whole key extent, up to the query's place on the key axis if causal. */
static void fill_cross(const nf_axis *axis, nf_axis_rule *table)
{
    const int64_t place = axis->q_count ? axis->q_begin : axis->key_extent - axis->extent;
    for (int64_t u = 0; u < table->queries; u++) {
        table->first[u] = 0;
        table->last[u] = axis->causal ? (int32_t)nf_max64(nf_min64(u + place, table->keys - 1), -1) : table->keys - 1;
    }
    for (int64_t k = 0; k < table->keys; k++) {
        table->lo[k] = axis->causal ? (int32_t)nf_min64(nf_max64(k - place, 0), table->queries) : 0;
        table->hi[k] = table->queries - 1;
    }
}

static nf_status allocate_rules(nf_axis_table *table, const nf_context *context)
{
    size_t entries = 0;
    for (int i = 0; i < 2; i++)
        entries += 2 * ((size_t)table->rule[i].queries + (size_t)table->rule[i].keys);
    int32_t *next = table->storage = nf_alloc_array(context, entries, sizeof(int32_t));
    if (!next)
        return NF_ERR_MEMORY;
    for (int i = 0; i < 2; i++) {
        nf_axis_rule *rule = &table->rule[i];
        rule->first = next;
        rule->last = rule->first + rule->queries;
        rule->lo = rule->last + rule->queries;
        rule->hi = rule->lo + rule->keys;
        next = rule->hi + rule->keys;
    }
    return NF_OK;
}

static nf_status create_cross(nf_axis_table *table, const nf_context *context, const nf_axis *axis)
{
    const nf_axis_range keys = nf_axis_key_range(axis);
    *table = (nf_axis_table){
        .dilation = 1, .long_classes = 1, .q_end = axis->extent, .k_begin = keys.begin, .k_end = keys.begin + keys.count,
        .rule[0] = {.queries = (int32_t)axis->extent, .keys = (int32_t)axis->key_extent}};
    const nf_status status = allocate_rules(table, context);
    if (status == NF_OK)
        fill_cross(axis, &table->rule[0]);
    return status;
}

nf_status nf_axis_table_create(nf_axis_table *table, const nf_context *context, const nf_axis *axis)
{
    if (nf_axis_is_cross(axis))
        return create_cross(table, context, axis);
    const nf_axis_range queries = nf_axis_query_range(axis), keys = nf_axis_key_range(axis);
    const int64_t d = axis->dilation, short_length = axis->extent / d;
    *table = (nf_axis_table){.dilation = d, .long_classes = axis->extent % d ? axis->extent % d : d,
                             .q_begin = queries.begin, .q_end = queries.begin + queries.count,
                             .k_begin = keys.begin, .k_end = keys.begin + keys.count};
    const int64_t length[2] = {axis->extent % d ? short_length + 1 : short_length,
                               axis->extent % d ? short_length : 0};
    for (int i = 0; i < 2; i++)
        table->rule[i].queries = table->rule[i].keys = (int32_t)length[i];
    const nf_status status = allocate_rules(table, context);
    if (status != NF_OK)
        return status;
    for (int i = 0; i < 2 && length[i]; i++) {
        const class_rule rule = {length[i], nf_axis_window(axis), axis->stride, axis->causal != 0};
        fill_keys_of_queries(&rule, &table->rule[i]);
        fill_queries_of_keys(&rule, &table->rule[i]);
    }
    return NF_OK;
}

nf_axis_class nf_axis_table_class(const nf_axis_table *table, int64_t index)
{
    const int64_t d = table->dilation;
    return (nf_axis_class){
        .rule = &table->rule[index >= table->long_classes],
        .q_begin = (int32_t)nf_max64(ceil_div(table->q_begin - index, d), 0),
        .q_end = (int32_t)nf_max64(ceil_div(table->q_end - index, d), 0),
        .k_begin = (int32_t)nf_max64(ceil_div(table->k_begin - index, d), 0),
        .k_end = (int32_t)nf_max64(ceil_div(table->k_end - index, d), 0),
        .q_origin = index - table->q_begin,
        .k_origin = index - table->k_begin,
        .step = d,
    };
}

nf_status nf_grid_create(nf_grid *grid, const nf_context *context, const nf_problem *problem)
{
    *grid = (nf_grid){.rank = problem->rank};
    for (int32_t a = 0; a < grid->rank; a++) {
        const nf_status status = nf_axis_table_create(&grid->axis[a], context, &problem->axis[a]);
        if (status != NF_OK) {
            nf_grid_destroy(grid, context);
            return status;
        }
    }
    return NF_OK;
}

void nf_grid_destroy(nf_grid *grid, const nf_context *context)
{
    for (int32_t a = 0; a < grid->rank; a++)
        nf_release(context, grid->axis[a].storage);
    *grid = (nf_grid){0};
}

double nf_grid_pairs(const nf_grid *grid)
{
    double product = 1;
    for (int32_t a = 0; a < grid->rank; a++) {
        double pairs = 0;
        for (int64_t g = 0; g < grid->axis[a].dilation; g++) {
            const nf_axis_class c = nf_axis_table_class(&grid->axis[a], g);
            for (int32_t u = c.q_begin; u < c.q_end; u++) {
                const nf_interval keys = nf_class_sees(&c, NF_ROWS_QUERIES, u);
                pairs += nf_max32(keys.end - keys.begin, 0);
            }
        }
        product *= pairs;
    }
    return product;
}
