/* Preference lists, and the choice among candidates. */
#include "core/select.h"

#include <stdio.h>
#include <string.h>

#include "core/check.h"
#include "core/mem.h"
#include "core/problem_text.h"

/* ---- Preference -------------------------------------------------------------------------------------------------- */

static nf_status find_name(const nf_context *context, const char *name, size_t length, const char *source, int *index)
{
    const char *names[NF_MAX_BACKENDS + 1] = {NULL};
    for (int i = 0; i < context->backend_count; i++) {
        names[i] = context->backend[i].backend->name;
        if (strlen(names[i]) == length && memcmp(names[i], name, length) == 0) {
            *index = i;
            return NF_OK;
        }
    }
    return nf_fail(NF_ERR_ARGUMENT, "%s: '%.*s' is no backend; the nearest is '%s'", source,
                   length > 40 ? 40 : (int)length, name, nf_nearest(name, length, names, NULL));
}

nf_status nf_context_use_backend(const nf_context *context, const char *name, const char *source,
                                 const nf_context_backend **entry)
{
    int index;
    nf_status status = find_name(context, name, strlen(name), source, &index);
    if (status != NF_OK || (status = nf_context_try_backend(&context->backend[index])) != NF_OK)
        return status;
    *entry = &context->backend[index];
    return (*entry)->open ? NF_OK
                          : nf_fail(NF_ERR_UNAVAILABLE, "%s: %s is unavailable: %s", source, name, (*entry)->reason);
}

static void prefer_default(nf_context *context, const bool excluded[NF_MAX_BACKENDS])
{
    context->preferred_count = 0;
    for (int i = 0; i < context->backend_count; i++) {
        nf_context_backend *entry = &context->backend[i];
        entry->provisional = !entry->backend->preferred && context->topology.gpu && entry->backend->gpu != nf_stub_gpu;
        if ((entry->backend->preferred || entry->provisional) && !excluded[i])
            context->preferred[context->preferred_count++] = i;
    }
}

void nf_preference_settle(nf_context *context)
{
    int kept = 0;
    for (int i = 0; i < context->preferred_count; i++) {
        const nf_context_backend *entry = &context->backend[context->preferred[i]];
        if (!entry->provisional || !entry->open || entry->backend->gpu(entry->state))
            context->preferred[kept++] = context->preferred[i];
    }
    context->preferred_count = kept;
}

nf_status nf_preference_parse(nf_context *context, const char *text, const char *source, bool excluded[NF_MAX_BACKENDS])
{
    bool named[NF_MAX_BACKENDS] = {false};
    memset(excluded, 0, NF_MAX_BACKENDS * sizeof excluded[0]);
    context->preferred_count = 0;
    for (int i = 0; i < context->backend_count; i++)
        context->backend[i].provisional = false;
    while (text) {
        const char *end = text + strcspn(text, ",");
        const bool minus = *text == '-';
        const char *name = text + minus;
        int index = 0;
        if (name == end)
            return nf_fail(NF_ERR_ARGUMENT, "%s: a backend name is missing", source);
        const nf_status status = find_name(context, name, (size_t)(end - name), source, &index);
        if (status != NF_OK)
            return status;
        if (named[index])
            return nf_fail(NF_ERR_ARGUMENT, "%s: '%.*s' is named twice", source, (int)(end - name), name);
        named[index] = true;
        if (minus)
            excluded[index] = true;
        else
            context->preferred[context->preferred_count++] = index;
        text = *end ? end + 1 : NULL;
    }
    if (context->preferred_count == 0)
        prefer_default(context, excluded);
    return NF_OK;
}

/* ---- Selection --------------------------------------------------------------------------------------------------- */

bool nf_preference_holds(const nf_context *context, int index)
{
    for (int i = 0; i < context->preferred_count; i++)
        if (context->preferred[i] == index)
            return true;
    return false;
}

/* The backends that compete, best first, then those that do not. Returns the number of the former. */
static int order_backends(const nf_context *context, const nf_context_backend *only, int order[NF_MAX_BACKENDS])
{
    int count = 0;
    if (only)
        order[count++] = (int)(only - context->backend);
    else
        for (int i = 0; i < context->preferred_count; i++)
            order[count++] = context->preferred[i];
    int filled = count;
    for (int i = 0; i < context->backend_count; i++)
        if (only ? &context->backend[i] != only : !nf_preference_holds(context, i))
            order[filled++] = i;
    return count;
}

