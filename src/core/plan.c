/* The life of a plan but for what it says about itself: plan_info.c. */
#include "core/plan.h"

#include <inttypes.h>
#include <time.h>

#include "core/check.h"
#include "core/io.h"
#include "core/log.h"
#include "core/mem.h"

void nf_plan_options_init(nf_plan_options *options)
{
    *options = (nf_plan_options){.size = sizeof *options};
}

void nf_exec_init(nf_exec *exec)
{
    *exec = (nf_exec){.size = sizeof *exec};
}

/* Undoes whatever part of a plan exists; the plan's memory began as zeros. */
static void free_plan(nf_plan *plan, nf_pool *parent)
{
    const nf_context *context = &plan->context;
    nf_release(context, plan->workspace);
    for (int i = 0; i < plan->parts; i++)
        if (plan->part[i].prepared)
            plan->part[i].algo->release(&plan->part[i].request, plan->part[i].prepared);
    nf_selection_destroy(&plan->selection, context);
    nf_grid_destroy(&plan->grid, context);
    nf_pool_release(parent, plan);
}

static nf_status prepare_part(nf_plan *plan, nf_direction direction)
{
    nf_plan_part *part = &plan->part[plan->parts++];
    part->request = nf_request_narrow(&plan->request, direction, &part->problem);
    for (nf_direction d = NF_FWD; d <= NF_BWD; d++)
        if (direction & d) {
            part->algo = plan->selection.choice[d - 1].algo;
            part->seconds += plan->selection.choice[d - 1].seconds;
        }
    const nf_status status = part->algo->prepare(plan->selection.backend->state, &part->request, &part->prepared);
    if (status != NF_OK)
        return status;
    const size_t bytes = part->algo->workspace(part->prepared);
    plan->workspace_bytes = bytes > plan->workspace_bytes ? bytes : plan->workspace_bytes;
    return NF_OK;
}

static nf_status prepare(nf_plan *plan)
{
    const nf_choice *choice = plan->selection.choice;
    const bool split =
        plan->problem.direction == NF_BOTH && (choice[0].algo != choice[1].algo || choice[0].algo->apart);
    nf_status status = prepare_part(plan, split ? NF_FWD : plan->problem.direction);
    if (status == NF_OK && split)
        status = prepare_part(plan, NF_BWD);
    if (status != NF_OK)
        return status;
    plan->workspace = nf_alloc(&plan->context, plan->workspace_bytes);
    return plan->workspace ? NF_OK : NF_ERR_MEMORY;
}

static nf_status build(nf_plan *plan, const nf_problem *problem, const nf_plan_options *options)
{
    plan->problem = *problem;
    plan->problem.size = sizeof plan->problem;
    nf_status status = nf_problem_format(problem, plan->text, sizeof plan->text, NULL);
    if (status != NF_OK)
        return status;
    nf_request *request = &plan->request;
    request->context = &plan->context;
    request->problem = &plan->problem;
    request->grid = &plan->grid;
    request->layout = plan->layout;
    request->threads = nf_context_threads(&plan->context);
    status = nf_layout_complete(plan->layout, &plan->problem, options ? options->layout : NULL);
    if (status != NF_OK || (status = nf_grid_create(&plan->grid, &plan->context, &plan->problem)) != NF_OK ||
        (status = nf_select(&plan->selection, request, options)) != NF_OK)
        return status;
    return prepare(plan);
}

static void log_plan(const nf_plan *plan)
{
    const nf_context *context = &plan->context;
    if (!nf_log_wants(context, NF_LOG_PLANS))
        return;
    const nf_selection *s = &plan->selection;
    for (int i = 0; i < s->count; i++) {
        char reason[2 * NF_REASON_CAPACITY];
        nf_text text;
        nf_text_init(&text, reason, sizeof reason);
        nf_selection_describe_one(s, i, &text);
        nf_log(context, NF_LOG_PLANS, "not %s", reason);
    }
    for (int i = 0; i < plan->parts; i++)
        nf_log(context, NF_LOG_PLANS, "plan: %s %s%s%s, predicted %.3g ms, workspace %zu bytes, %s",
               s->backend->backend->name, plan->part[i].algo->name, plan->parts > 1 ? " for " : "",
               plan->parts > 1 ? nf_direction_name(plan->part[i].problem.direction) : "", 1e3 * plan->part[i].seconds,
               plan->workspace_bytes, plan->text);
}

