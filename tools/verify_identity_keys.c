/* Laws of visible and invisible keys: adjacency, independence, split keys that merge. */
#include "verify.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PURPOSE_KEYS = 42, MAX_ONE_HOT = 600, MAX_PARTS = 3 };

static verify_outcome not_here(char *why)
{
    *why = 0;
    return VERIFY_SKIP;
}

static bool is_power_of_two(int64_t n)
{
    return n > 0 && (n & (n - 1)) == 0;
}

/* One row of adjacency / degree: bitwise if the degree is a power of two. */
static bool judge_degrees(const nf_problem *problem, const verify_mask *mask, const verify_values *values, int64_t row,
                          char *why)
{
    const verify_array *out = &values->role[NF_OUT];
    const int64_t query = row / out->heads % out->tokens, degree = verify_mask_row(mask, query, NULL);
    const double weight = degree ? 1 / (double)degree : 0;
    const double tolerance = is_power_of_two(degree) ? 0 : 4 * verify_epsilon(problem->dtype) * weight;
    for (int64_t key = 0; key < out->dim; key++) {
        const double expected = degree && verify_mask_sees(mask, query, key) ? weight : 0;
        const double got = out->data[row * out->dim + key];
        if (!(fabs(got - expected) <= (expected != 0 ? tolerance : 0))) {
            snprintf(why, VERIFY_WHY, "query %lld, key %lld of degree %lld: weight %.9g, expected %.9g",
                     (long long)query, (long long)key, (long long)degree, got, expected);
            return false;
        }
    }
    const double lse = values->role[NF_LSE].data[row], expected = degree ? log((double)degree) : -INFINITY;
    if (lse == expected || fabs(lse - expected) <= verify_tolerance(problem))
        return true;
    snprintf(why, VERIFY_WHY, "query %lld: lse %.9g, expected log of degree %lld", (long long)query, lse,
             (long long)degree);
    return false;
}

/* q = k = 0 and one value channel per key: out is the adjacency matrix divided by the degrees. */
static verify_outcome check_degree(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    nf_problem changed = *problem;
    changed.extra = 0;
    verify_mask mask;
    verify_mask_create(&mask, &changed);
    changed.batch = 1;
    changed.value_dim = mask.keys;
    if (mask.keys > MAX_ONE_HOT || verify_cost(&changed) > engine->affordable) {
        verify_mask_destroy(&mask);
        return not_here(why);
    }
    changed.direction = NF_FWD;
    verify_values values;
    verify_values_create(&values, &changed);
    verify_array *v = &values.role[NF_V];
    for (int64_t key = 0; key < v->tokens; key++)
        for (int64_t h = 0; h < v->heads; h++)
            verify_row(v, 0, key, h)[key] = 1;
    verify_call call = verify_call_plain(engine);
    call.layout = (verify_layout)(seed % VERIFY_BROADCAST);
    call.seed = seed;
    verify_outcome outcome = verify_under_test(engine, &call, &changed, &values, why);
    for (int64_t row = 0; row < values.role[NF_LSE].count && outcome == VERIFY_PASS; row++)
        if (!judge_degrees(&changed, &mask, &values, row, why))
            outcome = VERIFY_FAIL;
    verify_values_destroy(&values);
    verify_mask_destroy(&mask);
    return outcome;
}

/* Marks the keys that share a query with this one; false if every query sees it. */
static bool mark_affected(const verify_mask *mask, int64_t key, bool *affected)
{
    int64_t *row = verify_alloc(mask->longest, sizeof *row);
    bool some_blind = false;
    for (int64_t query = 0; query < mask->queries; query++) {
        if (!verify_mask_sees(mask, query, key)) {
            some_blind = true;
            continue;
        }
        const int64_t count = verify_mask_row(mask, query, row);
        for (int64_t j = 0; j < count; j++)
            affected[row[j]] = true;
    }
    free(row);
    return some_blind;
}

static bool judge_untouched(const verify_mask *mask, int64_t key, const bool *affected, const verify_values *before,
                            const verify_values *after, char *why)
{
    static const int roles[] = {NF_OUT, NF_LSE, NF_DQ, NF_DK, NF_DV};
    for (int i = 0; i < 5; i++) {
        const verify_array *a = &before->role[roles[i]], *b = &after->role[roles[i]];
        for (int64_t bt = 0; bt < a->batch * a->tokens; bt++) {
            const int64_t token = bt % a->tokens, n = a->heads * a->dim;
            const bool touched = i < 3 ? verify_mask_sees(mask, token, key) : affected[token] || token == key;
            if (!touched && !verify_same_rows(a->data + bt * n, b->data + bt * n, n, 0)) {
                snprintf(why, VERIFY_WHY, "%s of token %lld changed with key %lld, which it cannot see",
                         nf_role_name((nf_role)roles[i]), (long long)token, (long long)key);
                return false;
            }
        }
    }
    return true;
}

