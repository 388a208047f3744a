/* The tensors of a plan and of a call, by role. */
#ifndef NF_CORE_IO_H
#define NF_CORE_IO_H

#include <stdbool.h>

#include "nearfield.h"

/* What a plan can be asked to do. */
typedef enum nf_operation {
    NF_FORWARD, NF_BACKWARD, NF_QK, NF_AV, NF_QK_BACKWARD, NF_AV_BACKWARD, NF_OPERATIONS
} nf_operation;

const char *nf_operation_name(nf_operation operation);
/* The direction that a plan must include. */
nf_direction nf_operation_direction(nf_operation operation);

/* Whether a call writes a role, if it is present. */
bool nf_operation_writes(nf_operation operation, nf_role role);

/* The shape of a role in a checked problem, contiguous and heads-last; false if the problem has no such tensor. */
bool nf_role_describe(const nf_problem *problem, nf_role role, nf_tensor *tensor);

void nf_io_by_role(const nf_io *io, const nf_tensor *tensors[NF_ROLES]);

/* What calls of a plan will pass: the given layouts (NULL: none), else contiguous host memory. */
nf_status nf_layout_complete(nf_tensor layout[NF_ROLES], const nf_problem *problem, const nf_io *given);

/* One call: every tensor that the operation needs is there and laid out as planned, outputs overlap nothing.
 * O(tensors). */
nf_status nf_call_check(const nf_tensor *const tensors[NF_ROLES], const nf_tensor layout[NF_ROLES],
                        nf_operation operation);

#endif