nf_status nf_plan_create(nf_plan **plan, nf_context *context, const nf_problem *problem, const nf_plan_options *options)
{
    if (!plan || !context)
        return nf_fail(NF_ERR_ARGUMENT, "%s: NULL", plan ? "context" : "plan");
    nf_status status = nf_problem_check(problem);
    if (status == NF_OK && options)
        status = nf_check_size(options, sizeof *options, "options", "nf_plan_options");
    if (status != NF_OK)
        return status;
    nf_plan *made = nf_alloc_array(context, 1, sizeof *made);
    if (!made)
        return NF_ERR_MEMORY;
    nf_pool_init_child(&made->pool, context->pool);
    made->context = *context;
    made->context.pool = &made->pool;
    atomic_flag_clear(&made->busy);
    status = build(made, problem, options);
    if (status != NF_OK) {
        free_plan(made, context->pool);
        return status;
    }
    log_plan(made);
    *plan = made;
    return NF_OK;
}

void nf_plan_destroy(nf_plan *plan)
{
    if (plan)
        free_plan(plan, plan->pool.parent);
}

const nf_plan_part *nf_plan_find_part(const nf_plan *plan, nf_direction direction)
{
    return plan->part[0].problem.direction & direction ? &plan->part[0] : &plan->part[1];
}

/* ---- Execution --------------------------------------------------------------------------------------------------- */

nf_status nf_exec_check(const nf_exec *exec)
{
    const nf_status status = nf_check_size(exec, sizeof *exec, "exec", "nf_exec");
    if (status != NF_OK)
        return status;
    if (exec->wait_count < 0 || exec->wait_count > INT32_MAX)
        return nf_fail(NF_ERR_ARGUMENT, "exec: wait_count %" PRId64 " must be 0..2147483647", exec->wait_count);
    if (exec->wait_count && !exec->wait_events)
        return nf_fail(NF_ERR_ARGUMENT, "exec: wait_events is NULL, wait_count %" PRId64, exec->wait_count);
    return NF_OK;
}

static nf_status check_timing(const nf_plan *plan, const nf_timing *timing)
{
    const nf_backend *backend = plan->selection.backend->backend;
    if (backend->peak == nf_stub_peak)
        return nf_fail(NF_ERR_UNSUPPORTED, "exec: timing must be NULL, the %s backend has no clock of its own",
                       backend->name);
    if (timing->runs < 1)
        return nf_fail(NF_ERR_ARGUMENT, "exec: timing: runs %" PRId64 " must be at least 1", timing->runs);
    return NF_OK;
}

static nf_status check_queue(const nf_plan *plan, const nf_plan_part *part, const nf_exec *exec)
{
    const char *backend = plan->selection.backend->backend->name;
    if (part->algo->enqueue != nf_stub_enqueue)
        return NF_OK;
    if (exec->queue)
        return nf_fail(NF_ERR_ARGUMENT, "exec: queue must be NULL, the %s backend has none", backend);
    if (exec->wait_count)
        return nf_fail(NF_ERR_ARGUMENT, "exec: wait_count %" PRId64 " must be 0, the %s backend has no events",
                       exec->wait_count, backend);
    if (exec->signal_event)
        return nf_fail(NF_ERR_ARGUMENT, "exec: signal_event must be NULL, the %s backend has no events", backend);
    return NF_OK;
}

