/* nearfield plan - what the library chooses for a problem, why, and what it costs. */
#include <stdio.h>
#include <stdlib.h>

#include "args.h"

static const char *const self = "plan";

static int print_plan(const nf_plan *plan)
{
    char *text = nf_tool_plan_text(self, plan);
    if (!text)
        return NF_TOOL_BAD;
    fputs(text, stdout);
    free(text);
    return nf_tool_finish(self, NF_TOOL_OK);
}

static int make_and_print(nf_context *context, const nf_problem *problem, const char *algo)
{
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.algo = algo;
    nf_plan *plan = NULL;
    if (nf_plan_create(&plan, context, problem, &options) != NF_OK)
        return nf_tool_fail_status(self, algo ? "cannot plan with --algo %s" : "cannot plan", algo);
    const int status = print_plan(plan);
    nf_plan_destroy(plan);
    return status;
}

int nf_tool_plan(int argc, char **argv)
{
    const char *backend = NULL, *algo = NULL;
    int64_t threads = 0;
    const nf_tool_option options[] = {
        {"backend", NF_TOOL_STRING, &backend, .value = "NAME", .help = "as NEARFIELD_BACKEND"},
        {"algo", NF_TOOL_STRING, &algo, .value = "NAME", .help = "use only this algorithm"},
        {"threads", NF_TOOL_INT, &threads, .value = "N", .help = "threads to plan for", .minimum = 1, .maximum = 4096},
        {0}};
    const nf_tool_command command = {
        .name = self, .words = "PROBLEM", .min_words = 1, .max_words = 1, .options = options,
        .summary = "Prints what was chosen for a problem and why, its tiles, pairs, bytes and memory, and a picture of the\n"
                   "keys of one query tile."};
    const int stop = nf_tool_parse(&command, &argc, argv);
    if (stop != NF_TOOL_CONTINUE)
        return stop;
    nf_problem problem;
    if (nf_problem_parse(&problem, argv[1]) != NF_OK || nf_problem_check(&problem) != NF_OK)
        return nf_tool_fail_status(self, "PROBLEM");
    nf_context *context = nf_tool_context(self, backend, threads);
    if (!context)
        return NF_TOOL_BAD;
    const int status = make_and_print(context, &problem, algo);
    nf_context_destroy(context);
    return status;
}
