/* Where log lines go. */
#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/context.h"

enum { LINE_CAPACITY = 2048 };

bool nf_log_wants(const nf_context *context, int level)
{
    return level <= context->verbose;
}

void nf_log(const nf_context *context, int level, const char *format, ...)
{
    if (!nf_log_wants(context, level))
        return;
    char line[LINE_CAPACITY];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (context->log)
        context->log(context->log_user, level, line);
    else
        fprintf(stderr, "nearfield: %s\n", line);
}
