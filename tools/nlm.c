/* Non-local means: patches, blocks, and one call of the library for each. */
#include "nlm.h"

#include <stdlib.h>
#include <string.h>

/* The queries of a block and the keys they see. Rank 3 throughout: missing axes lead, with extent 1. */
typedef struct block {
    nf_range queries[NF_NLM_MAX_RANK], keys[NF_NLM_MAX_RANK];
} block;

/* A run: the problem in rank 3 and its buffers. */
typedef struct nlm_run {
    nf_nlm nlm;
    int missing; /* leading axes that are not the caller's */
    const float *in;
    float *out;
    nf_patches patches;
    int64_t dim;                   /* of queries and keys: a patch's values and the extra channel */
    int64_t size[NF_NLM_MAX_RANK]; /* of a block's queries, where the picture does not end earlier */
    float *queries, *keys;         /* the patches of one block */
    float *mean;                   /* colour of its keys */
} nlm_run;

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t volume_of(const nf_range ranges[NF_NLM_MAX_RANK])
{
    return ranges[0].count * ranges[1].count * ranges[2].count;
}

/* The keys seen by a range of queries: the neighborhood rule for stride and dilation 1. */
static nf_range keys_of(nf_range queries, int64_t extent, int64_t window)
{
    int64_t ends[2] = {queries.first, queries.first + queries.count - 1};
    for (int i = 0; i < 2; i++) {
        const int64_t first = ends[i] - window / 2;
        ends[i] = first < 0 ? 0 : smaller(first, extent - window);
    }
    return (nf_range){ends[0], ends[1] + window - ends[0]};
}

static size_t bytes_of_block(const nlm_run *run, const int64_t size[NF_NLM_MAX_RANK])
{
    int64_t queries = 1, keys = 1;
    for (int a = 0; a < NF_NLM_MAX_RANK; a++) {
        queries *= size[a];
        keys *= smaller(size[a] + run->nlm.window[a] - 1, run->nlm.extents[a]);
    }
    return (size_t)((queries + keys) * run->dim) * sizeof(float);
}

/* Halves the longest side until the patches fit: near-cubic blocks share the most keys. */
static void choose_block_size(nlm_run *run)
{
    int64_t *const size = run->size;
    memcpy(size, run->nlm.extents, sizeof run->size);
    while (bytes_of_block(run, size) > run->nlm.block_bytes && size[0] * size[1] * size[2] > 1) {
        int longest = 0;
        for (int a = 1; a < NF_NLM_MAX_RANK; a++)
            longest = size[a] > size[longest] ? a : longest;
        size[longest] = (size[longest] + 1) / 2;
    }
}

static const float *pixel(const nlm_run *run, int64_t z, int64_t y, int64_t x)
{
    return run->in + ((z * run->nlm.extents[1] + y) * run->nlm.extents[2] + x) * run->nlm.step;
}

static void find_mean_colour(const nlm_run *run, const nf_range keys[NF_NLM_MAX_RANK])
{
    for (int c = 0; c < run->nlm.channels; c++) {
        double sum = 0;
        for (int64_t z = 0; z < keys[0].count; z++)
            for (int64_t y = 0; y < keys[1].count; y++) {
                const float *const row = pixel(run, keys[0].first + z, keys[1].first + y, keys[2].first);
                for (int64_t x = 0; x < keys[2].count; x++)
                    sum += (double)row[x * run->nlm.step + c];
            }
        run->mean[c] = (float)(sum / (double)volume_of(keys));
    }
}

/* A query is its pixel's key with 1 in the extra channel. */
static void fill_queries(const nlm_run *run, const block *b)
{
    const nf_range *const queries = b->queries, *const keys = b->keys;
    const int64_t rows = queries[0].count * queries[1].count, dim = run->dim;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const int64_t z = queries[0].first - keys[0].first + row / queries[1].count;
        const int64_t y = queries[1].first - keys[1].first + row % queries[1].count;
        const int64_t x = queries[2].first - keys[2].first;
        float *const to = run->queries + row * queries[2].count * dim;
        memcpy(to, run->keys + ((z * keys[1].count + y) * keys[2].count + x) * dim,
               (size_t)(queries[2].count * dim) * sizeof *to);
        for (int64_t i = 0; i < queries[2].count; i++)
            to[i * dim + dim - 1] = 1;
    }
}