/* Another finite key and value changes no bit of a row that does not see it. */
static verify_outcome check_invisible(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    verify_random random = verify_random_stream(seed, PURPOSE_KEYS);
    nf_problem tame = *problem;
    if (!verify_tame(engine, &tame))
        return not_here(why);
    verify_mask mask;
    verify_mask_create(&mask, &tame);
    bool *affected = verify_alloc(mask.keys, sizeof *affected);
    const int64_t key = verify_random_below(&random, mask.keys);
    verify_outcome outcome = not_here(why);
    if (mark_affected(&mask, key, affected)) {
        verify_values before, after;
        outcome = verify_normal_trial(engine, &tame, seed, true, &before, why);
        verify_values_copy(&after, &before);
        for (int role = NF_K; role <= NF_V; role++) {
            verify_array *array = &after.role[role];
            for (int64_t b = 0; b < array->batch; b++)
                for (int64_t i = 0; i < array->heads * array->dim; i++)
                    verify_row(array, b, key, 0)[i] = verify_round(tame.dtype, 30 * verify_random_normal(&random));
        }
        if (outcome == VERIFY_PASS)
            outcome = verify_trial(engine, &tame, &after, true, why);
        if (outcome == VERIFY_PASS && !judge_untouched(&mask, key, affected, &before, &after, why))
            outcome = VERIFY_FAIL;
        verify_values_destroy(&before);
        verify_values_destroy(&after);
    }
    free(affected);
    verify_mask_destroy(&mask);
    return outcome;
}

/* ---- Split keys -------------------------------------------------------------------------------------------------- */

typedef struct split {
    nf_problem whole, part[MAX_PARTS];
    verify_values values, part_values[MAX_PARTS];
    int64_t *map[MAX_PARTS]; /* the whole's key token of each of a part's */
    int parts;
} split;

static void cut_keys(split *s, int32_t a, verify_random *random)
{
    const nf_axis *axis = &s->whole.axis[a];
    int64_t inner = 1, done = 0;
    for (int32_t i = a + 1; i < s->whole.rank; i++)
        inner *= s->whole.axis[i].k_count;
    s->parts = (int)(axis->k_count < MAX_PARTS ? axis->k_count : MAX_PARTS);
    for (int p = 0; p < s->parts; p++) {
        const int64_t left = axis->k_count - done, later = s->parts - 1 - p;
        const int64_t count = later ? verify_random_between(random, 1, left - later) : left;
        s->part[p] = s->whole;
        s->part[p].axis[a].k_begin = axis->k_begin + done;
        s->part[p].axis[a].k_count = count;
        if (p)
            s->part[p].extra = 0;
        verify_values_create(&s->part_values[p], &s->part[p]);
        verify_values *values = &s->part_values[p];
        s->map[p] = verify_alloc(values->role[NF_K].tokens, sizeof **s->map);
        for (int64_t t = 0; t < values->role[NF_K].tokens; t++)
            s->map[p][t] = (t / (count * inner) * axis->k_count + done) * inner + t % (count * inner);
        verify_copy_array(&values->role[NF_Q], &s->values.role[NF_Q]);
        verify_take_tokens(&values->role[NF_K], &s->values.role[NF_K], s->map[p]);
        verify_take_tokens(&values->role[NF_V], &s->values.role[NF_V], s->map[p]);
        verify_copy_array(&values->role[NF_EXTRA_K], &s->values.role[NF_EXTRA_K]);
        verify_copy_array(&values->role[NF_EXTRA_V], &s->values.role[NF_EXTRA_V]);
        done += count;
    }
}

/* nf_merge and nf_merge_backward on strided buffers; leaves dout and dlse of the parts in their values. */
static verify_outcome merge(split *s, verify_values *merged, uint64_t seed, char *why)
{
    verify_random random = verify_random_stream(seed, PURPOSE_KEYS + 1);
    const unsigned results = 1u << NF_OUT | 1u << NF_LSE, cotangents = 1u << NF_DOUT | 1u << NF_DLSE;
    const verify_layout layout = (verify_layout)(seed % VERIFY_BROADCAST);
    verify_buffers all, part[MAX_PARTS];
    const nf_tensor *out[MAX_PARTS], *lse[MAX_PARTS], *dout[MAX_PARTS], *dlse[MAX_PARTS];
    verify_buffers_create(&all, merged, results | cotangents, layout, &random);
    verify_buffers_store(&all, merged, NF_DOUT);
    verify_buffers_store(&all, merged, NF_DLSE);
    for (int p = 0; p < s->parts; p++) {
        verify_buffers_create(&part[p], &s->part_values[p], results | cotangents, layout, &random);
        verify_buffers_store(&part[p], &s->part_values[p], NF_OUT);
        verify_buffers_store(&part[p], &s->part_values[p], NF_LSE);
        out[p] = &part[p].tensor[NF_OUT];
        lse[p] = &part[p].tensor[NF_LSE];
        dout[p] = &part[p].tensor[NF_DOUT];
        dlse[p] = &part[p].tensor[NF_DLSE];
    }
    nf_status status = nf_merge(s->parts, out, lse, &all.tensor[NF_OUT], &all.tensor[NF_LSE]);
    if (status == NF_OK)
        status = nf_merge_backward(s->parts, out, lse, &all.tensor[NF_OUT], &all.tensor[NF_LSE], &all.tensor[NF_DOUT],
                                   &all.tensor[NF_DLSE], dout, dlse);
    int64_t trespassed = verify_buffers_trespassed(&all, NF_OUT) + verify_buffers_trespassed(&all, NF_LSE);
    verify_buffers_load(&all, merged, NF_OUT);
    verify_buffers_load(&all, merged, NF_LSE);
    for (int p = 0; p < s->parts; p++) {
        trespassed += verify_buffers_trespassed(&part[p], NF_DOUT) + verify_buffers_trespassed(&part[p], NF_DLSE);
        verify_buffers_load(&part[p], &s->part_values[p], NF_DOUT);
        verify_buffers_load(&part[p], &s->part_values[p], NF_DLSE);
        verify_buffers_destroy(&part[p]);
    }
    verify_buffers_destroy(&all);
    if (status == NF_OK && !trespassed)
        return VERIFY_PASS;
    snprintf(why, VERIFY_WHY, "nf_merge: %s; %lld guard elements overwritten", status == NF_OK ? "ok" : nf_last_error(),
             (long long)trespassed);
    return VERIFY_FAIL;
}

