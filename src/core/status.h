/* How a failure becomes a status and a sentence. */
#ifndef NF_CORE_STATUS_H
#define NF_CORE_STATUS_H

#include "nearfield.h"

/* Records the sentence for nf_last_error() in this thread and returns status. */
nf_status nf_fail(nf_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
