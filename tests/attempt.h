/* A problem tried on a backend, a line per step. Every failure is held against the promises of nearfield.h: a sentence
 * that says why, no output written, nothing left allocated. */
#ifndef NF_TESTS_ATTEMPT_H
#define NF_TESTS_ATTEMPT_H

#include <stdbool.h>

#include "bench_data.h"

/* Exit status. FAILED: a step failed and all promises were kept. BROKEN: one was not. */
enum { ATTEMPT_SUCCEEDED = 0, ATTEMPT_FAILED = 1, ATTEMPT_USAGE = 2, ATTEMPT_BROKEN = 3 };

/* What the steps so far come to. */
int attempt_outcome(void);

/* Reports a step; true if it succeeded. */
bool attempt_report(const char *step, nf_status status);
void attempt_break_promise(const char *what, const char *detail);

/* Context, backend, plan and the problem's directions, on tensors in host memory; then further steps with the plan, if
 * more is not NULL. The backend is not asked for by name first, so that a missing device is seen where plans ask for
 * it, too. */
void attempt_problem(const char *backend, const bench_data *data,
                     void (*more)(const nf_plan *plan, const bench_data *data));

/* As attempt_report, of a call that was to give an event: it gave it if it succeeded. */
void attempt_signalled(const char *step, nf_status status, void *const *event);

/* Merges two parts that are one, the lse in place, without an event and with one. finish: of the event, which may be
 * NULL. */
void attempt_merge(nf_context *context, const bench_data *placed, void (*finish)(void *event));

#endif
