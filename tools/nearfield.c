/* nearfield - the command-line tool: finds the sub-command and runs it. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tool.h"

typedef struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} command;

static const command commands[] = {
    {"run", nf_tool_run, "attention forward and backward on NumPy files"},
    {"verify", nf_tool_verify, "check the library against its reference and against identities"},
    {"crosscheck", nf_tool_crosscheck, "compare every device of every backend with the reference"},
    {"bench", nf_tool_bench, "verify problems, then time them against the machine's measured limits"},
    {"plan", nf_tool_plan, "what the library chooses for a problem, why, and what it costs"},
    {"denoise", nf_tool_denoise, "denoise a picture or a volume by non-local means"},
    {"info", nf_tool_info, "the machine, its instruction sets, the backends"},
    {"env", nf_tool_env, "the environment variables and their values"},
};
enum { COMMANDS = sizeof(commands) / sizeof(*commands) };

static const command *find(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int refuse(const char *name)
{
    const char *names[COMMANDS];
    for (int i = 0; i < COMMANDS; i++)
        names[i] = commands[i].name;
    const char *nearest = nf_tool_nearest(name, names, COMMANDS);
    if (nearest)
        return nf_tool_error(NULL, "unknown command \"%s\"; did you mean %s?", name, nearest);
    return nf_tool_error(NULL, "unknown command \"%s\"; see nearfield help", name);
}

static void print_usage(FILE *stream)
{
    fprintf(stream, "usage: nearfield COMMAND [OPTION...] [WORD...]\n"
                    "       nearfield help [COMMAND]\n"
                    "       nearfield --version\n\ncommands:\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(stream, "  %-12s%s\n", commands[i].name, commands[i].summary);
}

static int help(int argc, char **argv)
{
    if (argc > 3)
        return nf_tool_error("help", "unexpected word \"%s\"; usage: nearfield help [COMMAND]", argv[3]);
    if (argc < 3) {
        print_usage(stdout);
        return nf_tool_finish("help", NF_TOOL_OK);
    }
    const command *c = find(argv[2]);
    if (!c)
        return refuse(argv[2]);
    char option[] = "--help";
    char *words[] = {argv[2], option, NULL};
    return c->run(2, words);
}

static int version(int argc, char **argv)
{
    if (argc > 2)
        return nf_tool_error(argv[1], "unexpected word \"%s\"", argv[2]);
    printf("nearfield %s\n", nf_version());
    return nf_tool_finish(NULL, NF_TOOL_OK);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is reported like a full disk, with exit status 2 */
    if (argc < 2) {
        print_usage(stderr);
        return NF_TOOL_BAD;
    }
    const char *name = argv[1];
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return help(argc, argv);
    if (strcmp(name, "--version") == 0)
        return version(argc, argv);
    if (name[0] == '-')
        return nf_tool_error(NULL, "unknown option %s; the command comes first: nearfield COMMAND [OPTION...]", name);
    const command *c = find(name);
    return c ? c->run(argc - 1, argv + 1) : refuse(name);
}