static void set_problem(const nlm_run *run, const block *b, nf_problem *problem)
{
    const nf_nlm *const nlm = &run->nlm;
    nf_problem_init(problem);
    problem->rank = nlm->rank;
    problem->head_dim = run->dim;
    problem->value_dim = nlm->channels;
    problem->scale_set = 1;
    problem->scale = 2 / ((double)(run->dim - 1) * nlm->strength * nlm->strength);
    for (int a = run->missing; a < NF_NLM_MAX_RANK; a++) {
        nf_axis *const axis = &problem->axis[a - run->missing];
        axis->extent = nlm->extents[a];
        axis->window = nlm->window[a];
        axis->q_begin = b->queries[a].first;
        axis->q_count = b->queries[a].count;
        axis->k_begin = b->keys[a].first;
        axis->k_count = b->keys[a].count;
    }
}

/* A block of patches of our own, [1, axes..., 1, dim]. */
static nf_status patches_tensor(const nlm_run *run, nf_tensor *tensor, float *data,
                                const nf_range ranges[NF_NLM_MAX_RANK], int64_t dim)
{
    int64_t extents[NF_NLM_MAX_RANK + 3] = {1};
    for (int a = 0; a < run->nlm.rank; a++)
        extents[1 + a] = ranges[run->missing + a].count;
    extents[1 + run->nlm.rank] = 1;
    extents[2 + run->nlm.rank] = dim;
    return nf_tensor_init(tensor, data, NF_F32, 3 + run->nlm.rank, extents);
}

/* A block of the picture itself, which is neither contiguous nor copied. */
static nf_status picture_tensor(const nlm_run *run, nf_tensor *tensor, const float *picture,
                                const nf_range ranges[NF_NLM_MAX_RANK])
{
    const int64_t *const extents = run->nlm.extents, step = run->nlm.step;
    const int64_t strides[] = {extents[1] * extents[2] * step, extents[2] * step, step};
    int64_t offset = 0;
    for (int a = 0; a < NF_NLM_MAX_RANK; a++)
        offset += ranges[a].first * strides[a];
    const nf_status status =
        patches_tensor(run, tensor, (float *)(uintptr_t)(picture + offset), ranges, run->nlm.channels);
    for (int a = 0; a < run->nlm.rank && status == NF_OK; a++)
        tensor->strides[1 + a] = strides[run->missing + a];
    return status;
}

static void add_to_report(const nf_plan *plan, nf_nlm_report *report)
{
    nf_plan_info info = {.size = sizeof info};
    if (!report || nf_plan_get_info(plan, &info) != NF_OK)
        return;
    if (report->pairs == 0)
        snprintf(report->chosen, sizeof report->chosen, "%s %s%s%s", info.backend, info.algo, *info.kernel ? " " : "",
                 info.kernel);
    report->pairs += info.useful_pairs;
    report->flops += info.forward_flops;
}

static nf_status attend(const nlm_run *run, nf_context *context, const block *b, nf_nlm_report *report)
{
    nf_problem problem;
    nf_plan *plan = NULL;
    nf_plan_options options;
    nf_tensor q, k, v, out;
    nf_io io;
    nf_io_init(&io);
    io.q = &q;
    io.k = &k;
    io.v = &v;
    io.out = &out;
    nf_plan_options_init(&options);
    options.layout = &io;
    set_problem(run, b, &problem);
    nf_status status = patches_tensor(run, &q, run->queries, b->queries, run->dim);
    if (status == NF_OK)
        status = patches_tensor(run, &k, run->keys, b->keys, run->dim);
    if (status == NF_OK)
        status = picture_tensor(run, &v, run->in, b->keys);
    if (status == NF_OK)
        status = picture_tensor(run, &out, run->out, b->queries);
    if (status == NF_OK)
        status = nf_plan_create(&plan, context, &problem, &options);
    if (status == NF_OK)
        status = nf_forward(plan, &io, NULL);
    if (status == NF_OK)
        add_to_report(plan, report);
    nf_plan_destroy(plan);
    return status;
}

