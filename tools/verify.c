/* `nearfield verify`: checks a backend against the reference (verify_rule.c) and against laws that need no reference
 * (verify_identity*.c), on random problems or on given ones. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "tool.h"
#include "verify.h"

enum { IDENTITY_EVERY = 4, FAR_EVERY = 97, DEFAULT_CASES = 200 };

/* Identities may cost this many multiply-adds per run: in a sweep on the reference, in a sweep, and for one problem. */
static const double affordable_reference = 4e6, affordable = 2e7, affordable_alone = 4e8;

typedef struct totals {
    int64_t passed, failed, skipped;
} totals;

typedef struct session {
    verify_engine engine;
    totals totals;
    bool verbose, stop_at_failure;
    char last_skip[VERIFY_WHY];
} session;

static bool is_over(const session *s)
{
    return s->stop_at_failure && s->totals.failed;
}

/* The command that runs this check again. */
static void describe_command(const session *s, const nf_problem *problem, uint64_t seed, char *text, size_t capacity)
{
    char name[400], threads[40] = "", isa[64] = "", device[120] = "";
    const char *cap = getenv("NEARFIELD_ISA"), *part = getenv("NEARFIELD_DEVICE");
    if (nf_problem_format(problem, name, sizeof name, NULL) != NF_OK)
        snprintf(name, sizeof name, "?");
    if (cap)
        snprintf(isa, sizeof isa, "NEARFIELD_ISA=%s ", cap);
    if (part)
        snprintf(device, sizeof device, "NEARFIELD_DEVICE='%s' ", part);
    if (s->engine.threads)
        snprintf(threads, sizeof threads, " --threads %" PRId64, s->engine.threads);
    snprintf(text, capacity, "%s%snearfield verify%s%s%s%s%s --seed %" PRIu64 " \"%s\"", isa, device,
             s->engine.backend ? " --backend " : "", s->engine.backend ? s->engine.backend : "",
             s->engine.algo ? " --algo " : "", s->engine.algo ? s->engine.algo : "", threads, seed, name);
}

static void begin_check(const session *s, const char *what, const nf_problem *problem, uint64_t seed)
{
    char command[VERIFY_COMMAND];
    describe_command(s, problem, seed, command, sizeof command);
    verify_watch("%s: %s", what, command);
}

static void end_check(session *s, verify_outcome outcome, const char *why)
{
    static const char *const words[] = {[VERIFY_PASS] = "pass", [VERIFY_FAIL] = "FAIL", [VERIFY_SKIP] = "skip"};
    int64_t *const counts[] = {[VERIFY_PASS] = &s->totals.passed, [VERIFY_FAIL] = &s->totals.failed,
                               [VERIFY_SKIP] = &s->totals.skipped};
    ++*counts[outcome];
    const bool news = outcome == VERIFY_SKIP && strcmp(s->last_skip, why) != 0; /* one line per reason in a row */
    if (news)
        snprintf(s->last_skip, sizeof s->last_skip, "%s", why);
    if (s->verbose || outcome == VERIFY_FAIL || news)
        printf("%s %s%s%s\n", words[outcome], verify_watched(), *why ? "\n     " : "", why);
}

static void run_case(session *s, const verify_case *c)
{
    char what[80], why[VERIFY_WHY] = "";
    snprintf(what, sizeof what, "case %s %s", verify_kind_name(c->kind), verify_layout_name(c->call.layout));
    begin_check(s, what, &c->problem, c->seed);
    const verify_outcome outcome = verify_case_run(&s->engine, c, NULL, why);
    end_check(s, outcome, outcome == VERIFY_PASS ? "" : why);
}

/* False if the law has nothing to say about the problem. */
static bool run_identity(session *s, const verify_identity *identity, const nf_problem *problem, uint64_t seed)
{
    char why[VERIFY_WHY] = "";
    begin_check(s, identity->name, problem, seed);
    const verify_outcome outcome = identity->check(&s->engine, problem, seed, why);
    if (outcome == VERIFY_SKIP && !*why)
        return false;
    end_check(s, outcome, outcome == VERIFY_PASS ? "" : why);
    return true;
}