static verify_outcome run_parts(const verify_engine *engine, split *s, nf_direction direction, char *why)
{
    verify_outcome outcome = VERIFY_PASS;
    for (int p = 0; p < s->parts && outcome == VERIFY_PASS; p++) {
        nf_problem directed = s->part[p];
        directed.direction = direction;
        outcome = verify_trial(engine, &directed, &s->part_values[p], true, why);
    }
    return outcome;
}

/* Puts the parts' key gradients where the whole has them and adds their dq. */
static void collect_gradients(const split *s, verify_values *merged)
{
    for (int p = 0; p < s->parts; p++) {
        const verify_values *part = &s->part_values[p];
        if (p == 0) {
            verify_copy_array(&merged->role[NF_DQ], &part->role[NF_DQ]);
            verify_copy_array(&merged->role[NF_DEXTRA_K], &part->role[NF_DEXTRA_K]);
            verify_copy_array(&merged->role[NF_DEXTRA_V], &part->role[NF_DEXTRA_V]);
        } else {
            verify_add_array(&merged->role[NF_DQ], &part->role[NF_DQ]);
        }
        for (int role = NF_DK; role <= NF_DV; role++) {
            verify_array *to = &merged->role[role];
            for (int64_t b = 0; b < to->batch; b++)
                for (int64_t t = 0; t < part->role[role].tokens; t++)
                    memcpy(verify_row(to, b, s->map[p][t], 0), verify_row(&part->role[role], b, t, 0),
                           (size_t)(to->heads * to->dim) * sizeof(double));
        }
    }
}

/* Attention over parts of the keys, merged by lse, is attention over all of them, forward and backward. */
static verify_outcome check_split(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    verify_random random = verify_random_stream(seed, PURPOSE_KEYS);
    split s = {.whole = *problem};
    if (s.whole.dtype != NF_F64)
        s.whole.out_dtype = NF_F32;
    if (!verify_tame(engine, &s.whole))
        return not_here(why);
    int32_t longest = 0;
    for (int32_t a = 0; a < s.whole.rank; a++) {
        nf_axis *axis = &s.whole.axis[a];
        if (!axis->k_count)
            axis->k_count = (axis->key_extent ? axis->key_extent : axis->extent) - axis->k_begin;
        if (axis->k_count > s.whole.axis[longest].k_count)
            longest = a;
    }
    verify_values merged;
    verify_outcome outcome = verify_normal_trial(engine, &s.whole, seed, true, &s.values, why);
    verify_values_copy(&merged, &s.values);
    cut_keys(&s, longest, &random);
    if (outcome == VERIFY_PASS)
        outcome = run_parts(engine, &s, NF_FWD, why);
    if (outcome == VERIFY_PASS)
        outcome = merge(&s, &merged, seed, why);
    if (outcome == VERIFY_PASS)
        outcome = run_parts(engine, &s, NF_BOTH, why);
    if (outcome == VERIFY_PASS) {
        collect_gradients(&s, &merged);
        if (!verify_same_outputs(&merged, &s.values, verify_tolerance(&s.whole), why))
            outcome = VERIFY_FAIL;
    }
    for (int p = 0; p < s.parts; p++) {
        verify_values_destroy(&s.part_values[p]);
        free(s.map[p]);
    }
    verify_values_destroy(&merged);
    verify_values_destroy(&s.values);
    return outcome;
}

const verify_identity verify_identities_keys[] = {
    {"adjacency", check_degree},
    {"invisible-key", check_invisible},
    {"split-keys", check_split},
    {NULL, NULL},
};
