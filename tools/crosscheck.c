/* nearfield crosscheck - runs problems on every device of every backend and judges each as `nearfield verify` does. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "verify.h"

static const char *const self = "crosscheck";

/* Every rank, type and feature, small enough for a simulated device. */
static const char *const default_problems[] = {
    "na1d f32 h2 d32 300 w33", /* several tiles, ordinary */
    "na1d f64 h2 d24/40 90 w9 s4 dil3",
    "na1d bf16 h4/2 d64 200 w70 c1",
    "na1d f16 b2 h2 d17 70 w12 s5 c1",
    "na1d f32 h2/1 d64 140",                                /* dense */
    "na1d bf16 d8 20/90 c1",                                /* cross attention */
    "na1d f32 d256/192 48 w17",                             /* large head_dim */
    "na2d f32 b2 h4/2 d17/9 9x11 w5x3 s2x1 dil1x2 c0x1 x3", /* extra tokens, all at once */
    "na2d f64 h2 d8 10x9 w4x9 s4x3",                        /* blocked */
    "na2d bf16 out=f32 h2 d32 14x14 w7 dil2",
    "na2d f16 h3/1 d48/16 12x13 w5x6 s2x6 x2",
    "na2d f32 d8 9x11 w5 q2:6x0:11 k1:7x2:9", /* ranges: some rows see little or nothing */
    "na3d f32 h2 d24 6x7x8 w3x5x4 s2x3x4",
    "na3d bf16 h2/1 d16 5x8x6 w4x3x6 dil1x2x1 c1x0x0",
    "na4d f32 h2 d12 3x4x5x4 w2x3x3x1 s1x2x3x1 c0x1x0x0 x1",
    "na4d f16 d8 4x3x4x3 w2x1x3x3 dil2x1x1x1",
};

/* What each problem is given on each device. Layouts other than the contiguous one are converted or refused by a
 * device. */
static const struct {
    verify_kind kind;
    verify_layout layout;
} trials[] = {
    {VERIFY_NORMAL, VERIFY_CONTIGUOUS},
    {VERIFY_LARGE, VERIFY_HEADS_FIRST},
    {VERIFY_POISON, VERIFY_NEGATIVE},
};
enum { TRIALS = sizeof trials / sizeof *trials, NAME_CAPACITY = 160, CELL = 8, MAX_DEVICES = 64 };

typedef struct device {
    char name[NAME_CAPACITY];
    verify_engine engine; /* its context is the device's alone */
    double worst;
    char last_skip[VERIFY_WHY];
} device;

typedef struct session {
    device devices[MAX_DEVICES];
    int count;
    nf_context *truth;
    const char *backend, *algo, *device, *isa; /* as asked for */
    int64_t seed;
    int64_t passed, failed, skipped;
    int width; /* of the longest problem */
} session;

/* NULL, and the reason in nf_last_error(), if the backend cannot run so. */
static nf_context *open_context(const char *backend, const char *device_text, const char *isa)
{
    nf_context_options options;
    nf_context_options_init(&options);
    options.backend = backend;
    options.device = device_text;
    options.isa = isa;
    nf_context *context = NULL;
    return nf_context_create(&context, &options) == NF_OK ? context : NULL;
}

/* Takes over the context, which may be NULL: then nf_last_error() says why. */
static int add_device(session *s, const char *backend, const char *name, nf_context *context)
{
    if (!context) {
        printf("   -  %s\n", nf_last_error());
        return NF_TOOL_OK;
    }
    if (s->count == MAX_DEVICES) {
        nf_context_destroy(context);
        return nf_tool_error(self, "more than %d devices; --backend NAME checks those of one backend", MAX_DEVICES);
    }
    device *d = &s->devices[s->count++];
    snprintf(d->name, sizeof d->name, "%s: %s", backend, name);
    d->engine = (verify_engine){.context = context,
                                .truth = s->truth,
                                .backend = backend,
                                .algo = s->algo,
                                .is_reference = strcmp(backend, "reference") == 0};
    d->engine.must_run = !s->algo && (d->engine.is_reference || strcmp(backend, "cpu") == 0);
    printf("%4d  %s\n", s->count, d->name);
    return NF_TOOL_OK;
}

