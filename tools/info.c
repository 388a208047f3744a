/* nearfield info - what the library sees of this machine. */
#include <stdio.h>
#include <stdlib.h>

#include "args.h"

int nf_tool_info(int argc, char **argv)
{
    const nf_tool_option options[] = {{0}};
    const nf_tool_command command = {
        .name = "info", .words = "", .options = options,
        .summary = "Prints the machine, its caches and instruction sets, the backends, and why an absent one is absent."};
    const int stop = nf_tool_parse(&command, &argc, argv);
    if (stop != NF_TOOL_CONTINUE)
        return stop;
    nf_context *context = nf_tool_context("info", NULL, 0);
    if (!context)
        return NF_TOOL_BAD;
    char *text = nf_tool_context_text("info", context);
    if (text)
        fputs(text, stdout);
    free(text);
    nf_context_destroy(context);
    return text ? nf_tool_finish("info", NF_TOOL_OK) : NF_TOOL_BAD;
}
