/* The tensors of a problem as contiguous arrays of doubles that hold values of the tensors' own types. */
#include "verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool has_channels(int role)
{
    return role != NF_LSE && role != NF_DLSE;
}

static void describe(verify_array *array, int role)
{
    const nf_tensor *shape = &array->shape;
    const int32_t tail = has_channels(role) ? 2 : 1;
    array->batch = shape->extents[0];
    array->tokens = 1;
    for (int32_t i = 1; i < shape->rank - tail; i++)
        array->tokens *= shape->extents[i];
    array->heads = shape->extents[shape->rank - tail];
    array->dim = has_channels(role) ? shape->extents[shape->rank - 1] : 1;
    array->count = array->batch * array->tokens * array->heads * array->dim;
}

void verify_values_create(verify_values *values, const nf_problem *problem)
{
    *values = (verify_values){0};
    for (int role = 0; role < NF_ROLES; role++) {
        verify_array *array = &values->role[role];
        array->shape.size = sizeof array->shape;
        const bool extra = role == NF_EXTRA_K || role == NF_EXTRA_V || role == NF_DEXTRA_K || role == NF_DEXTRA_V;
        if (role == NF_BIAS || role >= NF_SCORES || (extra && !problem->extra))
            continue;
        if (nf_problem_tensor(problem, (nf_role)role, &array->shape) != NF_OK) {
            fprintf(stderr, "nearfield verify: no tensor %s: %s\n", nf_role_name((nf_role)role), nf_last_error());
            exit(2);
        }
        describe(array, role);
        array->data = verify_alloc(array->count, sizeof(double));
    }
}

void verify_values_destroy(verify_values *values)
{
    for (int role = 0; role < NF_ROLES; role++)
        free(values->role[role].data);
    *values = (verify_values){0};
}

void verify_values_copy(verify_values *values, const verify_values *from)
{
    *values = *from;
    for (int role = 0; role < NF_ROLES; role++) {
        verify_array *array = &values->role[role];
        if (!array->data)
            continue;
        array->data = verify_alloc(array->count, sizeof(double));
        memcpy(array->data, from->role[role].data, (size_t)array->count * sizeof(double));
    }
}
