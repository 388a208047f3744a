/* What the sub-commands of the nearfield program share. Each lives in a file of its own and uses only nearfield.h.
 *
 * Exit statuses: 0 all is well, 1 a check failed, 2 bad usage or input (stderr says which argument, value and rule). */
#ifndef NF_TOOLS_TOOL_H
#define NF_TOOLS_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nearfield.h"

enum { NF_TOOL_OK = 0, NF_TOOL_FAILED = 1, NF_TOOL_BAD = 2 };

/* argv[0] is the sub-command's own name; the result is the exit status. */
int nf_tool_info(int argc, char **argv);
int nf_tool_env(int argc, char **argv);
int nf_tool_run(int argc, char **argv);
int nf_tool_verify(int argc, char **argv);
int nf_tool_crosscheck(int argc, char **argv);
int nf_tool_bench(int argc, char **argv);
int nf_tool_plan(int argc, char **argv);
int nf_tool_denoise(int argc, char **argv);

/* Prints "nearfield COMMAND: ..." and a newline on stderr; returns NF_TOOL_BAD. command may be NULL. */
int nf_tool_error(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same, followed by ": " and nf_last_error(). */
int nf_tool_fail_status(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Flushes stdout; NF_TOOL_BAD and a message if anything printed was lost, else status. Ends every sub-command. */
int nf_tool_finish(const char *command, int status);

/* Text of a *_describe or nf_problem_format function; free() it. NULL with the error printed if that failed. */
char *nf_tool_problem_text(const char *command, const nf_problem *problem);
char *nf_tool_plan_text(const char *command, const nf_plan *plan);
char *nf_tool_context_text(const char *command, const nf_context *context);
char *nf_tool_environment_text(const char *command);

/* A context with the given options (backend may be NULL, threads 0); NULL with the error printed. */
nf_context *nf_tool_context(const char *command, const char *backend, int64_t threads);

/* The member of io that holds the tensor of a role. */
const nf_tensor **nf_tool_io_slot(nf_io *io, nf_role role);

/* The one of count names that takes the fewest edits to get from word, or NULL if none is near. */
const char *nf_tool_nearest(const char *word, const char *const *names, size_t count);

#endif
