/* nearfield bench - verifies problems, then times them against the machine's measured limits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "bench_case.h"
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

enum { MAX_THREADS = 4096, MAX_COUNTS = 16 };

typedef struct bench_options {
    const char *backend, *algo, *threads_text;
    bool csv, no_verify, interleave;
    int64_t repeats, seed;
    int64_t threads[MAX_COUNTS];
    int thread_counts;
} bench_options;

typedef struct bench_subject {
    char *problem; /* canonical */
    bench_data data;
} bench_subject;

typedef struct bench_run {
    bench_options options;
    bench_case *cases; /* planned and verified, not yet timed */
    int count;
    bool failed; /* a result is wrong */
} bench_run;

static void report_wrong(const bench_case *c)
{
    fprintf(stderr, "nearfield bench: %s: ", c->problem);
    bench_print_algorithms(stderr, &c->info);
    fprintf(stderr, " is wrong: %s is off by %.3e, the limit is %.1e\n", c->verdict.tensor, c->verdict.error,
            c->verdict.limit);
}

/* Times the cases in turn, prints and forgets them. */
static int time_cases(bench_run *run)
{
    bench_case **timed = calloc((size_t)run->count + 1, sizeof(*timed));
    int status = timed ? NF_TOOL_OK : nf_tool_error(self, "out of memory for %d cases", run->count);
    for (int direction = NF_FWD; direction <= NF_BWD && status == NF_TOOL_OK; direction++) {
        int count = 0;
        for (int i = 0; i < run->count; i++)
            if (run->cases[i].verdict.passed && ((int)run->cases[i].data->problem.direction & direction))
                timed[count++] = &run->cases[i];
        status = bench_time(timed, count, (nf_direction)direction, (int)run->options.repeats);
    }
    for (int i = 0; i < run->count; i++) {
        bench_case *c = &run->cases[i];
        if (status == NF_TOOL_OK) {
            bench_print_case(run->options.csv, c);
            for (int direction = NF_FWD; direction <= NF_BWD && c->verdict.passed; direction++)
                if ((int)c->data->problem.direction & direction)
                    bench_print_timing(run->options.csv, c, (nf_direction)direction);
            if (!c->verdict.passed)
                report_wrong(c);
        }
        bench_case_destroy(c);
    }
    free(timed);
    run->count = 0;
    return status;
}

/* One problem on one algorithm; *done tells whether the library can run it so. */
static int add_case(bench_run *run, const bench_subject *subject, int64_t threads, const char *backend,
                    const char *algo, bool *done)
{
    bench_case *cases = realloc(run->cases, ((size_t)run->count + 1) * sizeof(*cases));
    if (!cases)
        return nf_tool_error(self, "out of memory for %d cases", run->count + 1);
    run->cases = cases;
    bench_case *c = &cases[run->count];
    *c = (bench_case){.problem = subject->problem, .data = &subject->data};
    int status = bench_case_create(c, run->options.backend, threads, backend, algo, done);
    if (*done && !run->options.no_verify)
        status = bench_check(&subject->data, c->info.useful_pairs, &c->verdict);
    if (status != NF_TOOL_OK || !*done) {
        bench_case_destroy(c);
        return status;
    }
    run->count++;
    run->failed = run->failed || !c->verdict.passed;
    return run->options.interleave ? NF_TOOL_OK : time_cases(run);
}

/* Every algorithm of every backend that may run here; the reference, and devices, which may take minutes to build what does
 * not suit them, only if asked for. */
static int add_all_algorithms(bench_run *run, const bench_subject *subject, int64_t threads)
{
    const bench_options *o = &run->options;
    nf_context *context = nf_tool_context(self, o->backend, threads);
    if (!context)
        return NF_TOOL_BAD;
    int status = NF_TOOL_OK, count = 0;
    for (int b = 0; nf_backend_name(b) && status == NF_TOOL_OK; b++) {
        const char *backend = nf_backend_name(b);
        const bool unasked = !o->backend && (strcmp(backend, "reference") == 0 || strcmp(backend, "opencl") == 0);
        if (unasked || nf_backend_available(context, backend) != NF_OK)
            continue;
        for (int a = 0; nf_algorithm_name(backend, a) && status == NF_TOOL_OK; a++) {
            bool done;
            status = add_case(run, subject, threads, backend, nf_algorithm_name(backend, a), &done);
            count += done;
        }
    }
    nf_context_destroy(context);
    if (status == NF_TOOL_OK && count == 0)
        status = nf_tool_fail_status(self, "%s: no algorithm can run it", subject->problem);
    return status;
}

/* The algorithms that --algo lists; "auto" is the library's choice. */
static int add_algorithms(bench_run *run, const bench_subject *subject, int64_t threads)
{
    const char *list = run->options.algo ? run->options.algo : "auto";
    if (strcmp(list, "all") == 0)
        return add_all_algorithms(run, subject, threads);
    char *names = strdup(list);
    if (!names)
        return nf_tool_error(self, "out of memory");
    int status = NF_TOOL_OK;
    char *rest = names;
    for (char *name = strsep(&rest, ","); name && status == NF_TOOL_OK; name = strsep(&rest, ",")) {
        bool done;
        status = add_case(run, subject, threads, NULL, strcmp(name, "auto") == 0 ? NULL : name, &done);
    }
    free(names);
    return status;
}

