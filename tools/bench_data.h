/* The tensors of one problem to time or check: contiguous, inputs normally distributed, outputs poisoned. */
#ifndef NF_TOOLS_BENCH_DATA_H
#define NF_TOOLS_BENCH_DATA_H

#include "tool.h"

typedef struct bench_data {
    nf_problem problem;
    nf_tensor tensors[NF_ROLES]; /* data NULL where the problem has no such tensor */
    nf_io io;
} bench_data;

/* Allocates and fills. Returns NF_TOOL_OK, or NF_TOOL_BAD with the error printed and nothing to destroy. */
int bench_data_create(bench_data *data, const nf_problem *problem, uint64_t seed);
void bench_data_destroy(bench_data *data);

/* True for what a call writes. */
bool bench_is_output(nf_role role);
/* The tensors a forward call may name. */
nf_io bench_forward_io(const bench_data *data);
/* Bytes of all tensors that a backward call reads or writes. */
double bench_backward_bytes(const bench_data *data);

#endif
