/* nearfield env - the environment variables the library reads. */
#include <stdio.h>
#include <stdlib.h>

#include "args.h"

int nf_tool_env(int argc, char **argv)
{
    const nf_tool_option options[] = {{0}};
    const nf_tool_command command = {
        .name = "env", .words = "", .options = options,
        .summary = "Prints every environment variable that the library reads, its meaning, default and current value."};
    const int stop = nf_tool_parse(&command, &argc, argv);
    if (stop != NF_TOOL_CONTINUE)
        return stop;
    char *text = nf_tool_environment_text("env");
    if (!text)
        return NF_TOOL_BAD;
    fputs(text, stdout);
    free(text);
    return nf_tool_finish("env", NF_TOOL_OK);
}
