/* Problems with buffers. */
#include "attend.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "oracle.h"

void attend_create(attend *a, const nf_problem *problem)
{
    *a = (attend){.problem = *problem};
    for (int role = 0; role < NF_ROLES; role++) {
        const bool extra = role == NF_EXTRA_K || role == NF_EXTRA_V || role == NF_DEXTRA_K || role == NF_DEXTRA_V;
        if (role == NF_BIAS || role >= NF_SCORES || (extra && problem->extra == 0))
            continue;
        if (nf_problem_tensor(problem, (nf_role)role, &a->tensor[role]) != NF_OK)
            ck_abort_msg("%s", nf_last_error());
        const size_t bytes = (size_t)tensor_count(&a->tensor[role]) * nf_dtype_size(a->tensor[role].dtype);
        a->tensor[role].data = a->memory[role] = malloc(bytes);
        memset(a->memory[role], 0xff, bytes);
    }
}

void attend_create_text(attend *a, const char *text)
{
    nf_problem problem;
    if (nf_problem_parse(&problem, text) != NF_OK || nf_problem_check(&problem) != NF_OK)
        ck_abort_msg("%s", nf_last_error());
    attend_create(a, &problem);
}

void attend_destroy(attend *a)
{
    for (int role = 0; role < NF_ROLES; role++)
        free(a->memory[role]);
}

void attend_copy(attend *to, const attend *from, nf_role role)
{
    ck_assert_int_eq(tensor_count(&to->tensor[role]), tensor_count(&from->tensor[role]));
    for (int64_t i = 0; i < tensor_count(&from->tensor[role]); i++)
        tensor_set(&to->tensor[role], i, tensor_get(&from->tensor[role], i));
}

void attend_fill(attend *a, uint64_t *seed, double amplitude)
{
    static const nf_role inputs[] = {NF_Q, NF_K, NF_V, NF_EXTRA_K, NF_EXTRA_V, NF_DOUT, NF_DLSE};
    for (size_t r = 0; r < sizeof inputs / sizeof *inputs; r++) {
        nf_tensor *tensor = &a->tensor[inputs[r]];
        for (int64_t i = 0; tensor->rank && i < tensor_count(tensor); i++)
            tensor_set(tensor, i, amplitude * oracle_uniform(seed));
    }
}

int64_t tensor_count(const nf_tensor *tensor)
{
    int64_t count = 1;
    for (int32_t a = 0; a < tensor->rank; a++)
        count *= tensor->extents[a];
    return count;
}

int64_t tensor_number(const nf_tensor *tensor, const int64_t *position)
{
    int64_t number = 0;
    for (int32_t a = 0; a < tensor->rank; a++)
        number = number * tensor->extents[a] + position[a];
    return number;
}

void tensor_position(const nf_tensor *tensor, int64_t number, int64_t *position)
{
    for (int32_t a = tensor->rank - 1; a >= 0; a--) {
        position[a] = number % tensor->extents[a];
        number /= tensor->extents[a];
    }
}

static void *element(const nf_tensor *tensor, int64_t number)
{
    int64_t position[NF_MAX_TENSOR_RANK], offset = 0;
    tensor_position(tensor, number, position);
    for (int32_t a = 0; a < tensor->rank; a++)
        offset += position[a] * tensor->strides[a];
    return (char *)tensor->data + offset * (int64_t)nf_dtype_size(tensor->dtype);
}

double tensor_get(const nf_tensor *tensor, int64_t number)
{
    const void *from = element(tensor, number);
    switch (tensor->dtype) {
    case NF_F64:
        return *(const double *)from;
    case NF_BF16:
        return (double)nf_bf16_to_f32(*(const uint16_t *)from);
    case NF_F16:
        return (double)nf_f16_to_f32(*(const uint16_t *)from);
    case NF_F32:
    default:
        return (double)*(const float *)from;
    }
}

void tensor_set(nf_tensor *tensor, int64_t number, double value)
{
    void *to = element(tensor, number);
    switch (tensor->dtype) {
    case NF_F64:
        *(double *)to = value;
        break;
    case NF_BF16:
        *(uint16_t *)to = nf_f64_to_bf16(value);
        break;
    case NF_F16:
        *(uint16_t *)to = nf_f64_to_f16(value);
        break;
    case NF_F32:
    default:
        *(float *)to = (float)value;
    }
}

double tensor_distance(const nf_tensor *a, const nf_tensor *b)
{
    double distance = 0;
    ck_assert_int_eq(tensor_count(a), tensor_count(b));
    for (int64_t i = 0; i < tensor_count(a); i++) {
        const double x = tensor_get(a, i), y = tensor_get(b, i);
        if (x == y || (isnan(x) && isnan(y)))
            continue;
        distance = isnan(x - y) ? INFINITY : fmax(distance, fabs(x - y));
    }
    return distance;
}

bool tensor_equal(const nf_tensor *a, const nf_tensor *b)
{
    return tensor_distance(a, b) == 0;
}

void attend_io_of(nf_io *io, const nf_tensor tensor[NF_ROLES])
{
    const nf_tensor **const member[NF_ROLES] = {
        [NF_Q] = &io->q, [NF_K] = &io->k, [NF_V] = &io->v, [NF_EXTRA_K] = &io->extra_k, [NF_EXTRA_V] = &io->extra_v,
        [NF_OUT] = &io->out, [NF_LSE] = &io->lse, [NF_DOUT] = &io->dout, [NF_DLSE] = &io->dlse, [NF_DQ] = &io->dq,
        [NF_DK] = &io->dk, [NF_DV] = &io->dv, [NF_DEXTRA_K] = &io->dextra_k, [NF_DEXTRA_V] = &io->dextra_v,
        [NF_SCORES] = &io->scores, [NF_DSCORES] = &io->dscores};
    nf_io_init(io);
    for (int role = 0; role < NF_ROLES; role++)
        if (tensor[role].rank)
            *member[role] = &tensor[role];
}

void attend_io(nf_io *io, const attend *a)
{
    attend_io_of(io, a->tensor);
}

void attend_run(attend *a, nf_context *context, const char *backend, const char *algo, nf_direction direction)
{
    nf_io io;
    attend_io(&io, a);
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.backend = backend;
    options.algo = algo;
    options.layout = &io;
    a->problem.direction = direction;
    nf_plan *plan;
    nf_status status = nf_plan_create(&plan, context, &a->problem, &options);
    if (status != NF_OK)
        ck_abort_msg("%s", nf_last_error());
    if (direction & NF_FWD)
        status = nf_forward(plan, &io, NULL);
    if (status == NF_OK && direction & NF_BWD)
        status = nf_backward(plan, &io, NULL);
    nf_plan_destroy(plan);
    if (status != NF_OK)
        ck_abort_msg("%s", nf_last_error());
}
