/* What the sub-commands share: errors, texts of the library, contexts, spelling. */
#include "tool.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_error(const char *command, const char *format, va_list arguments, const char *reason)
{
    fflush(stdout);
    fprintf(stderr, "nearfield%s%s: ", command ? " " : "", command ? command : "");
    vfprintf(stderr, format, arguments);
    if (reason && *reason)
        fprintf(stderr, ": %s", reason);
    fputc('\n', stderr);
}

int nf_tool_error(const char *command, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_error(command, format, arguments, NULL);
    va_end(arguments);
    return NF_TOOL_BAD;
}

int nf_tool_fail_status(const char *command, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_error(command, format, arguments, nf_last_error());
    va_end(arguments);
    return NF_TOOL_BAD;
}

int nf_tool_finish(const char *command, int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    return nf_tool_error(command, "standard output: %s", strerror(errno ? errno : EIO));
}

typedef nf_status (*text_writer)(const void *object, char *buffer, size_t capacity, size_t *length);

static char *fetch(const char *command, text_writer writer, const void *object)
{
    size_t length = 0;
    if (writer(object, NULL, 0, &length) != NF_OK) {
        nf_tool_fail_status(command, "cannot describe");
        return NULL;
    }
    char *text = malloc(length + 1);
    if (!text) {
        nf_tool_error(command, "out of memory for a text of %zu bytes", length + 1);
        return NULL;
    }
    if (writer(object, text, length + 1, NULL) != NF_OK) {
        nf_tool_fail_status(command, "cannot describe");
        free(text);
        return NULL;
    }
    return text;
}

static nf_status write_problem(const void *object, char *buffer, size_t capacity, size_t *length)
{
    return nf_problem_format(object, buffer, capacity, length);
}

static nf_status write_plan(const void *object, char *buffer, size_t capacity, size_t *length)
{
    return nf_plan_describe(object, buffer, capacity, length);
}

static nf_status write_context(const void *object, char *buffer, size_t capacity, size_t *length)
{
    return nf_context_describe(object, buffer, capacity, length);
}

static nf_status write_environment(const void *object, char *buffer, size_t capacity, size_t *length)
{
    (void)object;
    return nf_environment_describe(buffer, capacity, length);
}

char *nf_tool_problem_text(const char *command, const nf_problem *problem)
{
    return fetch(command, write_problem, problem);
}

char *nf_tool_plan_text(const char *command, const nf_plan *plan)
{
    return fetch(command, write_plan, plan);
}

char *nf_tool_context_text(const char *command, const nf_context *context)
{
    return fetch(command, write_context, context);
}

char *nf_tool_environment_text(const char *command)
{
    return fetch(command, write_environment, NULL);
}

nf_context *nf_tool_context(const char *command, const char *backend, int64_t threads)
{
    nf_context_options options;
    nf_context_options_init(&options);
    options.backend = backend;
    options.num_threads = threads;
    nf_context *context = NULL;
    if (nf_context_create(&context, &options) == NF_OK)
        return context;
    if (backend)
        nf_tool_fail_status(command, "--backend %s", backend);
    else
        nf_tool_fail_status(command, "cannot create a context");
    return NULL;
}

const nf_tensor **nf_tool_io_slot(nf_io *io, nf_role role)
{
    const nf_tensor **const slots[NF_ROLES] = {
        [NF_Q] = &io->q, [NF_K] = &io->k, [NF_V] = &io->v, [NF_EXTRA_K] = &io->extra_k, [NF_EXTRA_V] = &io->extra_v,
        [NF_BIAS] = &io->bias, [NF_OUT] = &io->out, [NF_LSE] = &io->lse, [NF_DOUT] = &io->dout, [NF_DLSE] = &io->dlse,
        [NF_DQ] = &io->dq, [NF_DK] = &io->dk, [NF_DV] = &io->dv, [NF_DEXTRA_K] = &io->dextra_k,
        [NF_DEXTRA_V] = &io->dextra_v, [NF_SCORES] = &io->scores, [NF_DSCORES] = &io->dscores};
    return slots[role];
}

enum { LONGEST_NAME = 31 };

/* Least number of insertions, deletions and substitutions that make b of a (Wagner and Fischer). */
static size_t edits(const char *a, size_t a_length, const char *b, size_t b_length)
{
    size_t row[LONGEST_NAME + 1];
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
            const size_t shifted = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = substituted < shifted ? substituted : shifted;
        }
    }
    return row[b_length];
}

const char *nf_tool_nearest(const char *word, const char *const *names, size_t count)
{
    const size_t length = strlen(word);
    if (length > LONGEST_NAME)
        return NULL;
    const char *nearest = NULL;
    size_t least = length / 3 + 2;
    for (size_t i = 0; i < count; i++) {
        const size_t name_length = strlen(names[i]);
        if (name_length > LONGEST_NAME)
            continue;
        const size_t distance = edits(word, length, names[i], name_length);
        if (distance < least) {
            least = distance;
            nearest = names[i];
        }
    }
    return nearest;
}
