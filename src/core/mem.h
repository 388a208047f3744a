/* Every byte the library allocates, counted per context. */
#ifndef NF_CORE_MEM_H
#define NF_CORE_MEM_H

#include "nearfield.h"

enum { NF_ALIGNMENT = 64 }; /* of every allocation: a cache line, and the widest vector */

/* Uninitialised memory, or NULL with nf_last_error() set. bytes 0 gives a valid pointer. Thread-safe. */
void *nf_alloc(const nf_context *context, size_t bytes);
/* Zeroed memory for count items of size bytes, refusing overflow. */
void *nf_alloc_array(const nf_context *context, size_t count, size_t size);
void nf_release(const nf_context *context, void *memory); /* NULL is fine */

#endif