static int count_identities(void)
{
    int count = 0;
    while (verify_identity_at(count))
        count++;
    return count;
}

/* The last identity maps hundreds of gigabytes: it has a turn of its own. */
static void sweep_identity(session *s, uint64_t seed, int64_t turn)
{
    const int cheap = count_identities() - 1;
    nf_problem problem;
    verify_generate_cheap(&problem, seed);
    for (int i = 0; i < cheap; i++)
        if (run_identity(s, verify_identity_at((int)((turn + i) % cheap)), &problem, seed))
            return;
}

static void sweep(session *s, uint64_t first_seed, int64_t cases)
{
    const bool progress = isatty(STDERR_FILENO);
    for (int64_t i = 0; i < cases && !is_over(s); i++) {
        const uint64_t seed = first_seed + (uint64_t)i;
        nf_problem problem;
        verify_case c;
        verify_generate(&problem, seed);
        verify_case_derive(&c, &s->engine, &problem, seed);
        run_case(s, &c);
        if (i % IDENTITY_EVERY == 0)
            sweep_identity(s, seed, i / IDENTITY_EVERY);
        if (i % FAR_EVERY == 0)
            run_identity(s, verify_identity_at(count_identities() - 1), &problem, seed);
        if (progress)
            fprintf(stderr, "\r%" PRId64 "/%" PRId64 " cases, %" PRId64 " failed ", i + 1, cases, s->totals.failed);
    }
    if (progress)
        fprintf(stderr, "\r%40s\r", "");
}

/* The case the seed stands for, every other kind of data, and every law. */
static void check_problem(session *s, const nf_problem *problem, uint64_t seed)
{
    verify_case c;
    nf_problem compared = *problem;
    verify_restrict_queries(&compared, seed);
    verify_case_derive(&c, &s->engine, &compared, seed);
    const verify_kind first = c.kind;
    run_case(s, &c);
    for (int kind = 0; kind < VERIFY_KINDS && !is_over(s); kind++) {
        if (kind == (int)first)
            continue;
        c.kind = (verify_kind)kind;
        c.call.layout = (verify_layout)((seed + (uint64_t)kind) % VERIFY_LAYOUTS);
        c.call.gradients = 31u << NF_DQ;
        run_case(s, &c);
    }
    for (int i = 0; verify_identity_at(i) && !is_over(s); i++)
        run_identity(s, verify_identity_at(i), problem, seed);
}

static void close_engine(verify_engine *engine)
{
    for (int i = 0; i < VERIFY_THREAD_COUNTS; i++)
        nf_context_destroy(engine->with_threads[i]);
    nf_context_destroy(engine->truth);
    nf_context_destroy(engine->context);
}

/* Finds which backend runs when none is named. */
static bool find_backend(verify_engine *engine)
{
    if (engine->backend) {
        engine->is_reference = strcmp(engine->backend, "reference") == 0;
        engine->must_run = !engine->algo && (engine->is_reference || strcmp(engine->backend, "cpu") == 0);
        if (nf_backend_available(engine->context, engine->backend) == NF_OK)
            return true;
        nf_tool_fail_status("verify", "--backend %s", engine->backend);
        return false;
    }
    nf_problem problem;
    nf_plan *plan = NULL;
    nf_plan_info info = {.size = sizeof info};
    nf_problem_init(&problem);
    problem.axis[0].extent = problem.head_dim = problem.value_dim = 8;
    const bool found = nf_plan_create(&plan, engine->context, &problem, NULL) == NF_OK &&
                       nf_plan_get_info(plan, &info) == NF_OK;
    if (found)
        engine->is_reference = strcmp(info.backend, "reference") == 0;
    else
        nf_tool_fail_status("verify", "no backend runs here");
    nf_plan_destroy(plan);
    return found;
}

