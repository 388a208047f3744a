/* softmax(scale q k^T) v, one query at a time. */
#include "backends/reference/reference.h"

#include <math.h>
#include <string.h>

/* Lists the keys a query sees: those of the grid, then the extra tokens. */
static void list_keys(const ref_call *call, ref_slot *slot, int64_t batch, int64_t kv_head, const int64_t *query)
{
    const nf_tensor *const *io = call->io;
    const int32_t rank = call->problem->rank;
    ref_walk walk;
    slot->pair_count = 0;
    for (bool more = ref_walk_start(&walk, call->problem, query); more; more = ref_walk_next(&walk))
        slot->pairs[slot->pair_count++] = (ref_pair){.key = ref_walk_number(&walk),
                                                     .k = ref_row_at(io[NF_K], batch, rank, walk.at, kv_head),
                                                     .v = ref_row_at(io[NF_V], batch, rank, walk.at, kv_head)};
    for (int64_t e = 0; e < call->problem->extra; e++)
        slot->pairs[slot->pair_count++] = (ref_pair){.key = call->plan->keys + e,
                                                     .k = ref_row_at(io[NF_EXTRA_K], batch, 1, &e, kv_head),
                                                     .v = ref_row_at(io[NF_EXTRA_V], batch, 1, &e, kv_head)};
}

/* Scores to probabilities. A NaN score need not win the maximum: it reaches the sum. */
static void softmax(ref_slot *slot)
{
    ref_real max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < slot->pair_count; j++)
        max = fmaxl(max, slot->pairs[j].p);
    for (int64_t j = 0; j < slot->pair_count; j++)
        sum += slot->pairs[j].p = expl(slot->pairs[j].p - max);
    for (int64_t j = 0; j < slot->pair_count; j++)
        slot->pairs[j].p /= sum;
    slot->lse = slot->pair_count ? max + logl(sum) : -INFINITY;
}

void ref_attend(const ref_call *call, ref_slot *slot, int64_t batch, int64_t head, const int64_t *query)
{
    const nf_problem *problem = call->problem;
    const int64_t kv_head = head * problem->kv_heads / problem->heads;
    list_keys(call, slot, batch, kv_head, query);
    ref_read(ref_row_at(call->io[NF_Q], batch, problem->rank, query, head), problem->head_dim, slot->q);
    for (int64_t j = 0; j < slot->pair_count; j++) {
        ref_read(slot->pairs[j].k, problem->head_dim, slot->k);
        slot->pairs[j].p = call->plan->scale * ref_dot(slot->q, slot->k, problem->head_dim);
    }
    softmax(slot);
    memset(slot->out, 0, (size_t)problem->value_dim * sizeof(ref_real));
    for (int64_t j = 0; j < slot->pair_count; j++) {
        ref_read(slot->pairs[j].v, problem->value_dim, slot->v);
        ref_add_scaled(slot->out, slot->pairs[j].p, slot->v, problem->value_dim);
    }
}

void ref_forward(const ref_call *call, ref_slot *slot, int64_t batch, int64_t kv_head)
{
    const nf_problem *problem = call->problem;
    const int64_t group = nf_problem_group(problem), queries = ref_queries(problem);
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
        for (int64_t i = 0; i < queries; i++) {
            int64_t query[NF_MAX_RANK];
            ref_query_index(problem, i, query);
            ref_attend(call, slot, batch, head, query);
            ref_write(ref_row_at(call->io[NF_OUT], batch, problem->rank, query, head), problem->value_dim, slot->out);
            if (call->io[NF_LSE])
                ref_write(ref_row_at(call->io[NF_LSE], batch, problem->rank, query, head), 1, &slot->lse);
        }
    }
}