/* The cpu backend is as many devices as --isa names. */
static int add_instruction_sets(session *s, const char *backend)
{
    char *names = strdup(s->isa), *rest = names;
    if (!names)
        return nf_tool_error(self, "out of memory");
    int status = NF_TOOL_OK;
    for (char *name = strsep(&rest, ","); name && status == NF_TOOL_OK; name = strsep(&rest, ",")) {
        nf_context *context = open_context(backend, NULL, name);
        status = context ? add_device(s, backend, name, context) : nf_tool_fail_status(self, "--isa %s", s->isa);
    }
    free(names);
    return status;
}

static int add_devices(session *s, const char *backend)
{
    nf_context *any = open_context(backend, s->device, NULL);
    if (!any && s->backend)
        return nf_tool_fail_status(self, "--backend %s", backend);
    if (!any || s->device)
        return add_device(s, backend, s->device ? s->device : backend, any);
    int status = NF_TOOL_OK;
    const char *name;
    for (int i = 0; (name = nf_device_name(any, backend, i)) && status == NF_TOOL_OK; i++) {
        char index[16];
        snprintf(index, sizeof index, "%d", i);
        status = add_device(s, backend, name, open_context(backend, index, NULL));
    }
    nf_context_destroy(any);
    return status;
}

static int find_devices(session *s)
{
    s->truth = nf_tool_context(self, "reference", 0);
    int status = s->truth ? NF_TOOL_OK : NF_TOOL_BAD;
    bool known = !s->backend;
    printf("devices:\n");
    for (int b = 0; nf_backend_name(b) && status == NF_TOOL_OK; b++) {
        const char *backend = nf_backend_name(b);
        if (s->backend && strcmp(s->backend, backend) != 0)
            continue;
        known = true;
        status = s->isa && strcmp(backend, "cpu") == 0 ? add_instruction_sets(s, backend) : add_devices(s, backend);
    }
    return known ? status : nf_tool_error(self, "--backend %s: there is no such backend", s->backend);
}

static void close_devices(session *s)
{
    for (int i = 0; i < s->count; i++)
        nf_context_destroy(s->devices[i].engine.context);
    nf_context_destroy(s->truth);
}

static verify_outcome run_trials(const session *s, const device *d, const nf_problem *problem, double *worst, char *why)
{
    verify_outcome outcome = VERIFY_PASS;
    for (int i = 0; i < TRIALS && outcome == VERIFY_PASS; i++) {
        verify_case c = {.problem = *problem,
                         .seed = (uint64_t)(s->seed + i),
                         .kind = trials[i].kind,
                         .call = verify_call_plain(&d->engine)};
        c.call.layout = trials[i].layout;
        c.call.seed = c.seed;
        outcome = verify_case_run(&d->engine, &c, worst, why);
    }
    return outcome;
}

/* One cell of the matrix; what it cannot say follows below the row. */
static void check_cell(session *s, device *d, const char *text, const nf_problem *problem, FILE *notes)
{
    const int number = (int)(d - s->devices) + 1;
    char why[VERIFY_WHY] = "";
    double worst = 0;
    verify_watch("device %d, %s: nearfield crosscheck --backend %s --seed %" PRId64 " \"%s\"", number, d->name,
                 d->engine.backend, s->seed, text);
    verify_outcome outcome = run_trials(s, d, problem, &worst, why);
    if (outcome == VERIFY_SKIP && d->engine.must_run)
        outcome = VERIFY_FAIL;
    if (outcome == VERIFY_PASS) {
        s->passed++;
        d->worst = worst > d->worst ? worst : d->worst;
        printf("%*.2f", CELL, worst);
    } else if (outcome == VERIFY_FAIL) {
        s->failed++;
        printf("%*s", CELL, "FAIL");
        fprintf(notes, "FAIL %s\n     %s\n", verify_watched(), why);
    } else {
        s->skipped++;
        printf("%*s", CELL, "skip");
        if (strcmp(d->last_skip, why) != 0) /* one line per reason in a row */
            fprintf(notes, "skip device %d, %s: %s\n", number, d->name, why);
        snprintf(d->last_skip, sizeof d->last_skip, "%s", why);
    }
    fflush(stdout);
}

