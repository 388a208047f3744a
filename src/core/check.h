/* Checks that every entry point of the library shares. */
#ifndef NF_CORE_CHECK_H
#define NF_CORE_CHECK_H

#include "nearfield.h"

/* Of any public struct, which begins with its size: refuses NULL, a size smaller than known, and a non-zero byte past
 * known (a field of a newer library that this one would ignore). name and type, e.g. "io" and "nf_io", go into the
 * sentence. */
nf_status nf_check_size(const void *object, size_t known, const char *name, const char *type);

/* The candidate most like the first length bytes of word, by edit distance; candidates end in NULL and there is at
 * least one. *unlike, if not NULL, receives a measure of the difference. */
const char *nf_nearest(const char *word, size_t length, const char *const *candidates, size_t *unlike);

#endif