static int add_subject(bench_run *run, const char *text, bench_subject *subject)
{
    nf_problem problem;
    if (nf_problem_parse(&problem, text) != NF_OK || nf_problem_check(&problem) != NF_OK)
        return nf_tool_fail_status(self, "PROBLEM \"%s\"", text);
    subject->problem = nf_tool_problem_text(self, &problem);
    if (!subject->problem || bench_data_create(&subject->data, &problem, (uint64_t)run->options.seed))
        return NF_TOOL_BAD;
    int status = NF_TOOL_OK;
    for (int i = 0; i < run->options.thread_counts && status == NF_TOOL_OK; i++)
        status = add_algorithms(run, subject, run->options.threads[i]);
    return status;
}

static void destroy_subject(bench_subject *subject)
{
    bench_data_destroy(&subject->data);
    free(subject->problem);
    subject->problem = NULL;
}

static int bench_problems(bench_run *run, const char *const *problems, int count)
{
    bench_subject *subjects = calloc((size_t)count, sizeof(*subjects));
    if (!subjects)
        return nf_tool_error(self, "out of memory for %d problems", count);
    bench_print_start(run->options.csv);
    int status = NF_TOOL_OK;
    for (int i = 0; i < count && status == NF_TOOL_OK; i++) {
        status = add_subject(run, problems[i], &subjects[i]);
        if (!run->options.interleave)
            destroy_subject(&subjects[i]);
    }
    if (status == NF_TOOL_OK)
        status = time_cases(run);
    for (int i = 0; i < run->count; i++)
        bench_case_destroy(&run->cases[i]);
    for (int i = 0; i < count; i++)
        destroy_subject(&subjects[i]);
    free(run->cases);
    free(subjects);
    return status;
}

/* "1,2": cases on one thread and on two. */
static int read_threads(bench_options *o)
{
    o->thread_counts = 1; /* the library's choice */
    if (!o->threads_text)
        return NF_TOOL_OK;
    char *numbers = strdup(o->threads_text), *rest = numbers;
    if (!numbers)
        return nf_tool_error(self, "out of memory");
    int status = NF_TOOL_OK, count = 0;
    for (char *number = strsep(&rest, ","); number && status == NF_TOOL_OK; number = strsep(&rest, ",")) {
        int64_t threads;
        if (count == MAX_COUNTS || !nf_tool_read_int(number, &threads) || threads < 1 || threads > MAX_THREADS)
            status = nf_tool_error(self, "--threads %s: must be up to %d numbers between 1 and %d, with commas between",
                                   o->threads_text, MAX_COUNTS, MAX_THREADS);
        else
            o->threads[count++] = threads;
    }
    o->thread_counts = count;
    free(numbers);
    return status;
}

int nf_tool_bench(int argc, char **argv)
{
    bench_run run = {.options = {.repeats = 7, .seed = 1}};
    bench_options *const o = &run.options;
    const nf_tool_option options[] = {
        {"backend", NF_TOOL_STRING, &o->backend, .value = "NAME", .help = "as NEARFIELD_BACKEND"},
        {"algo", NF_TOOL_STRING, &o->algo, .value = "NAMES",
         .help = "use these algorithms, as in tile,stencil; auto: the library's choice; all: each there is"},
        {"csv", NF_TOOL_FLAG, &o->csv, .help = "print comma-separated rows under a line of column names"},
        {"threads", NF_TOOL_STRING, &o->threads_text, .value = "NUMBERS", .help = "threads to use, as in 2 or 1,2"},
        {"interleave", NF_TOOL_FLAG, &o->interleave, .help = "take samples of everything in turn, for fair ratios"},
        {"repeats", NF_TOOL_INT, &o->repeats, .value = "N", .help = "samples per problem and direction, by default 7",
         .minimum = 1, .maximum = 10000},
        {"seed", NF_TOOL_INT, &o->seed, .value = "N", .help = "of the random inputs", .minimum = 0, .maximum = 1e15},
        {"no-verify", NF_TOOL_FLAG, &o->no_verify, .help = "time without checking the results first"},
        {0}};
    const nf_tool_command command = {
        .name = self, .words = "[PROBLEM...]", .max_words = -1, .options = options,
        .summary =
            "Verifies each problem, then times it: median and range, useful GFLOP/s, computed/useful pairs, fractions\n"
            "of the multiply-add peak and of the memory bandwidth, both measured here, the least time that these limits\n"
            "allow (floor), and memory. Without a PROBLEM, a set of layers from published models. Samples taken while\n"
            "other processes ran are discarded."};
    int status = nf_tool_parse(&command, &argc, argv);
    if (status != NF_TOOL_CONTINUE)
        return status;
    status = read_threads(o);
    if (status == NF_TOOL_OK && argc > 1)
        status = bench_problems(&run, (const char *const *)argv + 1, argc - 1);
    else if (status == NF_TOOL_OK)
        status = bench_problems(&run, default_problems, sizeof(default_problems) / sizeof(*default_problems));
    if (status == NF_TOOL_OK && run.failed)
        status = NF_TOOL_FAILED;
    return nf_tool_finish(self, status);
}