/* A reason that holds for both directions is kept once. */
static void add_reason(nf_selection *s, const char *backend, const char *algo, nf_direction direction,
                       const char *reason)
{
    nf_candidate *last = s->count ? &s->candidates[s->count - 1] : NULL;
    if (last && last->backend == backend && last->algo == algo && strcmp(last->reason, reason) == 0) {
        last->direction |= direction;
        return;
    }
    nf_candidate *candidate = &s->candidates[s->count++];
    *candidate = (nf_candidate){.backend = backend, .algo = algo, .direction = direction};
    snprintf(candidate->reason, sizeof candidate->reason, "%s", reason);
}

/* The loser of a comparison by predicted time. */
static void add_slower(nf_selection *s, const nf_context_backend *entry, nf_direction direction, const nf_choice *loser,
                       const nf_choice *winner)
{
    char reason[NF_REASON_CAPACITY];
    snprintf(reason, sizeof reason, "predicted %.3g ms, %s %.3g ms", 1e3 * loser->seconds, winner->algo->name,
             1e3 * winner->seconds);
    add_reason(s, entry->backend->name, loser->algo->name, direction, reason);
}

/* Which of the problem's directions an algorithm supports. */
static nf_status ask_directions(nf_selection *s, const nf_context_backend *entry, const nf_algorithm *algo,
                                const nf_request *request, nf_direction *supported)
{
    *supported = 0;
    for (nf_direction direction = NF_FWD; direction <= NF_BWD; direction++) {
        if (!(s->direction & direction))
            continue;
        nf_problem problem;
        const nf_request narrow = nf_request_narrow(request, direction, &problem);
        const nf_status status = algo->supports(entry->state, &narrow);
        if (status == NF_OK)
            *supported |= direction;
        else if (status == NF_ERR_UNSUPPORTED)
            add_reason(s, entry->backend->name, algo->name, direction, nf_last_error());
        else
            return status;
    }
    return NF_OK;
}

static void compete(nf_selection *s, const nf_context_backend *entry, nf_direction direction, nf_choice tried)
{
    nf_choice *best = &s->choice[direction - 1];
    if (best->algo && best->seconds <= tried.seconds) {
        add_slower(s, entry, direction, &tried, best);
        return;
    }
    if (best->algo)
        add_slower(s, entry, direction, best, &tried);
    *best = tried;
}

static nf_status try_algorithm(nf_selection *s, const nf_context_backend *entry, const nf_algorithm *algo,
                               const nf_request *request)
{
    nf_direction supported;
    const nf_status status = ask_directions(s, entry, algo, request, &supported);
    if (status != NF_OK || !supported)
        return status;
    double seconds[NF_DIRECTIONS] = {0};
    nf_problem problem;
    const nf_request narrow = nf_request_narrow(request, supported, &problem);
    algo->cost(entry->state, &narrow, seconds);
    for (nf_direction direction = NF_FWD; direction <= NF_BWD; direction++)
        if (supported & direction)
            compete(s, entry, direction, (nf_choice){algo, seconds[direction - 1]});
    return NF_OK;
}

static bool is_complete(const nf_selection *s)
{
    for (nf_direction direction = NF_FWD; direction <= NF_BWD; direction++)
        if (s->direction & direction && !s->choice[direction - 1].algo)
            return false;
    return true;
}

/* Lets the algorithms of one open backend compete. It is chosen if every direction finds one. */
static nf_status try_backend(nf_selection *s, const nf_context_backend *entry, const nf_request *request,
                             const char *algo)
{
    nf_status status = NF_OK;
    for (const nf_algorithm *const *next = entry->backend->algorithms; *next && status == NF_OK; next++) {
        if (algo && strcmp(algo, (*next)->name) != 0) {
            add_reason(s, entry->backend->name, (*next)->name, s->direction, "not the algorithm asked for");
            continue;
        }
        status = try_algorithm(s, entry, *next, request);
    }
    if (is_complete(s))
        s->backend = entry;
    else
        memset(s->choice, 0, sizeof s->choice);
    return status;
}

static const char *reason_not_to_compete(const nf_context_backend *entry, const nf_plan_options *options)
{
    if (!entry->late && !entry->open)
        return entry->reason;
    if (options && options->backend)
        return "not the backend asked for";
    if (entry->backend->preferred)
        return "not among the backends named";
    return entry->backend->gpu == nf_stub_gpu ? "never chosen unless it is named"
                                              : "chosen unasked only if its device is a GPU";
}

