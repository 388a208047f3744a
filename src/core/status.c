/* The last error of each thread, the meaning of statuses, the version. */
#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { ERROR_CAPACITY = 2048 };

static _Thread_local char last_error[ERROR_CAPACITY];

nf_status nf_fail(nf_status status, const char *format, ...)
{
    char sentence[ERROR_CAPACITY]; /* the arguments may point into last_error */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    memcpy(last_error, sentence, sizeof sentence);
    return status;
}

const char *nf_last_error(void)
{
    return last_error;
}

const char *nf_status_string(nf_status status)
{
    switch (status) {
    case NF_OK:
        return "ok: success";
    case NF_ERR_ARGUMENT:
        return "argument: a NULL or malformed argument, or a struct of unknown size";
    case NF_ERR_PARSE:
        return "parse: a problem string that does not follow the grammar";
    case NF_ERR_PROBLEM:
        return "problem: a problem that breaks a validity rule";
    case NF_ERR_TENSOR:
        return "tensor: a tensor that is missing, overlaps, or differs from what the plan was made for";
    case NF_ERR_UNSUPPORTED:
        return "unsupported: no backend allowed here can run this problem";
    case NF_ERR_UNAVAILABLE:
        return "unavailable: the backend asked for does not work on this machine";
    case NF_ERR_MEMORY:
        return "memory: an allocation failed";
    case NF_ERR_BUSY:
        return "busy: another call is using the plan's own workspace";
    case NF_ERR_SPACE:
        return "space: the caller's buffer or workspace is too small";
    case NF_ERR_DEVICE:
        return "device: a device failed while running";
    }
    return "unknown: not a status of this library";
}

#define QUOTE(x) #x
#define VERSION_STRING(major, minor, patch) QUOTE(major) "." QUOTE(minor) "." QUOTE(patch)

const char *nf_version(void)
{
    return VERSION_STRING(NF_VERSION_MAJOR, NF_VERSION_MINOR, NF_VERSION_PATCH);
}
