/* The tensors of one problem to time or check. */
#include "bench_data.h"

#include <stdlib.h>
#include <string.h>

#include "elements.h"

static const char *const self = "bench";

bool bench_is_output(nf_role role)
{
    return role == NF_OUT || role == NF_LSE || role >= NF_DQ;
}

static bool is_wanted(const nf_problem *problem, nf_role role)
{
    const bool extra = role == NF_EXTRA_K || role == NF_EXTRA_V || role == NF_DEXTRA_K || role == NF_DEXTRA_V;
    if (role == NF_BIAS || role == NF_DLSE || role >= NF_SCORES || (extra && problem->extra == 0))
        return false;
    return role < NF_DOUT || problem->direction != NF_FWD;
}

static int allocate(bench_data *data, nf_role role, uint64_t seed)
{
    nf_tensor *tensor = &data->tensors[role];
    if (nf_problem_tensor(&data->problem, role, tensor) != NF_OK)
        return nf_tool_fail_status(self, "%s", nf_role_name(role));
    enum { ALIGNMENT = 64, NAN_BYTE = 0xff };
    const size_t bytes = nf_tool_tensor_bytes(tensor);
    tensor->data = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (!tensor->data)
        return nf_tool_error(self, "out of memory for %s, %zu bytes", nf_role_name(role), bytes);
    if (bench_is_output(role))
        memset(tensor->data, NAN_BYTE, bytes);
    else
        nf_tool_fill_normal(tensor, seed);
    *nf_tool_io_slot(&data->io, role) = tensor;
    return NF_TOOL_OK;
}

int bench_data_create(bench_data *data, const nf_problem *problem, uint64_t seed)
{
    *data = (bench_data){.problem = *problem};
    nf_io_init(&data->io);
    for (int role = 0; role < NF_ROLES; role++) {
        if (is_wanted(problem, (nf_role)role) && allocate(data, (nf_role)role, seed + (uint64_t)role)) {
            bench_data_destroy(data);
            return NF_TOOL_BAD;
        }
    }
    return NF_TOOL_OK;
}

void bench_data_destroy(bench_data *data)
{
    for (int role = 0; role < NF_ROLES; role++) {
        free(data->tensors[role].data);
        data->tensors[role].data = NULL;
    }
}

nf_io bench_forward_io(const bench_data *data)
{
    nf_io io = data->io;
    for (int role = NF_DOUT; role < NF_ROLES; role++)
        *nf_tool_io_slot(&io, (nf_role)role) = NULL;
    return io;
}

double bench_backward_bytes(const bench_data *data)
{
    double bytes = 0;
    for (int role = 0; role < NF_ROLES; role++)
        if (data->tensors[role].data)
            bytes += (double)nf_tool_tensor_bytes(&data->tensors[role]);
    return bytes;
}
