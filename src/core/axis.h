/* Axis tables: every mask rule compiled into intervals. The rest of the library sees tables, never a rule.
 *
 * Positions below are class positions: token = class + dilation * position. Tables hold the rule over the whole extent;
 * query and key ranges are applied by nf_axis_class. */
#ifndef NF_CORE_AXIS_H
#define NF_CORE_AXIS_H

#include "nearfield.h"

/* The rule for all classes of one length: keys first[u]..last[u] of query u, queries lo[k]..hi[k] of key k. All four
 * never decrease. An interval is empty where its end is before its begin. */
typedef struct nf_axis_rule {
    int32_t queries, keys; /* entries of first, last and of lo, hi */
    int32_t *first, *last, *lo, *hi;
} nf_axis_rule;

typedef struct nf_axis_table {
    int64_t dilation;     /* = number of classes */
    int64_t long_classes; /* classes below this one use rule[0], the others, one token shorter, rule[1] */
    int64_t q_begin, q_end, k_begin, k_end; /* token ranges that tensors hold */
    nf_axis_rule rule[2];
    void *storage;
} nf_axis_table;

/* One residue class with the ranges applied. */
typedef struct nf_axis_class {
    const nf_axis_rule *rule;
    int32_t q_begin, q_end, k_begin, k_end; /* class positions inside the ranges */
    int64_t q_origin, k_origin; /* tensor index of class position 0, negative if that lies before the range */
    int64_t step;               /* tensor index = origin + step * position */
} nf_axis_class;

/* begin..end-1; empty iff end <= begin. */
typedef struct nf_interval {
    int32_t begin, end;
} nf_interval;

/* The grid of a problem: a product of axes. */
typedef struct nf_grid {
    int32_t rank;
    nf_axis_table axis[NF_MAX_RANK];
} nf_grid;

/* Which side of the pairs an algorithm keeps in its rows; the other side is its columns. */
typedef enum nf_side { NF_ROWS_QUERIES, NF_ROWS_KEYS } nf_side;

/* Builds the tables of a checked problem. */
nf_status nf_grid_create(nf_grid *grid, const nf_context *context, const nf_problem *problem);
void nf_grid_destroy(nf_grid *grid, const nf_context *context);

/* Fills one axis table from a checked axis; release it with nf_release(context, table->storage). */
nf_status nf_axis_table_create(nf_axis_table *table, const nf_context *context, const nf_axis *axis);

nf_axis_class nf_axis_table_class(const nf_axis_table *table, int64_t index);

static inline int32_t nf_min32(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t nf_max32(int32_t a, int32_t b) { return a > b ? a : b; }
static inline int64_t nf_min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t nf_max64(int64_t a, int64_t b) { return a > b ? a : b; }

/* The rows of a class that a problem computes. */
static inline nf_interval nf_class_rows(const nf_axis_class *c, nf_side rows)
{
    return rows == NF_ROWS_QUERIES ? (nf_interval){c->q_begin, c->q_end} : (nf_interval){c->k_begin, c->k_end};
}

/* The columns that one row sees. begin and end never decrease from row to row. */
static inline nf_interval nf_class_sees(const nf_axis_class *c, nf_side rows, int32_t row)
{
    if (rows == NF_ROWS_QUERIES)
        return (nf_interval){nf_max32(c->rule->first[row], c->k_begin), nf_min32(c->rule->last[row] + 1, c->k_end)};
    return (nf_interval){nf_max32(c->rule->lo[row], c->q_begin), nf_min32(c->rule->hi[row] + 1, c->q_end)};
}

static inline int64_t nf_class_row_index(const nf_axis_class *c, nf_side rows, int32_t row)
{
    return (rows == NF_ROWS_QUERIES ? c->q_origin : c->k_origin) + c->step * row;
}

static inline int64_t nf_class_column_index(const nf_axis_class *c, nf_side rows, int32_t column)
{
    return (rows == NF_ROWS_QUERIES ? c->k_origin : c->q_origin) + c->step * column;
}

/* Visible (query, key) pairs of the whole grid, one batch and head. */
double nf_grid_pairs(const nf_grid *grid);

#endif