static int check_problem(session *s, const char *text)
{
    nf_problem problem;
    if (nf_problem_parse(&problem, text) != NF_OK || nf_problem_check(&problem) != NF_OK)
        return nf_tool_fail_status(self, "problem \"%s\"", text);
    problem.direction = NF_BOTH;
    verify_restrict_queries(&problem, (uint64_t)s->seed);
    char *said = NULL;
    size_t length;
    FILE *notes = open_memstream(&said, &length);
    if (!notes)
        return nf_tool_error(self, "out of memory");
    printf("%-*s", s->width, text);
    for (int i = 0; i < s->count; i++)
        check_cell(s, &s->devices[i], text, &problem, notes);
    fclose(notes);
    printf("\n%s", said);
    free(said);
    return NF_TOOL_OK;
}

static int check_all(session *s, const char *const *problems, int count)
{
    static const char heading[] = "worst error, 1.00 the tolerance; device";
    s->width = (int)strlen(heading);
    for (int i = 0; i < count; i++)
        s->width = (int)strlen(problems[i]) > s->width ? (int)strlen(problems[i]) : s->width;
    printf("\n%-*s", s->width, heading);
    for (int i = 0; i < s->count; i++)
        printf("%*d", CELL, i + 1);
    printf("\n");
    int status = NF_TOOL_OK;
    for (int i = 0; i < count && status == NF_TOOL_OK; i++)
        status = check_problem(s, problems[i]);
    if (status != NF_TOOL_OK)
        return status;
    printf("%-*s", s->width, "worst");
    for (int i = 0; i < s->count; i++)
        printf("%*.2f", CELL, s->devices[i].worst);
    printf("\n%" PRId64 " passed, %" PRId64 " failed, %" PRId64 " skipped\n", s->passed, s->failed, s->skipped);
    return s->failed || !s->passed ? NF_TOOL_FAILED : NF_TOOL_OK;
}

int nf_tool_crosscheck(int argc, char **argv)
{
    session s = {.seed = 1};
    const nf_tool_option options[] = {{.name = "backend",
                                       .kind = NF_TOOL_STRING,
                                       .target = &s.backend,
                                       .value = "NAME",
                                       .help = "check the devices of this backend only"},
                                      {.name = "algo",
                                       .kind = NF_TOOL_STRING,
                                       .target = &s.algo,
                                       .value = "NAME",
                                       .help = "check this algorithm of the backend"},
                                      {.name = "device",
                                       .kind = NF_TOOL_STRING,
                                       .target = &s.device,
                                       .value = "TEXT",
                                       .help = "check this device only, as NEARFIELD_DEVICE"},
                                      {.name = "isa",
                                       .kind = NF_TOOL_STRING,
                                       .target = &s.isa,
                                       .value = "NAMES",
                                       .help = "check the cpu backend with each instruction set, as in baseline,avx2"},
                                      {.name = "seed",
                                       .kind = NF_TOOL_INT,
                                       .target = &s.seed,
                                       .value = "N",
                                       .minimum = 0,
                                       .maximum = 1e15,
                                       .help = "seed of the inputs (default 1)"},
                                      {0}};
    const nf_tool_command command = {
        .name = self,
        .words = "[PROBLEM...]",
        .max_words = -1,
        .options = options,
        .summary =
            "Runs each problem on every device of every backend, forward and backward, on ordinary, large and\n"
            "poisoned numbers in several layouts, and prints a matrix of devices by worst error, as a fraction of\n"
            "what nearfield verify tolerates. Without a PROBLEM, a set that covers all features. The last line\n"
            "counts the cells."};
    const int stop = nf_tool_parse(&command, &argc, argv);
    if (stop != NF_TOOL_CONTINUE)
        return stop;
    if (s.algo && !s.backend)
        return nf_tool_error(self, "--algo %s: needs --backend", s.algo);
    verify_watch_crashes();
    int status = find_devices(&s);
    if (status == NF_TOOL_OK && argc > 1)
        status = check_all(&s, (const char *const *)argv + 1, argc - 1);
    else if (status == NF_TOOL_OK)
        status = check_all(&s, default_problems, sizeof default_problems / sizeof *default_problems);
    close_devices(&s);
    return status == NF_TOOL_BAD ? status : nf_tool_finish(self, status);
}
