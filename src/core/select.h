/* Which backend and algorithm runs a problem, and why no other does. */
#ifndef NF_CORE_SELECT_H
#define NF_CORE_SELECT_H

#include "core/context.h"

/* Reads a list of backend names into the context's preference; NULL: the default. source names the option or variable
 * in error sentences. excluded[i] is set for the backends that must not even be opened. */
nf_status nf_preference_parse(nf_context *context, const char *text, const char *source,
                              bool excluded[NF_MAX_BACKENDS]);

/* With the backends opened: those that are preferred for a GPU's sake stay so if they have one. */
void nf_preference_settle(nf_context *context);

/* Whether a backend, by its index in the context, may be chosen unasked. */
bool nf_preference_holds(const nf_context *context, int index);

/* One backend, or one algorithm of it, and why it was not chosen. */
typedef struct nf_candidate {
    const char *backend, *algo; /* algo "" where the whole backend was out */
    nf_direction direction;     /* that the reason is about: one, or all that the problem names */
    char reason[NF_REASON_CAPACITY];
} nf_candidate;

/* What runs one direction. */
typedef struct nf_choice {
    const nf_algorithm *algo; /* NULL: the problem does not name the direction */
    double seconds;           /* predicted */
} nf_choice;

typedef struct nf_selection {
    const nf_context_backend *backend; /* chosen */
    nf_choice choice[NF_DIRECTIONS];
    nf_direction direction; /* of the problem */
    int count;
    nf_candidate *candidates; /* all but the chosen ones, best first */
} nf_selection;

/* Chooses. Algorithms of the most preferred backend that supports all directions of the request compete for each of
 * them by predicted time. On failure (NF_ERR_UNSUPPORTED and every reason, or a bad option) there is nothing to
 * destroy. */
nf_status nf_select(nf_selection *selection, const nf_request *request, const nf_plan_options *options);
void nf_selection_destroy(nf_selection *selection, const nf_context *context);

/* "cpu tile: ..." or "cpu tile for bwd: ...". */
void nf_selection_describe_one(const nf_selection *selection, int index, nf_text *text);
/* All candidates as lines, or as one sentence's worth with separator "; ". */
void nf_selection_describe(const nf_selection *selection, const char *indent, const char *separator, nf_text *text);

#endif
