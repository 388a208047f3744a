/* Command lines from tables: parses, refuses with the rule, and prints the help text.
 *
 *     const char *backend = NULL;
 *     bool csv = false;
 *     const nf_tool_option options[] = {
 *         {"backend", NF_TOOL_STRING, &backend, .value = "NAME", .help = "use only this backend"},
 *         {"csv", NF_TOOL_FLAG, &csv, .help = "print comma-separated rows"},
 *         {0}};
 *     const nf_tool_command command = {.name = "bench", .words = "[PROBLEM...]", .summary = "...", .max_words = -1,
 *                                      .options = options};
 *     const int stop = nf_tool_parse(&command, &argc, argv);
 *     if (stop != NF_TOOL_CONTINUE)
 *         return stop;
 *     ... argv[1] .. argv[argc - 1] are now the words that are no options */
#ifndef NF_TOOLS_ARGS_H
#define NF_TOOLS_ARGS_H

#include "tool.h"

typedef enum nf_tool_kind { NF_TOOL_FLAG, NF_TOOL_STRING, NF_TOOL_INT, NF_TOOL_DOUBLE } nf_tool_kind;

typedef struct nf_tool_option {
    const char *name; /* without the leading dashes; NULL ends the table */
    nf_tool_kind kind;
    void *target;            /* bool, const char *, int64_t or double, holding the default */
    const char *value;       /* the value's name in the help text, e.g. "FILE" */
    const char *help;        /* one line */
    double minimum, maximum; /* numbers outside are refused; no limits if both are 0 */
} nf_tool_option;

typedef struct nf_tool_command {
    const char *name;
    const char *words;   /* the other words in the help text, e.g. "[PROBLEM...]"; "" if there are none */
    const char *summary; /* what it does, for the help text */
    int min_words, max_words; /* how many other words there must be; max_words -1: any number */
    const nf_tool_option *options;
} nf_tool_command;

enum { NF_TOOL_CONTINUE = -1 };

/* Stores the options' values and moves the other words to argv[1] .. argv[*argc - 1]. Options are written --name VALUE
 * or --name=VALUE; "--" ends them; each may be given once. Returns NF_TOOL_CONTINUE, or the exit status to stop with:
 * after --help, which prints the help text, or after an error. */
int nf_tool_parse(const nf_tool_command *command, int *argc, char **argv);

/* Numbers as the options take them: the whole text, nothing else, finite and in range. False if it is not one. */
bool nf_tool_read_int(const char *text, int64_t *value);
bool nf_tool_read_double(const char *text, double *value);

#endif
