/* A backend for tests of the core: algorithms "slow" and "fast" that compute nothing and can be told to misbehave. */
#ifndef NF_TESTS_FAKE_H
#define NF_TESTS_FAKE_H

#include "core/backend.h"

/* What the fakes do, and what was done to them. */
typedef struct fake_control {
    bool absent;               /* open fails */
    bool refuses_all;          /* supports */
    nf_direction fast_refuses; /* supports, of "fast" */
    nf_direction fast_lags;    /* where "fast" costs twice as much as "slow", not half */
    size_t workspace_bytes;
    size_t backward_bytes; /* of workspace, in addition, for what runs backward */
    nf_status run_status;
    void (*on_run)(void); /* while the plan's workspace is in use */
    _Atomic int opened, closed, prepared, released, forwards, backwards;
    const void *workspace; /* of the last run */
} fake_control;

extern fake_control fake;

extern const nf_backend fake_backend;           /* "fake", preferred */
extern const nf_backend fake_backend_other;     /* "other", preferred, after fake */
extern const nf_backend fake_backend_hidden;    /* "hidden", not preferred */
extern const nf_backend fake_backend_missing;   /* "missing", built out */
extern const nf_backend *const fake_backends[]; /* missing, fake, other, hidden */

/* Keeps the lines of a context's log. */
typedef struct log_book {
    char text[16384];
    int lines;
} log_book;

void log_book_write(void *book, int level, const char *line);

/* A context of the fakes that logs into a book (NULL: stderr). Aborts the test on failure. */
nf_context *fake_context(log_book *book);

/* Removes all NEARFIELD_ variables, so that tests start alike. */
void clear_environment(void);

#endif
