/* Gradients, one query at a time, dk and dv summed over all queries and heads of a kv head.
 *
 * Being the truth, this recomputes out and lse from q, k and v, and does not read the out and lse of the
 * call, which another algorithm may have rounded. */
#include "backends/reference/reference.h"

#include <string.h>

static void add_query(const ref_call *call, ref_slot *slot, int64_t batch, int64_t head, const int64_t *query)
{
    const nf_problem *problem = call->problem;
    const int64_t d = problem->head_dim, dv = problem->value_dim;
    const ref_real scale = call->plan->scale;
    ref_real dlse = 0;
    ref_attend(call, slot, batch, head, query);
    ref_read(ref_row_at(call->io[NF_DOUT], batch, problem->rank, query, head), dv, slot->dout);
    if (call->io[NF_DLSE])
        ref_read(ref_row_at(call->io[NF_DLSE], batch, problem->rank, query, head), 1, &dlse);
    const ref_real delta = ref_dot(slot->dout, slot->out, dv) - dlse;
    memset(slot->dq, 0, (size_t)d * sizeof(ref_real));
    for (int64_t j = 0; j < slot->pair_count; j++) {
        const ref_pair *pair = &slot->pairs[j];
        ref_read(pair->k, d, slot->k);
        ref_read(pair->v, dv, slot->v);
        const ref_real ds = pair->p * (ref_dot(slot->dout, slot->v, dv) - delta);
        ref_add_scaled(slot->dq, scale * ds, slot->k, d);
        ref_add_scaled(slot->dk + pair->key * d, scale * ds, slot->q, d);
        ref_add_scaled(slot->dv + pair->key * dv, pair->p, slot->dout, dv);
    }
    if (call->io[NF_DQ])
        ref_write(ref_row_at(call->io[NF_DQ], batch, problem->rank, query, head), d, slot->dq);
}

/* Writes the sums of one kv head to the gradients that are present. */
static void store_keys(const ref_call *call, const ref_real *sums, int64_t dim, nf_role grid_role, nf_role extra_role,
                       int64_t batch, int64_t kv_head)
{
    const nf_problem *problem = call->problem;
    const nf_tensor *grid = call->io[grid_role], *extra = call->io[extra_role];
    const int64_t keys = call->plan->keys;
    for (int64_t j = 0; grid && j < keys; j++) {
        int64_t key[NF_MAX_RANK];
        ref_key_index(problem, j, key);
        ref_write(ref_row_at(grid, batch, problem->rank, key, kv_head), dim, sums + j * dim);
    }
    for (int64_t e = 0; extra && e < problem->extra; e++)
        ref_write(ref_row_at(extra, batch, 1, &e, kv_head), dim, sums + (keys + e) * dim);
}

void ref_backward(const ref_call *call, ref_slot *slot, int64_t batch, int64_t kv_head)
{
    const nf_problem *problem = call->problem;
    const int64_t group = nf_problem_group(problem), queries = ref_queries(problem);
    const size_t keys = (size_t)(call->plan->keys + problem->extra);
    memset(slot->dk, 0, keys * (size_t)problem->head_dim * sizeof(ref_real));
    memset(slot->dv, 0, keys * (size_t)problem->value_dim * sizeof(ref_real));
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
        for (int64_t i = 0; i < queries; i++) {
            int64_t query[NF_MAX_RANK];
            ref_query_index(problem, i, query);
            add_query(call, slot, batch, head, query);
        }
    }
    store_keys(call, slot->dk, problem->head_dim, NF_DK, NF_DEXTRA_K, batch, kv_head);
    store_keys(call, slot->dv, problem->value_dim, NF_DV, NF_DEXTRA_V, batch, kv_head);
}
