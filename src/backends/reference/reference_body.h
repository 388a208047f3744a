/* Attention and its gradients, one query and one key at a time: included once with REAL double and once with REAL long
 * double, where REF(name) makes the functions' names, and EXP, LOG and MAX are the type's. */
#include "backends/reference/reference.h"

#include <math.h>
#include <string.h>

/* A key that a query sees: its number, its vectors, and p, first its score, then its probability. */
typedef struct REF(pair) {
    int64_t key;
    ref_row k, v;
    REAL p;
} REF(pair);

/* One worker's part of the workspace, and the query it works on. */
typedef struct REF(slot) {
    REF(pair) * pairs;
    int64_t pair_count;
    REAL *q, *k, *dq;     /* [head_dim] */
    REAL *v, *out, *dout; /* [value_dim] */
    REAL lse;
    REAL *dk, *dv; /* [keys + extra, head_dim], [keys + extra, value_dim]: of one kv head */
} REF(slot);

static REF(slot) REF(slot_at)(const ref_plan *plan, void *memory)
{
    const nf_problem *problem = plan->request->problem;
    const size_t d = (size_t)problem->head_dim, dv = (size_t)problem->value_dim;
    REF(slot) slot = {.pairs = memory};
    slot.q = (REAL *)(void *)(slot.pairs + plan->row_keys);
    slot.k = slot.q + d;
    slot.dq = slot.k + d;
    slot.v = slot.dq + d;
    slot.out = slot.v + dv;
    slot.dout = slot.out + dv;
    if (plan->gradients) {
        slot.dk = slot.dout + dv;
        slot.dv = slot.dk + (size_t)(plan->keys + problem->extra) * d;
    }
    return slot;
}

static void REF(read)(ref_row row, int64_t count, REAL *to)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = ref_load(row, i);
}

static void REF(write)(ref_row row, int64_t count, const REAL *from)
{
    for (int64_t i = 0; i < count; i++)
        ref_store(row, i, (double)from[i]);
}

static REAL REF(dot)(const REAL *a, const REAL *b, int64_t count)
{
    REAL sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

static void REF(add_scaled)(REAL *to, REAL factor, const REAL *from, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] += factor * from[i];
}

/* ---- softmax(scale q k^T) v -------------------------------------------------------------------------------------- */

/* Lists the keys a query sees: those of the grid, then the extra tokens. */
static void REF(list_keys)(const ref_call *call, REF(slot) * slot, int64_t batch, int64_t kv_head, const int64_t *query)
{
    const nf_tensor *const *io = call->io;
    const int32_t rank = call->problem->rank;
    ref_walk walk;
    slot->pair_count = 0;
    for (bool more = ref_walk_start(&walk, call->problem, query); more; more = ref_walk_next(&walk))
        slot->pairs[slot->pair_count++] = (REF(pair)){.key = ref_walk_number(&walk),
                                                      .k = ref_row_at(io[NF_K], batch, rank, walk.at, kv_head),
                                                      .v = ref_row_at(io[NF_V], batch, rank, walk.at, kv_head)};
    for (int64_t e = 0; e < call->problem->extra; e++)
        slot->pairs[slot->pair_count++] = (REF(pair)){.key = call->plan->keys + e,
                                                      .k = ref_row_at(io[NF_EXTRA_K], batch, 1, &e, kv_head),
                                                      .v = ref_row_at(io[NF_EXTRA_V], batch, 1, &e, kv_head)};
}

/* Scores to probabilities. A NaN score need not win the maximum: it reaches the sum. */
static void REF(softmax)(REF(slot) * slot)
{
    REAL max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < slot->pair_count; j++)
        max = MAX(max, slot->pairs[j].p);
    for (int64_t j = 0; j < slot->pair_count; j++)
        sum += slot->pairs[j].p = EXP(slot->pairs[j].p - max);
    for (int64_t j = 0; j < slot->pair_count; j++)
        slot->pairs[j].p /= sum;
    slot->lse = slot->pair_count ? max + LOG(sum) : -INFINITY;
}

static void REF(attend)(const ref_call *call, REF(slot) * slot, int64_t batch, int64_t head, const int64_t *query)
{
    const nf_problem *problem = call->problem;
    const int64_t kv_head = head * problem->kv_heads / problem->heads;
    REF(list_keys)(call, slot, batch, kv_head, query);
    REF(read)(ref_row_at(call->io[NF_Q], batch, problem->rank, query, head), problem->head_dim, slot->q);
    for (int64_t j = 0; j < slot->pair_count; j++) {
        REF(read)(slot->pairs[j].k, problem->head_dim, slot->k);
        slot->pairs[j].p = call->plan->scale * REF(dot)(slot->q, slot->k, problem->head_dim);
    }
    REF(softmax)(slot);
    memset(slot->out, 0, (size_t)problem->value_dim * sizeof(REAL));
    for (int64_t j = 0; j < slot->pair_count; j++) {
        REF(read)(slot->pairs[j].v, problem->value_dim, slot->v);
        REF(add_scaled)(slot->out, slot->pairs[j].p, slot->v, problem->value_dim);
    }
}

