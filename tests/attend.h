/* A problem with a buffer for each of its tensors, run through the public interface. Elements are read and written as
 * doubles by row-major number, whatever the type and the strides. */
#ifndef NF_TESTS_ATTEND_H
#define NF_TESTS_ATTEND_H

#include <stdbool.h>

#include "nearfield.h"

typedef struct attend {
    nf_problem problem;
    nf_tensor tensor[NF_ROLES]; /* rank 0: the problem has none */
    void *memory[NF_ROLES];
} attend;

/* Allocates every tensor but the scores contiguously, filled with a pattern that is NaN in every type. Aborts the test on
 * failure. */
void attend_create(attend *a, const nf_problem *problem);
void attend_create_text(attend *a, const char *problem);
void attend_destroy(attend *a);

/* Copies tensors of one case to those of the same role of another that has as many elements. */
void attend_copy(attend *to, const attend *from, nf_role role);

/* Fills inputs (q, k, v, extra tokens, dout, dlse) with uniform numbers in [-amplitude, amplitude). */
void attend_fill(attend *a, uint64_t *seed, double amplitude);

int64_t tensor_count(const nf_tensor *tensor);
double tensor_get(const nf_tensor *tensor, int64_t number);
void tensor_set(nf_tensor *tensor, int64_t number, double value);
/* Row-major number of a position, and back. */
int64_t tensor_number(const nf_tensor *tensor, const int64_t *position);
void tensor_position(const nf_tensor *tensor, int64_t number, int64_t *position);
/* Greatest absolute difference; infinite if one is NaN where the other is not. */
double tensor_distance(const nf_tensor *a, const nf_tensor *b);
/* Whether all elements are equal, a NaN equal to a NaN. */
bool tensor_equal(const nf_tensor *a, const nf_tensor *b);

/* Names all tensors that the case has; of an array of them, those that have a rank. */
void attend_io(nf_io *io, const attend *a);
void attend_io_of(nf_io *io, const nf_tensor tensor[NF_ROLES]);

/* Runs NF_FWD, NF_BWD or both in this order, on a backend (NULL: the library's choice) and algorithm, with all tensors
 * that the problem has. Aborts the test with the library's error on failure. */
void attend_run(attend *a, nf_context *context, const char *backend, const char *algo, nf_direction direction);

#endif
