/* Backends that do what a test tells them. */
#include "fake.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/context.h"
#include "core/mem.h"
#include "core/problem_text.h"

fake_control fake;

static nf_status fake_open(const nf_context *context, void **state)
{
    if (fake.absent)
        return nf_fail(NF_ERR_UNAVAILABLE, "no such device");
    *state = nf_alloc(context, 100);
    if (!*state)
        return NF_ERR_MEMORY;
    fake.opened++;
    return NF_OK;
}

static void fake_close(const nf_context *context, void *state)
{
    nf_release(context, state);
    fake.closed++;
}

static void fake_describe(const void *state, nf_text *text)
{
    (void)state;
    nf_text_printf(text, "a device that computes nothing\n");
}

static nf_status slow_supports(const void *state, const nf_request *request)
{
    (void)state;
    if (fake.refuses_all)
        return nf_fail(NF_ERR_UNSUPPORTED, "head_dim %d is not to its taste", (int)request->problem->head_dim);
    return NF_OK;
}

static nf_status fast_supports(const void *state, const nf_request *request)
{
    if (fake.fast_refuses & request->problem->direction)
        return nf_fail(NF_ERR_UNSUPPORTED, "too tired");
    return slow_supports(state, request);
}

static void slow_cost(const void *state, const nf_request *request, double seconds[NF_DIRECTIONS])
{
    (void)state;
    for (nf_direction direction = NF_FWD; direction <= NF_BWD; direction++)
        if (request->problem->direction & direction)
            seconds[direction - 1] = 2e-3;
}

static void fast_cost(const void *state, const nf_request *request, double seconds[NF_DIRECTIONS])
{
    (void)state;
    for (nf_direction direction = NF_FWD; direction <= NF_BWD; direction++)
        if (request->problem->direction & direction)
            seconds[direction - 1] = fake.fast_lags & direction ? 4e-3 : 1e-3;
}

static nf_status fake_prepare(const void *state, const nf_request *request, void **prepared)
{
    (void)state;
    void *first = nf_alloc(request->context, 1000), *second = nf_alloc(request->context, 2000);
    nf_release(request->context, second);
    if (!first || !second) {
        nf_release(request->context, first);
        return NF_ERR_MEMORY;
    }
    *(nf_direction *)first = request->problem->direction;
    *prepared = first;
    fake.prepared++;
    return NF_OK;
}

static void fake_release(const nf_request *request, void *prepared)
{
    nf_release(request->context, prepared);
    fake.released++;
}

static size_t fake_workspace(const void *prepared)
{
    const nf_direction *direction = prepared;
    return fake.workspace_bytes + (*direction & NF_BWD ? fake.backward_bytes : 0);
}

static void fake_info(const void *prepared, nf_plan_info *info)
{
    (void)prepared;
    info->kernel = "none";
    info->computed_pairs = 1;
}

static void fake_describe_plan(const void *prepared, nf_text *text)
{
    const nf_direction *direction = prepared;
    nf_text_printf(text, "a plan to do nothing for %s\n", nf_direction_name(*direction));
}

static nf_status run(void *workspace)
{
    if (fake.on_run)
        fake.on_run();
    fake.workspace = workspace;
    return fake.run_status == NF_OK ? NF_OK : nf_fail(fake.run_status, "it fell over");
}

static nf_status fake_forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    (void)prepared;
    (void)io;
    fake.forwards++;
    return run(workspace);
}

static nf_status fake_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    (void)prepared;
    (void)io;
    fake.backwards++;
    return run(workspace);
}

#define FAKE_SLOTS                                                                                                     \
    .prepare = fake_prepare, .release = fake_release, .workspace = fake_workspace, .info = fake_info,                  \
    .describe = fake_describe_plan, .forward = fake_forward, .backward = fake_backward, .enqueue = nf_stub_enqueue,    \
    .pair = &nf_stub_pair

static const nf_algorithm slow = {.name = "slow", .supports = slow_supports, .cost = slow_cost, FAKE_SLOTS};
static const nf_algorithm fast = {.name = "fast", .supports = fast_supports, .cost = fast_cost, FAKE_SLOTS};
static const nf_algorithm *const both_algorithms[] = {&slow, &fast, NULL};
static const nf_algorithm *const slow_only[] = {&slow, NULL};
static const nf_algorithm *const none[] = {NULL};

const nf_backend fake_backend = {
    .name = "fake",
    .summary = "a fake",
    .preferred = true,
    .open = fake_open,
    .close = fake_close,
    .describe = fake_describe,
    .device = nf_stub_device,
    .gpu = nf_stub_gpu,
    .peak = nf_stub_peak,
    .merge = nf_stub_merge,
    .algorithms = both_algorithms,
};

const nf_backend fake_backend_other = {
    .name = "other",
    .summary = "another fake",
    .preferred = true,
    .open = fake_open,
    .close = fake_close,
    .describe = fake_describe,
    .device = nf_stub_device,
    .gpu = nf_stub_gpu,
    .peak = nf_stub_peak,
    .merge = nf_stub_merge,
    .algorithms = slow_only,
};

const nf_backend fake_backend_hidden = {
    .name = "hidden",
    .summary = "a modest fake",
    .open = fake_open,
    .close = fake_close,
    .describe = fake_describe,
    .device = nf_stub_device,
    .gpu = nf_stub_gpu,
    .peak = nf_stub_peak,
    .merge = nf_stub_merge,
    .algorithms = slow_only,
};

const nf_backend fake_backend_missing = {
    .name = "missing",
    .summary = "a fake that is not there",
    .preferred = true,
    .built_out = "disabled at build time",
    .open = nf_stub_open,
    .close = nf_stub_close,
    .describe = nf_stub_describe,
    .device = nf_stub_device,
    .gpu = nf_stub_gpu,
    .peak = nf_stub_peak,
    .merge = nf_stub_merge,
    .algorithms = none,
};

const nf_backend *const fake_backends[] = {&fake_backend_missing, &fake_backend, &fake_backend_other,
                                           &fake_backend_hidden, NULL};

void log_book_write(void *book, int level, const char *line)
{
    log_book *b = book;
    const size_t used = strlen(b->text);
    snprintf(b->text + used, sizeof b->text - used, "%d %s\n", level, line);
    b->lines++;
}

nf_context *fake_context(log_book *book)
{
    nf_context_options options;
    nf_context_options_init(&options);
    if (book) {
        options.log = log_book_write;
        options.log_user = book;
    }
    nf_context *context = NULL;
    ck_assert_msg(nf_context_create_with(&context, &options, fake_backends) == NF_OK, "%s", nf_last_error());
    return context;
}

void clear_environment(void)
{
    char name[128];
    for (char **entry = environ; *entry;) {
        const size_t length = strcspn(*entry, "=");
        if (strncmp(*entry, "NEARFIELD_", 10) != 0 || length >= sizeof name) {
            entry++;
            continue;
        }
        memcpy(name, *entry, length);
        name[length] = '\0';
        unsetenv(name);
        entry = environ;
    }
}
