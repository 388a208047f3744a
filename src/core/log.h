/* Lines for people. One level decides: NEARFIELD_VERBOSE. */
#ifndef NF_CORE_LOG_H
#define NF_CORE_LOG_H

#include <stdbool.h>

#include "nearfield.h"

enum {
    NF_LOG_WARNING = 0, /* always */
    NF_LOG_CALLS = 1,   /* one line per execution, ending in its problem string */
    NF_LOG_PLANS = 2    /* and what was chosen for each plan, with reasons */
};

bool nf_log_wants(const nf_context *context, int level);

/* One line, without newline, to the context's callback or to stderr. */
void nf_log(const nf_context *context, int level, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
