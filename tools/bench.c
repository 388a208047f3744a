/* nearfield bench - verifies problems, then times them against the machine's measured limits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "bench_print.h"
#include "bench_time.h"

static const char *const self = "bench";

/* Layers of published models, large ones cropped to one head and to what a small machine does in seconds. */
static const char *const default_problems[] = {
    "na2d f32 h2 d32 56x56 w7 both",            /* NAT-Mini, stages 1 to 4 */
    "na2d f32 h4 d32 28x28 w7 both",
    "na2d f32 h8 d32 14x14 w7 both",
    "na2d f32 h16 d32 7x7 w7 both",
    "na2d f32 h2 d32 56x56 w7 dil8 both",       /* DiNAT-Mini, stage 1 */
    "na2d f32 h8 d64 64x64 w13 both",           /* a larger window */
    "na2d f32 h1 d64 128x128 w41 fwd",          /* FLUX, cropped */
    "na3d f32 h1 d128 15x24x40 w9x12x12 both",  /* HunyuanVideo, cropped */
    "na1d f32 h8 d64 4096 w31 both",            /* a sliding window over a sequence */
    "na1d f32 h1 d64 131072 w257 fwd",          /* a long sequence: memory */
    "na1d f32 h8/2 d128 2048 w1024 c1 both",    /* Mistral, cropped */
    "na1d f32 h8 d64 2048 both",                /* dense */
    "na1d bf16 h8 d64 2048 both",
    "na1d f64 h2 d64 1024 both",
};

typedef struct bench_options {
    const char *backend, *algo;
    bool csv, no_verify;
    int64_t threads, repeats, seed;
    bool failed; /* set when a check fails */
} bench_options;

/* Library memory and the process's growth, from before the plan to after one execution of each direction. */
static nf_status plan_and_warm(nf_context *context, const bench_data *data, const nf_plan_options *options,
                               nf_plan **plan, bench_case *c)
{
    bench_reset_peak();
    const size_t before = bench_resident_bytes();
    nf_status status = nf_plan_create(plan, context, &data->problem, options);
    if (status == NF_OK)
        status = bench_execute(*plan, data, NF_FWD);
    if (status == NF_OK && data->io.dout)
        status = bench_execute(*plan, data, NF_BWD);
    size_t current;
    const size_t peak = bench_peak_bytes();
    nf_context_memory(context, &current, &c->library_peak);
    c->process_growth = peak > before ? peak - before : 0;
    return status;
}

static int check_and_time(const nf_plan *plan, bench_case *c, bench_options *options)
{
    const bench_data *data = c->data;
    c->verdict = (bench_verdict){.method = "none", .tensor = "", .passed = true};
    if (!options->no_verify && bench_check(data, c->info->useful_pairs, &c->verdict))
        return NF_TOOL_BAD;
    bench_print_case(options->csv, c);
    if (!c->verdict.passed) {
        options->failed = true;
        fprintf(stderr, "nearfield bench: %s: %s/%s is wrong: %s is off by %.3e, the limit is %.1e\n", c->problem,
                c->info->backend, c->info->algo, c->verdict.tensor, c->verdict.error, c->verdict.limit);
        return NF_TOOL_OK;
    }
    for (int direction = NF_FWD; direction <= NF_BWD; direction++) {
        if (!((int)data->problem.direction & direction))
            continue;
        bench_timing timing;
        if (bench_time(plan, data, (nf_direction)direction, (int)options->repeats, &timing))
            return NF_TOOL_BAD;
        bench_print_timing(options->csv, c, (nf_direction)direction, &timing);
    }
    return NF_TOOL_OK;
}

/* One problem on one algorithm; *done tells whether the library can run it so. */
static int bench_algorithm(const bench_data *data, const char *problem, const char *backend, const char *algo,
                           bench_options *options, bool *done)
{
    nf_context *context = nf_tool_context(self, options->backend, options->threads);
    if (!context)
        return NF_TOOL_BAD;
    nf_plan_options plan_options;
    nf_plan_options_init(&plan_options);
    plan_options.backend = backend;
    plan_options.algo = algo;
    nf_plan_info info = {.size = sizeof(info)};
    bench_case c = {.problem = problem, .data = data, .info = &info};
    nf_plan *plan = NULL;
    const nf_status made = plan_and_warm(context, data, &plan_options, &plan, &c);
    int status = NF_TOOL_OK;
    *done = made == NF_OK && nf_plan_get_info(plan, &info) == NF_OK;
    if (*done)
        status = check_and_time(plan, &c, options);
    else if (!backend || made != NF_ERR_UNSUPPORTED)
        status = nf_tool_fail_status(self, "%s", problem);
    nf_plan_destroy(plan);
    nf_context_destroy(context);
    return status;
}

