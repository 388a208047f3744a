/* A problem string completed with the sizes and the type of the arrays it is run on: what only one of them says is taken
 * over, what both say must agree. */
#ifndef NF_TOOLS_COMPLETE_H
#define NF_TOOLS_COMPLETE_H

#include "npy.h"
#include "tool.h"

/* One array of a run. */
typedef struct nf_tool_array {
    const char *path; /* NULL: absent */
    struct npy npy;   /* data NULL: not read, because it is an output */
} nf_tool_array;

/* Fills a checked problem from its text and the input arrays among arrays[NF_ROLES]. direction is what will run;
 * the text must not say otherwise. Returns NF_TOOL_OK, or NF_TOOL_BAD with the error printed. */
int nf_tool_complete(const char *command, const char *text, const nf_tool_array arrays[NF_ROLES],
                     nf_direction direction, nf_problem *problem);

/* Describes an input array as the tensor of its role, with the array's own strides. */
nf_status nf_tool_array_tensor(const nf_problem *problem, nf_role role, const struct npy *npy, nf_tensor *tensor);

#endif