static nf_status check_exec(const nf_plan *plan, const nf_plan_part *part, const nf_exec *exec)
{
    nf_status status = nf_exec_check(exec);
    if (status != NF_OK || (status = check_queue(plan, part, exec)) != NF_OK)
        return status;
    if (exec->timing && (status = check_timing(plan, exec->timing)) != NF_OK)
        return status;
    if (!exec->workspace)
        return NF_OK;
    if ((uintptr_t)exec->workspace % NF_ALIGNMENT)
        return nf_fail(NF_ERR_ARGUMENT, "exec: workspace %p is not %d-byte aligned", exec->workspace, NF_ALIGNMENT);
    if (exec->workspace_bytes < plan->workspace_bytes)
        return nf_fail(NF_ERR_SPACE, "exec: workspace_bytes %zu is less than the plan needs, %zu",
                       exec->workspace_bytes, plan->workspace_bytes);
    return NF_OK;
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static nf_status run(const nf_plan_part *part, const nf_tensor *const tensors[NF_ROLES], nf_operation operation,
                     void *workspace, const nf_exec *exec)
{
    const nf_algorithm *algo = part->algo;
    if (exec && (exec->queue || exec->wait_count || exec->signal_event || exec->timing))
        return algo->enqueue(part->prepared, operation, tensors, workspace, exec);
    switch (operation) {
    case NF_FORWARD:
        return algo->forward(part->prepared, tensors, workspace);
    case NF_BACKWARD:
        return algo->backward(part->prepared, tensors, workspace);
    case NF_QK:
        return algo->pair->qk(part->prepared, tensors, workspace);
    case NF_AV:
        return algo->pair->av(part->prepared, tensors, workspace);
    case NF_QK_BACKWARD:
        return algo->pair->qk_backward(part->prepared, tensors, workspace);
    case NF_AV_BACKWARD:
    default:
        return algo->pair->av_backward(part->prepared, tensors, workspace);
    }
}

static nf_status dispatch(const nf_plan *plan, const nf_plan_part *part, const nf_tensor *const tensors[NF_ROLES],
                          nf_operation operation, void *workspace, const nf_exec *exec)
{
    const bool logged = nf_log_wants(&plan->context, NF_LOG_CALLS);
    const double start = logged ? now_ms() : 0;
    const nf_status status = run(part, tensors, operation, workspace, exec);
    if (logged)
        nf_log(&plan->context, NF_LOG_CALLS, "%s %s %s %.3f ms%s: %s", plan->selection.backend->backend->name,
               part->algo->name, nf_operation_name(operation), now_ms() - start, status == NF_OK ? "" : " failed",
               plan->text);
    return status;
}

static nf_status execute(const nf_plan *plan, const nf_io *io, const nf_exec *exec, nf_operation operation)
{
    if (!plan)
        return nf_fail(NF_ERR_ARGUMENT, "plan: NULL");
    const nf_direction direction = nf_operation_direction(operation);
    if (!(plan->problem.direction & direction))
        return nf_fail(NF_ERR_ARGUMENT, "plan: made for %s, which does not include %s",
                       nf_direction_name(plan->problem.direction), nf_direction_name(direction));
    const nf_plan_part *part = nf_plan_find_part(plan, direction);
    nf_status status = nf_check_size(io, sizeof *io, "io", "nf_io");
    if (status != NF_OK || (exec && (status = check_exec(plan, part, exec)) != NF_OK))
        return status;
    const nf_tensor *tensors[NF_ROLES];
    nf_io_by_role(io, tensors);
    if ((status = nf_call_check(tensors, plan->layout, operation)) != NF_OK)
        return status;
    if ((exec && exec->workspace) || plan->workspace_bytes == 0)
        return dispatch(plan, part, tensors, operation, exec ? exec->workspace : NULL, exec);
    /* The guard is the only part of a plan that changes; no plan is ever a const object. */
    atomic_flag *busy = &((nf_plan *)plan)->busy;
    if (atomic_flag_test_and_set(busy))
        return nf_fail(NF_ERR_BUSY,
                       "plan: another call is using its workspace; pass a workspace of %zu bytes in nf_exec",
                       plan->workspace_bytes);
    status = dispatch(plan, part, tensors, operation, plan->workspace, exec);
    atomic_flag_clear(busy);
    return status;
}

nf_status nf_forward(const nf_plan *plan, const nf_io *io, const nf_exec *exec)
{
    return execute(plan, io, exec, NF_FORWARD);
}

nf_status nf_backward(const nf_plan *plan, const nf_io *io, const nf_exec *exec)
{
    return execute(plan, io, exec, NF_BACKWARD);
}

nf_status nf_qk(const nf_plan *plan, const nf_io *io, const nf_exec *exec)
{
    return execute(plan, io, exec, NF_QK);
}

nf_status nf_av(const nf_plan *plan, const nf_io *io, const nf_exec *exec)
{
    return execute(plan, io, exec, NF_AV);
}

nf_status nf_qk_backward(const nf_plan *plan, const nf_io *io, const nf_exec *exec)
{
    return execute(plan, io, exec, NF_QK_BACKWARD);
}

nf_status nf_av_backward(const nf_plan *plan, const nf_io *io, const nf_exec *exec)
{
    return execute(plan, io, exec, NF_AV_BACKWARD);
}
