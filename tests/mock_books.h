/* What the mock drivers of tests/opencl_mock and tests/cuda_host share: settings, books, handles.
 *
 * A mock keeps the books of its caller: every call, everything that was not released, every misuse. Its variable holds
 * words with ';' between. fail=CALL:CODE[:FIRST[:LAST]]: the FIRST-th to LAST-th calls of an entry point (all by
 * default) return CODE. lost: once a kernel was enqueued the device is gone. NAME=VALUE: one of the mock's settings.
 * The file that the variable with _REPORT after its name gives gets the books at exit: "calls NAME COUNT",
 * "kernel NAME COUNT", "leaked KIND COUNT", "misuse ...". */
#ifndef NF_TESTS_MOCK_BOOKS_H
#define NF_TESTS_MOCK_BOOKS_H

#include <stdbool.h>
#include <stddef.h>

#define MOCK __attribute__((visibility("default")))

enum { MOCK_TEXT = 256 };

/* A setting: a number, or a text of MOCK_TEXT bytes. */
typedef struct mock_knob {
    const char *name;
    long *number;
    char *text;
} mock_knob;

/* What a mock says of itself. */
typedef struct mock_library {
    const char *variable, *report; /* of the environment */
    const mock_knob *knobs;
    int knob_count;
    const char *const *kinds; /* of handles, by number */
    int kind_count;
} mock_library;

extern const mock_library mock_self;

/* Begins every handle. Dead ones stay, so that their use is noticed. */
typedef struct mock_handle {
    int kind;
    int references;
    struct mock_handle *next;
} mock_handle;

/* Counts a call; the code that it must fail with, or 0. */
int mock_enter(const char *call);
void mock_misuse(const char *call, const char *what);
/* Whether the device is gone. */
bool mock_is_lost(void);
/* A kernel is in the books from when it is loaded, however often it runs. */
void mock_kernel_loaded(const char *name);
void mock_kernel_enqueued(void);
void mock_kernel_ran(const char *name);

/* A new handle of one reference, zeroed. */
void *mock_make(int kind, size_t size);
/* Whether this is a live handle of its kind; if not, that is a misuse. */
bool mock_is_live(const char *call, int kind, const void *handle);
/* Adds to a handle's references. */
void mock_refer(void *handle, int change);
/* The first live handle of a kind that is what is looked for, NULL: none. */
void *mock_find(int kind, bool (*is)(const void *handle, const void *what), const void *what);
/* Calls something for each live handle of a kind. */
void mock_each(int kind, void (*visit)(void *handle));

#endif