static bool open_engine(verify_engine *engine)
{
    engine->context = nf_tool_context("verify", engine->backend, engine->threads);
    engine->truth = nf_tool_context("verify", "reference", 0);
    if (!engine->context || !engine->truth || !find_backend(engine))
        return false;
    for (int i = 0; i < VERIFY_THREAD_COUNTS; i++) {
        engine->with_threads[i] = nf_tool_context("verify", engine->backend, verify_thread_counts[i]);
        if (!engine->with_threads[i])
            return false;
    }
    engine->affordable = engine->is_reference ? affordable_reference : affordable;
    return true;
}

static int read_problem(nf_problem *problem, const char *text)
{
    if (nf_problem_parse(problem, text) != NF_OK || nf_problem_check(problem) != NF_OK)
        return nf_tool_fail_status("verify", "problem \"%s\"", text);
    return NF_TOOL_OK;
}

static int check_all(session *s, int count, char **words, uint64_t seed, int64_t cases)
{
    if (count == 0)
        sweep(s, seed, cases);
    for (int i = 0; i < count; i++) {
        nf_problem problem;
        if (read_problem(&problem, words[i]) != NF_TOOL_OK)
            return NF_TOOL_BAD;
        s->engine.affordable = s->engine.is_reference ? affordable : affordable_alone;
        if (!is_over(s))
            check_problem(s, &problem, seed);
    }
    const totals *t = &s->totals;
    printf("%" PRId64 " passed, %" PRId64 " failed, %" PRId64 " skipped\n", t->passed, t->failed, t->skipped);
    return t->failed || !t->passed ? NF_TOOL_FAILED : NF_TOOL_OK;
}

int nf_tool_verify(int argc, char **argv)
{
    session s = {.totals = {0}};
    int64_t seed = 1, cases = DEFAULT_CASES;
    const nf_tool_option options[] = {
        {.name = "backend", .kind = NF_TOOL_STRING, .target = &s.engine.backend, .value = "NAME",
         .help = "check this backend (default: the library's choice)"},
        {.name = "algo", .kind = NF_TOOL_STRING, .target = &s.engine.algo, .value = "NAME",
         .help = "check this algorithm of the backend"},
        {.name = "seed", .kind = NF_TOOL_INT, .target = &seed, .value = "N", .minimum = 0, .maximum = 1e15,
         .help = "seed of the first case; case i has seed N + i (default 1)"},
        {.name = "cases", .kind = NF_TOOL_INT, .target = &cases, .value = "N", .minimum = 1, .maximum = 1e9,
         .help = "random cases when no problem is given (default 200)"},
        {.name = "threads", .kind = NF_TOOL_INT, .target = &s.engine.threads, .value = "N", .minimum = 1,
         .maximum = 65536, .help = "threads to run on (default: the environment's choice)"},
        {.name = "stop", .kind = NF_TOOL_FLAG, .target = &s.stop_at_failure, .help = "end at the first failure"},
        {.name = "verbose", .kind = NF_TOOL_FLAG, .target = &s.verbose, .help = "a line for every check"},
        {0}};
    const nf_tool_command command = {
        .name = "verify",
        .words = "[PROBLEM...]",
        .max_words = -1,
        .options = options,
        .summary =
            "Checks a backend against the reference and against identities: a seeded sweep over random problems, or\n"
            "the given problems with every kind of data. The last line counts the checks."};
    const int stop = nf_tool_parse(&command, &argc, argv);
    if (stop != NF_TOOL_CONTINUE)
        return stop;
    verify_watch_crashes();
    int status = NF_TOOL_BAD;
    if (open_engine(&s.engine))
        status = check_all(&s, argc - 1, argv + 1, (uint64_t)seed, cases);
    close_engine(&s.engine);
    return status == NF_TOOL_BAD ? status : nf_tool_finish("verify", status);
}