/* Every algorithm of every backend that may run here; the reference only if asked for. */
static int bench_all_algorithms(const bench_data *data, const char *problem, bench_options *options)
{
    nf_context *context = nf_tool_context(self, options->backend, options->threads);
    if (!context)
        return NF_TOOL_BAD;
    int status = NF_TOOL_OK, count = 0;
    for (int b = 0; nf_backend_name(b) && status == NF_TOOL_OK; b++) {
        const char *backend = nf_backend_name(b);
        const bool unasked = !options->backend && strcmp(backend, "reference") == 0;
        if (unasked || nf_backend_available(context, backend) != NF_OK)
            continue;
        for (int a = 0; nf_algorithm_name(backend, a) && status == NF_TOOL_OK; a++) {
            bool done;
            status = bench_algorithm(data, problem, backend, nf_algorithm_name(backend, a), options, &done);
            count += done;
        }
    }
    nf_context_destroy(context);
    if (status == NF_TOOL_OK && count == 0)
        status = nf_tool_fail_status(self, "%s: no algorithm can run it", problem);
    return status;
}

static int bench_problem(const char *text, bench_options *options)
{
    nf_problem problem;
    if (nf_problem_parse(&problem, text) != NF_OK || nf_problem_check(&problem) != NF_OK)
        return nf_tool_fail_status(self, "PROBLEM \"%s\"", text);
    char *canonical = nf_tool_problem_text(self, &problem);
    bench_data data;
    if (!canonical || bench_data_create(&data, &problem, (uint64_t)options->seed)) {
        free(canonical);
        return NF_TOOL_BAD;
    }
    bool done;
    int status;
    if (options->algo && strcmp(options->algo, "all") == 0)
        status = bench_all_algorithms(&data, canonical, options);
    else
        status = bench_algorithm(&data, canonical, NULL, options->algo, options, &done);
    bench_data_destroy(&data);
    free(canonical);
    return status;
}

int nf_tool_bench(int argc, char **argv)
{
    bench_options o = {.repeats = 7, .seed = 1};
    const nf_tool_option options[] = {
        {"backend", NF_TOOL_STRING, &o.backend, .value = "NAME", .help = "as NEARFIELD_BACKEND"},
        {"algo", NF_TOOL_STRING, &o.algo, .value = "NAME", .help = "use only this algorithm; all: each in turn"},
        {"csv", NF_TOOL_FLAG, &o.csv, .help = "print comma-separated rows under a line of column names"},
        {"threads", NF_TOOL_INT, &o.threads, .value = "N", .help = "threads to use", .minimum = 1, .maximum = 4096},
        {"repeats", NF_TOOL_INT, &o.repeats, .value = "N", .help = "samples per problem and direction, by default 7",
         .minimum = 1, .maximum = 10000},
        {"seed", NF_TOOL_INT, &o.seed, .value = "N", .help = "of the random inputs", .minimum = 0, .maximum = 1e15},
        {"no-verify", NF_TOOL_FLAG, &o.no_verify, .help = "time without checking the results first"},
        {0}};
    const nf_tool_command command = {
        .name = self, .words = "[PROBLEM...]", .max_words = -1, .options = options,
        .summary = "Verifies each problem, then times it: median and range, useful GFLOP/s, computed/useful pairs, fractions\n"
                   "of the multiply-add peak and of the memory bandwidth that it measures first, and memory. Without a\n"
                   "PROBLEM, a set of layers from published models. Samples taken while other processes ran are discarded."};
    const int stop = nf_tool_parse(&command, &argc, argv);
    if (stop != NF_TOOL_CONTINUE)
        return stop;
    const int defaults = sizeof(default_problems) / sizeof(*default_problems);
    const int count = argc > 1 ? argc - 1 : defaults;
    int status = NF_TOOL_OK;
    bench_print_start(o.csv);
    for (int i = 0; i < count && status == NF_TOOL_OK; i++)
        status = bench_problem(argc > 1 ? argv[i + 1] : default_problems[i], &o);
    if (status == NF_TOOL_OK && o.failed)
        status = NF_TOOL_FAILED;
    return nf_tool_finish(self, status);
}
