/* One execution through the public interface, on strided, guarded, poisoned memory; everything a caller may rely on
 * besides the numbers is checked here. */
#include "verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PURPOSE_LAYOUT = 21, WORKSPACE_GUARD = 64, WORKSPACE_BYTE = 0xa5 };

static const unsigned inputs = 1u << NF_Q | 1u << NF_K | 1u << NF_V | 1u << NF_EXTRA_K | 1u << NF_EXTRA_V;
static const unsigned gradients = 31u << NF_DQ;

verify_call verify_call_plain(const verify_engine *engine)
{
    return (verify_call){.context = engine->context, .backend = engine->backend, .algo = engine->algo,
                         .layout = VERIFY_CONTIGUOUS, .lse = true, .dlse = true, .gradients = gradients};
}

static verify_outcome failed(char *why, const char *what)
{
    snprintf(why, VERIFY_WHY, "%s: %s", what, nf_last_error());
    return VERIFY_FAIL;
}

static verify_outcome make_plan(const verify_call *call, const nf_problem *problem, nf_direction direction,
                                const verify_buffers *buffers, unsigned roles, nf_plan **plan, char *why)
{
    nf_problem directed = *problem;
    directed.direction = direction;
    nf_io layout;
    verify_buffers_io(buffers, &layout, roles);
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.backend = call->backend;
    options.algo = call->algo;
    options.layout = &layout;
    const nf_status status = nf_plan_create(plan, call->context, &directed, &options);
    if (status == NF_OK)
        return VERIFY_PASS;
    failed(why, "nf_plan_create");
    return status == NF_ERR_UNSUPPORTED ? VERIFY_SKIP : VERIFY_FAIL;
}

/* Runs one direction, in the plan's workspace or, for odd seeds, in one of the caller's that must not be overrun. */
static verify_outcome run_plan(const verify_call *call, const nf_plan *plan, nf_direction direction,
                               const verify_buffers *buffers, unsigned roles, char *why)
{
    nf_io io;
    verify_buffers_io(buffers, &io, roles);
    nf_exec exec;
    nf_exec_init(&exec);
    unsigned char *workspace = NULL;
    if (call->seed % 2) {
        nf_plan_info info = {.size = sizeof info};
        if (nf_plan_get_info(plan, &info) != NF_OK)
            return failed(why, "nf_plan_get_info");
        const size_t bytes = (info.workspace_bytes + 63) / 64 * 64;
        workspace = aligned_alloc(64, bytes + WORKSPACE_GUARD);
        if (!workspace)
            return failed(why, "no memory for the workspace");
        memset(workspace, WORKSPACE_BYTE, bytes + WORKSPACE_GUARD);
        exec.workspace = workspace;
        exec.workspace_bytes = info.workspace_bytes;
    }
    const nf_status status = direction == NF_FWD ? nf_forward(plan, &io, &exec) : nf_backward(plan, &io, &exec);
    verify_outcome outcome = VERIFY_PASS;
    if (status != NF_OK)
        outcome = failed(why, direction == NF_FWD ? "nf_forward" : "nf_backward");
    for (size_t i = 0; workspace && i < WORKSPACE_GUARD && outcome == VERIFY_PASS; i++)
        if (workspace[exec.workspace_bytes + i] != WORKSPACE_BYTE) {
            snprintf(why, VERIFY_WHY, "wrote past the end of the caller's workspace of %zu bytes",
                     exec.workspace_bytes);
            outcome = VERIFY_FAIL;
        }
    free(workspace);
    return outcome;
}

static verify_outcome load_outputs(const verify_buffers *buffers, unsigned roles, verify_values *values, char *why)
{
    for (int role = 0; role < NF_ROLES; role++) {
        if (!(roles >> role & 1))
            continue;
        const int64_t unwritten = verify_buffers_unwritten(buffers, role);
        const int64_t trespassed = verify_buffers_trespassed(buffers, role);
        verify_buffers_load(buffers, values, role);
        if (unwritten || trespassed) {
            snprintf(why, VERIFY_WHY, "%s: %lld of %lld elements not written, %lld elements around it overwritten",
                     nf_role_name((nf_role)role), (long long)unwritten, (long long)values->role[role].count,
                     (long long)trespassed);
            return VERIFY_FAIL;
        }
    }
    return VERIFY_PASS;
}