static void REF(forward)(const ref_call *call, void *memory, int64_t batch, int64_t kv_head)
{
    REF(slot) placed = REF(slot_at)(call->plan, memory), *const slot = &placed;
    const nf_problem *problem = call->problem;
    const int64_t group = nf_problem_group(problem), queries = ref_queries(problem);
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
        for (int64_t i = 0; i < queries; i++) {
            int64_t query[NF_MAX_RANK];
            ref_query_index(problem, i, query);
            REF(attend)(call, slot, batch, head, query);
            REF(write)(ref_row_at(call->io[NF_OUT], batch, problem->rank, query, head), problem->value_dim, slot->out);
            if (call->io[NF_LSE])
                REF(write)(ref_row_at(call->io[NF_LSE], batch, problem->rank, query, head), 1, &slot->lse);
        }
    }
}

/* ---- Gradients ----------------------------------------------------------------------------------------------------
 *
 * dk and dv are summed over all queries and heads of a kv head. Being the truth, this recomputes out and lse from q, k
 * and v, and does not read the out and lse of the call, which another algorithm may have rounded. */

static void REF(add_query)(const ref_call *call, REF(slot) * slot, int64_t batch, int64_t head, const int64_t *query)
{
    const nf_problem *problem = call->problem;
    const int64_t d = problem->head_dim, dv = problem->value_dim;
    const REAL scale = call->plan->scale;
    REAL dlse = 0;
    REF(attend)(call, slot, batch, head, query);
    REF(read)(ref_row_at(call->io[NF_DOUT], batch, problem->rank, query, head), dv, slot->dout);
    if (call->io[NF_DLSE])
        REF(read)(ref_row_at(call->io[NF_DLSE], batch, problem->rank, query, head), 1, &dlse);
    const REAL delta = REF(dot)(slot->dout, slot->out, dv) - dlse;
    memset(slot->dq, 0, (size_t)d * sizeof(REAL));
    for (int64_t j = 0; j < slot->pair_count; j++) {
        const REF(pair) *pair = &slot->pairs[j];
        REF(read)(pair->k, d, slot->k);
        REF(read)(pair->v, dv, slot->v);
        const REAL ds = pair->p * (REF(dot)(slot->dout, slot->v, dv) - delta);
        REF(add_scaled)(slot->dq, scale * ds, slot->k, d);
        REF(add_scaled)(slot->dk + pair->key * d, scale * ds, slot->q, d);
        REF(add_scaled)(slot->dv + pair->key * dv, pair->p, slot->dout, dv);
    }
    if (call->io[NF_DQ])
        REF(write)(ref_row_at(call->io[NF_DQ], batch, problem->rank, query, head), d, slot->dq);
}

/* Writes the sums of one kv head to the gradients that are present. */
static void REF(store_keys)(const ref_call *call, const REAL *sums, int64_t dim, nf_role grid_role, nf_role extra_role,
                            int64_t batch, int64_t kv_head)
{
    const nf_problem *problem = call->problem;
    const nf_tensor *grid = call->io[grid_role], *extra = call->io[extra_role];
    const int64_t keys = call->plan->keys;
    for (int64_t j = 0; grid && j < keys; j++) {
        int64_t key[NF_MAX_RANK];
        ref_key_index(problem, j, key);
        REF(write)(ref_row_at(grid, batch, problem->rank, key, kv_head), dim, sums + j * dim);
    }
    for (int64_t e = 0; extra && e < problem->extra; e++)
        REF(write)(ref_row_at(extra, batch, 1, &e, kv_head), dim, sums + (keys + e) * dim);
}

static void REF(backward)(const ref_call *call, void *memory, int64_t batch, int64_t kv_head)
{
    REF(slot) placed = REF(slot_at)(call->plan, memory), *const slot = &placed;
    const nf_problem *problem = call->problem;
    const int64_t group = nf_problem_group(problem), queries = ref_queries(problem);
    const size_t keys = (size_t)(call->plan->keys + problem->extra);
    memset(slot->dk, 0, keys * (size_t)problem->head_dim * sizeof(REAL));
    memset(slot->dv, 0, keys * (size_t)problem->value_dim * sizeof(REAL));
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
        for (int64_t i = 0; i < queries; i++) {
            int64_t query[NF_MAX_RANK];
            ref_query_index(problem, i, query);
            REF(add_query)(call, slot, batch, head, query);
        }
    }
    REF(store_keys)(call, slot->dk, problem->head_dim, NF_DK, NF_DEXTRA_K, batch, kv_head);
    REF(store_keys)(call, slot->dv, problem->value_dim, NF_DV, NF_DEXTRA_V, batch, kv_head);
}
