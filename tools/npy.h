/* NumPy .npy files, format versions 1.0, 2.0 and 3.0: a strict reader that trusts no size, and a writer that never
 * leaves half a file. Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html */
#ifndef NF_TOOLS_NPY_H
#define NF_TOOLS_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NPY_MAX_RANK = 7, NPY_ERROR_SIZE = 256 };

/* The element types that are read; all little-endian. */
typedef enum npy_type { NPY_F4, NPY_F8, NPY_F2, NPY_U2 } npy_type;

struct npy {
    npy_type type;
    int rank;                       /* 0..NPY_MAX_RANK */
    int64_t extents[NPY_MAX_RANK]; /* >= 0 */
    int64_t strides[NPY_MAX_RANK]; /* in elements; Fortran order shows only here */
    int64_t count;                 /* elements */
    const void *data;              /* element 0, inside the bytes that were read */
    void *storage;                 /* what npy_close frees */
    char error[NPY_ERROR_SIZE];    /* after a failure: one sentence */
};

/* "<f4" and so on, and bytes per element. */
const char *npy_type_name(npy_type type);
size_t npy_type_size(npy_type type);

/* Reads the array in length bytes of memory, which must stay as long as out->data is used. The data may be unaligned.
 * Returns 0, or -1 with out->error set. */
int npy_parse(const void *bytes, size_t length, struct npy *out);

/* Reads a regular file into aligned memory. Returns 0, or -1 with out->error set. */
int npy_open(const char *path, struct npy *out);
void npy_close(struct npy *array);

/* A file being written: the target appears, complete, only in npy_commit. */
struct npy_output {
    char *path, *temporary;
    char error[NPY_ERROR_SIZE];
};

/* Writes count elements, row-major, into a temporary file beside path, and checks that they reached it. Returns 0, or
 * -1 with output->error set and nothing left behind. */
int npy_stage(struct npy_output *output, const char *path, npy_type type, int rank, const int64_t *extents,
              const void *data);
/* Renames the temporary file to its path. Returns 0, or -1 with output->error set and the temporary file removed. */
int npy_commit(struct npy_output *output);
/* Removes the temporary file. Both free what npy_stage allocated; a zeroed output is fine. */
void npy_abandon(struct npy_output *output);

#endif