static nf_status run_block(const nlm_run *run, nf_context *context, block *b, nf_nlm_report *report)
{
    for (int a = 0; a < NF_NLM_MAX_RANK; a++)
        b->keys[a] = keys_of(b->queries[a], run->nlm.extents[a], run->nlm.window[a]);
    find_mean_colour(run, b->keys);
    nf_patches_fill(&run->patches, b->keys, run->mean, run->keys);
    fill_queries(run, b);
    return attend(run, context, b, report);
}

static nf_status run_blocks(const nlm_run *run, nf_context *context, nf_nlm_watcher watcher, void *user,
                            nf_nlm_report *report)
{
    const int64_t *const extents = run->nlm.extents, *const size = run->size;
    int64_t done = 0;
    for (int64_t z = 0; z < extents[0]; z += size[0])
        for (int64_t y = 0; y < extents[1]; y += size[1])
            for (int64_t x = 0; x < extents[2]; x += size[2]) {
                block b = {.queries = {{z, smaller(size[0], extents[0] - z)},
                                       {y, smaller(size[1], extents[1] - y)},
                                       {x, smaller(size[2], extents[2] - x)}}};
                const nf_status status = run_block(run, context, &b, report);
                if (status != NF_OK)
                    return status;
                done += volume_of(b.queries);
                if (report)
                    report->blocks++;
                if (watcher)
                    watcher(user, done);
            }
    return NF_OK;
}

/* The run in rank 3, without buffers. */
static void describe(nlm_run *run, const nf_nlm *nlm, const float *in, float *out)
{
    const int missing = NF_NLM_MAX_RANK - nlm->rank;
    *run = (nlm_run){.nlm = *nlm, .missing = missing, .in = in, .out = out};
    run->patches = (nf_patches){.in = in, .channels = nlm->channels, .step = nlm->step};
    for (int a = 0; a < NF_NLM_MAX_RANK; a++) {
        run->nlm.extents[a] = a < missing ? 1 : nlm->extents[a - missing];
        run->nlm.window[a] = a < missing ? 1 : nlm->window[a - missing];
        run->patches.extents[a] = run->nlm.extents[a];
        run->patches.patch[a] = a < missing ? 1 : nlm->patch[a - missing];
    }
    run->dim = nf_patches_choose(&run->patches, nlm->features) + 1;
    if (run->nlm.block_bytes == 0)
        run->nlm.block_bytes = NF_NLM_BLOCK_BYTES;
    choose_block_size(run);
}

static bool allocate(nlm_run *run)
{
    const size_t bytes = bytes_of_block(run, run->size);
    const size_t query_bytes = (size_t)(run->size[0] * run->size[1] * run->size[2] * run->dim) * sizeof(float);
    run->queries = malloc(query_bytes);
    run->keys = malloc(bytes - query_bytes);
    run->mean = malloc((size_t)run->nlm.channels * sizeof *run->mean);
    return run->queries && run->keys && run->mean && nf_patches_prepare(&run->patches);
}

static void release(nlm_run *run)
{
    nf_patches_release(&run->patches);
    free(run->queries);
    free(run->keys);
    free(run->mean);
}

bool nf_nlm_run(const nf_nlm *nlm, nf_context *context, const float *in, float *out, nf_nlm_watcher watcher, void *user,
                nf_nlm_report *report, nf_message *message)
{
    nlm_run run;
    describe(&run, nlm, in, out);
    const size_t bytes = bytes_of_block(&run, run.size);
    bool done = true;
    if (report)
        *report = (nf_nlm_report){.patch_bytes = bytes};
    if (bytes > NF_NLM_MAX_BLOCK_BYTES && bytes > run.nlm.block_bytes)
        done = nf_message_set(message,
                              "the patches in one pixel's window take %zu bytes, which must be at most %zu: "
                              "use a smaller window or patch",
                              bytes, NF_NLM_MAX_BLOCK_BYTES);
    else if (!allocate(&run))
        done = nf_message_set(message, "not enough memory for %zu bytes of patches", bytes);
    else if (run_blocks(&run, context, watcher, user, report) != NF_OK)
        done = nf_message_set(message, "%s", nf_last_error());
    release(&run);
    return done;
}