static verify_outcome check_inputs(const verify_buffers *buffers, unsigned roles, char *why)
{
    for (int role = 0; role < NF_ROLES; role++)
        if (roles >> role & 1 && !verify_buffers_unchanged(buffers, role)) {
            snprintf(why, VERIFY_WHY, "%s: an input was changed", nf_role_name((nf_role)role));
            return VERIFY_FAIL;
        }
    return VERIFY_PASS;
}

static void seal_all(verify_buffers *buffers, unsigned roles)
{
    for (int role = 0; role < NF_ROLES; role++)
        if (roles >> role & 1)
            verify_buffers_seal(buffers, role);
}

static verify_outcome forward(const verify_call *call, const nf_problem *problem, nf_direction direction,
                              verify_buffers *buffers, unsigned in, unsigned out, unsigned all, verify_values *values,
                              nf_plan **plan, char *why)
{
    verify_outcome outcome =
        make_plan(call, problem, direction, buffers, direction == NF_FWD ? in | out : all, plan, why);
    if (outcome == VERIFY_PASS)
        outcome = run_plan(call, *plan, NF_FWD, buffers, in | out, why);
    if (outcome == VERIFY_PASS)
        outcome = load_outputs(buffers, out, values, why);
    return outcome == VERIFY_PASS ? check_inputs(buffers, in, why) : outcome;
}

static verify_outcome backward(const verify_call *call, const nf_problem *problem, verify_buffers *buffers,
                               unsigned in, unsigned out, verify_values *values, nf_plan **plan, char *why)
{
    verify_outcome outcome = VERIFY_PASS;
    if (problem->direction == NF_BWD) {
        nf_plan_destroy(*plan);
        *plan = NULL;
        outcome = make_plan(call, problem, NF_BWD, buffers, in | out, plan, why);
    }
    seal_all(buffers, in);
    if (outcome == VERIFY_PASS)
        outcome = run_plan(call, *plan, NF_BWD, buffers, in | out, why);
    if (outcome == VERIFY_PASS)
        outcome = load_outputs(buffers, out, values, why);
    return outcome == VERIFY_PASS ? check_inputs(buffers, in, why) : outcome;
}

/* The roles that a problem of these values has. */
static unsigned present(const verify_values *values, unsigned roles)
{
    for (int role = 0; role < NF_ROLES; role++)
        if (!values->role[role].data)
            roles &= ~(1u << role);
    return roles;
}

verify_outcome verify_execute(const verify_call *call, const nf_problem *problem, verify_values *values, char *why)
{
    const bool has_backward = problem->direction != NF_FWD;
    const unsigned in = present(values, inputs);
    const unsigned out = 1u << NF_OUT | (call->lse || has_backward ? 1u << NF_LSE : 0);
    const unsigned cotangents = has_backward ? 1u << NF_DOUT | (call->dlse ? 1u << NF_DLSE : 0) : 0;
    const unsigned wanted = has_backward ? present(values, call->gradients) : 0;
    verify_random random = verify_random_stream(call->seed, PURPOSE_LAYOUT);
    verify_buffers buffers;
    verify_buffers_create(&buffers, values, in | out | cotangents | wanted, call->layout, &random);
    for (int role = 0; role < NF_ROLES; role++)
        if ((in | cotangents) >> role & 1)
            verify_buffers_store(&buffers, values, role);
    seal_all(&buffers, in);
    nf_plan *plan = NULL;
    verify_outcome outcome = forward(call, problem, has_backward && problem->direction == NF_BOTH ? NF_BOTH : NF_FWD,
                                     &buffers, in, out, in | out | cotangents | wanted, values, &plan, why);
    if (outcome == VERIFY_PASS && has_backward)
        outcome = backward(call, problem, &buffers, in | out | cotangents, wanted, values, &plan, why);
    nf_plan_destroy(plan);
    verify_buffers_destroy(&buffers);
    return outcome;
}

verify_outcome verify_under_test(const verify_engine *engine, const verify_call *call, const nf_problem *problem,
                                 verify_values *values, char *why)
{
    const verify_outcome outcome = verify_execute(call, problem, values, why);
    return outcome == VERIFY_SKIP && engine->must_run ? VERIFY_FAIL : outcome;
}
