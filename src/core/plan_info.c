/* What a plan says about itself. */
#include <inttypes.h>

#include "core/check.h"
#include "core/plan.h"
#include "core/tensor.h"

static double visible_pairs(const nf_plan *plan)
{
    const nf_problem *p = &plan->problem;
    double queries = 1;
    for (int32_t a = 0; a < p->rank; a++)
        queries *= (double)nf_axis_query_range(&p->axis[a]).count;
    return (double)p->batch * (double)p->heads * (nf_grid_pairs(&plan->grid) + queries * (double)p->extra);
}

static double tensor_bytes(const nf_plan *plan)
{
    static const nf_role roles[] = {NF_Q, NF_K, NF_V, NF_EXTRA_K, NF_EXTRA_V, NF_OUT};
    double bytes = 0;
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (plan->layout[roles[i]].rank)
            bytes += nf_tensor_bytes(&plan->layout[roles[i]]);
    return bytes;
}

void nf_plan_figures(const nf_plan *plan, nf_plan_info *info)
{
    const nf_problem *p = &plan->problem;
    *info = (nf_plan_info){.size = sizeof *info, .kernel = ""};
    plan->part[0].algo->info(plan->part[0].prepared, info);
    const double flops = 2 * ((double)p->head_dim + (double)p->value_dim) * visible_pairs(plan);
    info->size = sizeof *info;
    info->backend = plan->selection.backend->backend->name;
    info->algo = plan->part[0].algo->name;
    info->backward_algo = p->direction & NF_BWD ? nf_plan_find_part(plan, NF_BWD)->algo->name : "";
    info->useful_pairs = visible_pairs(plan);
    info->forward_flops = p->direction & NF_FWD ? flops : 0;
    info->backward_flops = p->direction & NF_BWD ? 2.5 * flops : 0;
    info->tensor_bytes = tensor_bytes(plan);
    info->workspace_bytes = plan->workspace_bytes;
    info->plan_bytes = sizeof *plan + nf_pool_bytes(&plan->pool);
    info->threads = plan->request.threads;
}

nf_status nf_plan_get_info(const nf_plan *plan, nf_plan_info *info)
{
    if (!plan)
        return nf_fail(NF_ERR_ARGUMENT, "plan: NULL");
    const nf_status status = nf_check_size(info, sizeof *info, "info", "nf_plan_info");
    if (status != NF_OK)
        return status;
    const size_t size = info->size;
    nf_plan_figures(plan, info);
    info->size = size;
    return NF_OK;
}

static void describe_shape(nf_text *text, const char *title, const int64_t *shape, int32_t rank)
{
    nf_text_printf(text, "%s", title);
    for (int32_t a = 0; a < rank; a++)
        nf_text_printf(text, "%s%" PRId64, a ? "x" : "", shape[a]);
}

static void describe_figures(const nf_plan *plan, nf_text *text)
{
    nf_plan_info info;
    nf_plan_figures(plan, &info);
    const int32_t rank = plan->problem.rank;
    describe_shape(text, "tiles: queries ", info.query_tile, rank);
    describe_shape(text, ", keys ", info.key_tile, rank);
    nf_text_printf(text, "; %.6g full, %.6g partial, %.6g absent\n", info.tiles_full, info.tiles_partial,
                   info.tiles_absent);
    nf_text_printf(text, "pairs: %.6g visible, %.6g computed (%.3f per visible), %.6g in partial tiles\n",
                   info.useful_pairs, info.computed_pairs,
                   info.useful_pairs > 0 ? info.computed_pairs / info.useful_pairs : 0.0, info.masked_pairs);
    nf_text_printf(text, "bytes: tensors %.6g, workspace %zu, plan %zu; threads %" PRId64 "\n", info.tensor_bytes,
                   info.workspace_bytes, info.plan_bytes, info.threads);
}

static void describe_choice(const nf_plan *plan, const nf_plan_part *part, nf_text *text)
{
    nf_plan_info info = {.kernel = ""};
    part->algo->info(part->prepared, &info);
    nf_text_printf(text, "chosen: %s %s%s%s", plan->selection.backend->backend->name, part->algo->name,
                   *info.kernel ? " " : "", info.kernel);
    if (plan->parts > 1)
        nf_text_printf(text, " for %s", nf_direction_name(part->problem.direction));
    nf_text_printf(text, ", predicted %.3g ms\n", 1e3 * part->seconds);
}

static void describe_part(const nf_plan *plan, const nf_plan_part *part, nf_text *text)
{
    if (plan->parts > 1)
        nf_text_printf(text, "%s, %s:\n", part->algo->name, nf_direction_name(part->problem.direction));
    part->algo->describe(part->prepared, text);
}

nf_status nf_plan_describe(const nf_plan *plan, char *buffer, size_t capacity, size_t *length)
{
    nf_text text;
    if (!plan)
        return nf_fail(NF_ERR_ARGUMENT, "plan: NULL");
    const nf_status status = nf_text_init(&text, buffer, capacity);
    if (status != NF_OK)
        return status;
    const nf_selection *s = &plan->selection;
    nf_text_printf(&text, "problem: %s\n", plan->text);
    for (int i = 0; i < plan->parts; i++)
        describe_choice(plan, &plan->part[i], &text);
    nf_text_printf(&text, "not chosen:%s", s->count ? "\n" : " there is no other\n");
    nf_selection_describe(s, "  ", "\n", &text);
    if (s->count)
        nf_text_printf(&text, "\n");
    describe_figures(plan, &text);
    for (int i = 0; i < plan->parts; i++)
        describe_part(plan, &plan->part[i], &text);
    return nf_text_finish(&text, length);
}
