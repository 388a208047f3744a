/* Tensors in one allocation. */
#include "placed.h"

#include <math.h>
#include <stdlib.h>

#include "harness.h"

void placed_lay(placed *p, nf_memory memory, uint32_t in_host)
{
    int64_t used = 1;
    for (int role = 0; role < NF_ROLES; role++) {
        nf_tensor *t = &p->tensor[role];
        *t = p->truth.tensor[role];
        if (t->rank == 0 || in_host >> role & 1)
            continue;
        const int32_t last = t->rank - 1;
        t->memory = memory;
        t->data = NULL;
        t->strides[last] = -1;
        p->first[role] = used + t->extents[last] - 1;
        used += tensor_count(t);
    }
    p->bytes = (size_t)used * sizeof(float);
}

/* What an image of the allocation holds of a tensor; rank 0 where it holds none. */
static nf_tensor view_of(const placed *p, int role, float *image)
{
    nf_tensor view = p->tensor[role];
    if (view.rank == 0 || view.memory == NF_HOST)
        return (nf_tensor){.rank = 0};
    view.memory = NF_HOST;
    view.data = image + p->first[role];
    view.offset = 0;
    return view;
}

void placed_fill(const placed *p, float *image)
{
    for (int role = 0; role < NF_ROLES; role++) {
        nf_tensor view = view_of(p, role, image);
        for (int64_t i = 0; view.rank && i < tensor_count(&view); i++)
            tensor_set(&view, i, tensor_get(&p->truth.tensor[role], i));
    }
}

/* Slots that do not exist hold -inf, what nobody writes NaN. */
static bool is_close(double is, double wanted, double tolerance)
{
    return is == wanted || fabs(is - wanted) < tolerance || (isnan(is) && isnan(wanted));
}

void placed_compare(const placed *p, float *image, double tolerance)
{
    for (int role = 0; role < NF_ROLES; role++) {
        const nf_tensor view = view_of(p, role, image), *truth = &p->truth.tensor[role];
        for (int64_t i = 0; view.rank && i < tensor_count(&view); i++)
            ck_assert_msg(is_close(tensor_get(&view, i), tensor_get(truth, i), tolerance), "%s: %g at %d must be %g",
                          nf_role_name((nf_role)role), tensor_get(&view, i), (int)i, tensor_get(truth, i));
    }
}

/* ---- The unfused pair -------------------------------------------------------------------------------------------- */

void placed_add_scores(attend *a)
{
    for (int role = NF_SCORES; role <= NF_DSCORES; role++) {
        nf_tensor *t = &a->tensor[role];
        ck_assert_int_eq(nf_problem_tensor(&a->problem, (nf_role)role, t), NF_OK);
        t->data = a->memory[role] = calloc((size_t)tensor_count(t), sizeof(float));
    }
}

nf_plan *placed_pair_plan(nf_context *context, const char *backend, const nf_problem *problem, const nf_io *io)
{
    nf_plan *plan;
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.backend = backend;
    options.algo = "unfused";
    options.layout = io;
    ck_assert_msg(nf_plan_create(&plan, context, problem, &options) == NF_OK, "%s", nf_last_error());
    return plan;
}

void placed_run_pair(const nf_plan *plan, const nf_io *io, const nf_exec *exec)
{
    ck_assert_msg(nf_qk(plan, io, exec) == NF_OK, "%s", nf_last_error());
    ck_assert_msg(nf_av(plan, io, exec) == NF_OK, "%s", nf_last_error());
    ck_assert_msg(nf_av_backward(plan, io, exec) == NF_OK, "%s", nf_last_error());
    ck_assert_msg(nf_qk_backward(plan, io, exec) == NF_OK, "%s", nf_last_error());
}

/* ---- Plans ------------------------------------------------------------------------------------------------------- */

void placed_io(nf_io *io, const placed *p)
{
    attend_io_of(io, p->tensor);
}

nf_plan *placed_plan(const placed *p, nf_context *context, const char *backend)
{
    nf_io io;
    nf_plan *plan;
    nf_plan_options options;
    nf_plan_info info = {.size = sizeof info};
    placed_io(&io, p);
    nf_plan_options_init(&options);
    options.layout = &io;
    ck_assert_msg(nf_plan_create(&plan, context, &p->truth.problem, &options) == NF_OK, "%s", nf_last_error());
    ck_assert_int_eq(nf_plan_get_info(plan, &info), NF_OK);
    ck_assert_str_eq(info.backend, backend);
    return plan;
}

void placed_run(const placed *p, const nf_plan *plan, const nf_exec *exec)
{
    nf_io io;
    placed_io(&io, p);
    ck_assert_msg(nf_forward(plan, &io, exec) == NF_OK, "%s", nf_last_error());
    ck_assert_msg(nf_backward(plan, &io, exec) == NF_OK, "%s", nf_last_error());
}