static nf_status check_algo_name(const nf_context *context, const nf_context_backend *only, const char *algo)
{
    enum { MOST_NAMES = 64 };
    const char *names[MOST_NAMES + 1] = {NULL};
    int count = 0;
    for (int i = 0; i < context->backend_count; i++)
        for (const nf_algorithm *const *a = context->backend[i].backend->algorithms; *a && count < MOST_NAMES; a++)
            if (!only || only == &context->backend[i]) {
                if (strcmp((*a)->name, algo) == 0)
                    return NF_OK;
                names[count++] = (*a)->name;
            }
    return nf_fail(NF_ERR_ARGUMENT, "algo: '%.40s' is no algorithm%s%s%s%s%s", algo, only ? " of " : "",
                   only ? only->backend->name : "", count ? "; the nearest is '" : "",
                   count ? nf_nearest(algo, strlen(algo), names, NULL) : "", count ? "'" : "");
}

static nf_status check_options(const nf_context *context, const nf_plan_options *options,
                               const nf_context_backend **only)
{
    *only = NULL;
    if (options && options->backend) {
        const nf_status status = nf_context_use_backend(context, options->backend, "backend", only);
        if (status != NF_OK)
            return status;
    }
    return options && options->algo ? check_algo_name(context, *only, options->algo) : NF_OK;
}

static nf_status allocate_candidates(nf_selection *s, const nf_context *context)
{
    const size_t directions = s->direction == NF_BOTH ? NF_DIRECTIONS : 1;
    size_t most = 0;
    for (int i = 0; i < context->backend_count; i++) {
        const nf_algorithm *const *next = context->backend[i].backend->algorithms;
        for (most++; *next; next++)
            most += directions;
    }
    s->candidates = nf_alloc_array(context, most, sizeof *s->candidates);
    return s->candidates ? NF_OK : NF_ERR_MEMORY;
}

static nf_status fail_unsupported(const nf_selection *s)
{
    char reasons[1600];
    nf_text text;
    nf_text_init(&text, reasons, sizeof reasons);
    nf_selection_describe(s, "", "; ", &text);
    return nf_fail(NF_ERR_UNSUPPORTED, "no backend allowed here can run this problem: %s", reasons);
}

nf_status nf_select(nf_selection *selection, const nf_request *request, const nf_plan_options *options)
{
    const nf_context *context = request->context;
    const nf_context_backend *only;
    nf_selection s = {.direction = request->problem->direction};
    nf_status status = check_options(context, options, &only);
    if (status != NF_OK || (status = allocate_candidates(&s, context)) != NF_OK)
        return status;
    int order[NF_MAX_BACKENDS];
    const int competing = order_backends(context, only, order);
    for (int i = 0; i < context->backend_count; i++) {
        const nf_context_backend *entry = &context->backend[order[i]];
        const char *name = entry->backend->name;
        if (i >= competing || !entry->open) {
            add_reason(&s, name, "", s.direction, reason_not_to_compete(entry, options));
        } else if (s.backend) {
            char reason[NF_REASON_CAPACITY];
            snprintf(reason, sizeof reason, "%s is preferred", s.backend->backend->name);
            add_reason(&s, name, "", s.direction, reason);
        } else if ((status = try_backend(&s, entry, request, options ? options->algo : NULL)) != NF_OK) {
            nf_selection_destroy(&s, context);
            return status;
        }
    }
    if (!s.backend) {
        status = fail_unsupported(&s);
        nf_selection_destroy(&s, context);
        return status;
    }
    *selection = s;
    return NF_OK;
}

void nf_selection_destroy(nf_selection *selection, const nf_context *context)
{
    nf_release(context, selection->candidates);
    *selection = (nf_selection){0};
}

void nf_selection_describe_one(const nf_selection *selection, int index, nf_text *text)
{
    const nf_candidate *c = &selection->candidates[index];
    nf_text_printf(text, "%s%s%s", c->backend, *c->algo ? " " : "", c->algo);
    if (c->direction != selection->direction)
        nf_text_printf(text, " for %s", nf_direction_name(c->direction));
    nf_text_printf(text, ": %s", c->reason);
}

void nf_selection_describe(const nf_selection *selection, const char *indent, const char *separator, nf_text *text)
{
    for (int i = 0; i < selection->count; i++) {
        nf_text_printf(text, "%s%s", i ? separator : "", indent);
        nf_selection_describe_one(selection, i, text);
    }
}
