/* Which passes make up forward, backward and the public pair. */
#include <math.h>

#include "backends/cpu/unfused.h"

/* ---- Products ---------------------------------------------------------------------------------------------------- */

/* One call: its tensors and workspace. */
typedef struct unfused_call {
    const cpu_unfused_plan *plan;
    cpu_views io;
    char *workspace;
} unfused_call;

static unfused_call start_call(const cpu_unfused_plan *plan, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    return (unfused_call){plan, cpu_views_of(io, plan->request->problem->rank), workspace};
}

static cpu_unfused_pass start_pass(const unfused_call *c, cpu_view w, int64_t dim, double factor)
{
    return (cpu_unfused_pass){.plan = c->plan, .w = w, .dim = dim, .factor = factor, .workspace = c->workspace};
}

/* scores = factor q k^T */
static void multiply_qk(const unfused_call *c, cpu_view scores, double factor)
{
    cpu_unfused_pass pass = start_pass(c, scores, c->plan->request->problem->head_dim, factor);
    pass.a = c->io.q;
    pass.b = c->io.k;
    pass.extra_b = c->io.extra_k;
    pass.absent = -INFINITY;
    cpu_unfused_pair(&pass);
}

/* dscores = dout v^T */
static void multiply_dout_v(const unfused_call *c, cpu_view dscores)
{
    cpu_unfused_pass pass = start_pass(c, dscores, c->plan->request->problem->value_dim, 1);
    pass.a = c->io.dout;
    pass.b = c->io.v;
    pass.extra_b = c->io.extra_v;
    cpu_unfused_pair(&pass);
}

/* out = scores v */
static void multiply_av(const unfused_call *c, cpu_view scores)
{
    cpu_unfused_pass pass = start_pass(c, scores, c->plan->request->problem->value_dim, 1);
    pass.b = c->io.v;
    pass.extra_b = c->io.extra_v;
    pass.y = c->io.out;
    cpu_unfused_apply(&pass);
}

/* dq = scale dscores k, and dk, dextra_k = scale dscores^T q, as far as they are asked for. */
static void multiply_dscores(const unfused_call *c, cpu_view dscores)
{
    cpu_unfused_pass pass = start_pass(c, dscores, c->plan->request->problem->head_dim, c->plan->scale);
    if (c->io.dq.data) {
        pass.b = c->io.k;
        pass.extra_b = c->io.extra_k;
        pass.y = c->io.dq;
        cpu_unfused_apply(&pass);
    }
    pass.a = c->io.q;
    pass.y = c->io.dk;
    pass.extra_y = c->io.dextra_k;
    cpu_unfused_transpose(&pass);
}

/* dv, dextra_v = scores^T dout, as far as they are asked for. */
static void multiply_scores_dout(const unfused_call *c, cpu_view scores)
{
    cpu_unfused_pass pass = start_pass(c, scores, c->plan->request->problem->value_dim, 1);
    pass.a = c->io.dout;
    pass.y = c->io.dv;
    pass.extra_y = c->io.dextra_v;
    cpu_unfused_transpose(&pass);
}

/* ---- Forward and backward ---------------------------------------------------------------------------------------- */

/* The plan's own scores, after what threads and extra tokens need; the second half only in backward. */
static char *own_scores(const unfused_call *c)
{
    return c->workspace + (size_t)c->plan->threads * c->plan->thread_bytes + c->plan->extra_bytes;
}

nf_status cpu_unfused_forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const unfused_call call = start_call(prepared, io, workspace);
    char *scores = own_scores(&call);
    const cpu_view own = cpu_unfused_own(call.plan, scores);
    const double scale = call.plan->scale;
    /* Softmax can scale, but absent slots, -inf, stay so only where the scale is positive. */
    multiply_qk(&call, own, scale > 0 ? 1 : scale);
    cpu_unfused_softmax(call.plan, scores, scale > 0 ? scale : 1, &call.io.lse, workspace);
    multiply_av(&call, own);
    return NF_OK;
}

nf_status cpu_unfused_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const unfused_call call = start_call(prepared, io, workspace);
    char *scores = own_scores(&call), *dscores = scores + call.plan->score_bytes;
    const cpu_view own = cpu_unfused_own(call.plan, scores), gradient = cpu_unfused_own(call.plan, dscores);
    multiply_qk(&call, own, call.plan->scale);
    multiply_dout_v(&call, gradient);
    cpu_unfused_gradient(call.plan, scores, dscores, &call.io, workspace);
    multiply_scores_dout(&call, own);
    multiply_dscores(&call, gradient);
    return NF_OK;
}

/* ---- The public pair --------------------------------------------------------------------------------------------- */

static cpu_view view_of(const unfused_call *c, const nf_tensor *scores)
{
    return cpu_unfused_view(scores, c->plan->request->problem->rank);
}

static nf_status qk(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const unfused_call call = start_call(prepared, io, workspace);
    multiply_qk(&call, view_of(&call, io[NF_SCORES]), call.plan->scale);
    return NF_OK;
}

static nf_status av(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const unfused_call call = start_call(prepared, io, workspace);
    multiply_av(&call, view_of(&call, io[NF_SCORES]));
    return NF_OK;
}

static nf_status qk_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const unfused_call call = start_call(prepared, io, workspace);
    multiply_dscores(&call, view_of(&call, io[NF_DSCORES]));
    return NF_OK;
}

static nf_status av_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const unfused_call call = start_call(prepared, io, workspace);
    if (io[NF_DSCORES])
        multiply_dout_v(&call, view_of(&call, io[NF_DSCORES]));
    multiply_scores_dout(&call, view_of(&call, io[NF_SCORES]));
    return NF_OK;
}

const nf_pair cpu_unfused_public = {
    .qk = qk,
    .av = av,
    .qk_backward = qk_backward,
    .av_backward = av_backward,
};
