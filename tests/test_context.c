/* Contexts: which backends there are, in which order, and why one is not available. */
#include <stdlib.h>
#include <string.h>

#include "core/context.h"
#include "core/select.h"
#include "fake.h"
#include "harness.h"

static void setup(void)
{
    clear_environment();
    fake = (fake_control){.workspace_bytes = 64};
}

START_TEST(real_backends_are_listed)
{
    ck_assert_str_eq(nf_backend_name(0), "cuda");
    ck_assert_str_eq(nf_backend_name(1), "opencl");
    ck_assert_str_eq(nf_backend_name(2), "cpu");
    ck_assert_str_eq(nf_backend_name(3), "reference");
    ck_assert_ptr_null(nf_backend_name(4));
    ck_assert_ptr_null(nf_backend_name(1000000));
    ck_assert_ptr_null(nf_backend_name(-1));
}
END_TEST

START_TEST(real_context)
{
    nf_context *context;
    ck_assert_msg(nf_context_create(&context, NULL) == NF_OK, "%s", nf_last_error());
    ck_assert_int_eq(nf_backend_available(context, "cpu"), NF_OK);
    ck_assert_int_eq(nf_backend_available(context, "reference"), NF_OK);
    ck_assert_int_eq(nf_backend_available(context, "cuda"), NF_ERR_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(nf_last_error(), "name: cuda is unavailable: "));
    ck_assert_int_eq(nf_backend_available(context, "opencll"), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), "name: 'opencll' is no backend; the nearest is 'opencl'");
    ck_assert_int_ge(nf_context_threads(context), 1);
    ck_assert_ptr_null(nf_context_isa(context));
    ck_assert_int_ge(nf_context_topology(context)->cores, 1);
    nf_context_destroy(context);
    nf_context_destroy(NULL);
}
END_TEST

START_TEST(describe_names_every_backend)
{
    fake.absent = true;
    nf_context *context = fake_context(NULL);
    char text[4096];
    size_t length = 0;
    ck_assert_int_eq(nf_context_describe(context, text, sizeof text, &length), NF_OK);
    ck_assert_uint_eq(length, strlen(text));
    ck_assert_ptr_nonnull(strstr(text, "missing: a fake that is not there; unavailable: disabled at build time\n"));
    ck_assert_ptr_nonnull(strstr(text, "fake: a fake; unavailable: no such device\n"));
    ck_assert_ptr_nonnull(strstr(text, "machine: "));
    ck_assert_ptr_nonnull(strstr(text, "threads: "));
    nf_context_destroy(context);
    ck_assert_int_eq(fake.opened, 0);
    fake.absent = false;
    context = fake_context(NULL);
    ck_assert_int_eq(nf_context_describe(context, text, sizeof text, NULL), NF_OK);
    ck_assert_ptr_nonnull(strstr(text, "fake: a fake\na device that computes nothing\n"));
    nf_context_destroy(context);
    ck_assert_int_eq(fake.opened, 3);
    ck_assert_int_eq(fake.closed, 3);
}
END_TEST

/* What may be chosen unasked, best first, for each list. */
static const struct {
    const char *list;
    const char *preferred[4];
} preferences[] = {
    {"", {"missing", "fake", "other"}},
    {"other", {"other"}},
    {"hidden", {"hidden"}},
    {"other,fake", {"other", "fake"}},
    {"missing,hidden,fake", {"missing", "hidden", "fake"}},
    {"-fake", {"missing", "other"}},
    {"-fake,-missing", {"other"}},
    {"-hidden", {"missing", "fake", "other"}},
    {"hidden,-fake", {"hidden"}},
    {"-fake,-missing,-other", {NULL}},
};

START_TEST(preference_lists)
{
    setenv("NEARFIELD_BACKEND", preferences[_i].list, 1);
    nf_context *context = fake_context(NULL);
    int count = 0;
    for (; count < 4 && preferences[_i].preferred[count]; count++) {
        ck_assert_int_lt(count, context->preferred_count);
        ck_assert_str_eq(context->backend[context->preferred[count]].backend->name, preferences[_i].preferred[count]);
    }
    ck_assert_int_eq(context->preferred_count, count);
    nf_context_destroy(context);
}
END_TEST

START_TEST(excluded_backends_are_not_opened)
{
    setenv("NEARFIELD_BACKEND", "-fake,-other", 1);
    nf_context *context = fake_context(NULL);
    ck_assert_int_eq(fake.opened, 0);
    ck_assert_int_eq(nf_backend_available(context, "fake"), NF_ERR_UNAVAILABLE);
    ck_assert_str_eq(nf_last_error(), "name: fake is unavailable: excluded by NEARFIELD_BACKEND");
    nf_context_destroy(context);
}
END_TEST

START_TEST(an_unpreferred_backend_opens_late_and_once)
{
    nf_context *context = fake_context(NULL);
    ck_assert_int_eq(fake.opened, 2);
    ck_assert_int_eq(nf_backend_available(context, "hidden"), NF_OK);
    ck_assert_str_eq(nf_device_name(context, "hidden", 0), "host");
    ck_assert_int_eq(fake.opened, 3);
    nf_context_destroy(context);
    ck_assert_int_eq(fake.closed, 3);
    setenv("NEARFIELD_BACKEND", "hidden", 1);
    context = fake_context(NULL);
    ck_assert_int_eq(fake.opened, 4);
    nf_context_destroy(context);
}
END_TEST

START_TEST(a_late_opening_fails_like_an_early_one)
{
    nf_context *context = fake_context(NULL);
    fake.absent = true;
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(nf_backend_available(context, "hidden"), NF_ERR_UNAVAILABLE);
        ck_assert_str_eq(nf_last_error(), "name: hidden is unavailable: no such device");
        fake.absent = false;
    }
    nf_context_destroy(context);
    ck_assert_int_eq(fake.opened, fake.closed);
}
END_TEST

static bool has_gpu;

static bool ask_for_gpu(const void *state)
{
    (void)state;
    return has_gpu;
}

/* On a machine that shows a GPU, a backend that could use it is opened, and stays if that is what it found. */
START_TEST(a_gpu_is_preferred)
{
    nf_backend graphics = fake_backend_hidden;
    graphics.gpu = ask_for_gpu;
    const nf_backend *const backends[] = {&graphics, &fake_backend, NULL};
    nf_context *context;
    bool excluded[NF_MAX_BACKENDS];
    ck_assert_int_eq(nf_context_create_with(&context, NULL, backends), NF_OK);
    for (int machine = 0; machine < 2; machine++) {
        context->topology.gpu = machine;
        ck_assert_int_eq(nf_preference_parse(context, NULL, "", excluded), NF_OK);
        ck_assert(nf_preference_holds(context, 0) == (bool)machine);
        ck_assert_int_eq(nf_preference_parse(context, "-hidden", "", excluded), NF_OK);
        ck_assert(!nf_preference_holds(context, 0));
    }
    ck_assert_int_eq(nf_backend_available(context, "hidden"), NF_OK);
    for (int found = 0; found < 2; found++) {
        has_gpu = found;
        ck_assert_int_eq(nf_preference_parse(context, NULL, "", excluded), NF_OK);
        nf_preference_settle(context);
        ck_assert(nf_preference_holds(context, 0) == has_gpu);
        ck_assert(nf_preference_holds(context, 1));
        ck_assert_int_eq(nf_preference_parse(context, "hidden", "", excluded), NF_OK);
        nf_preference_settle(context);
        ck_assert(nf_preference_holds(context, 0));
    }
    nf_context_destroy(context);
}
END_TEST

START_TEST(device_names)
{
    nf_context *context = fake_context(NULL);
    ck_assert_str_eq(nf_device_name(context, "fake", 0), "host");
    ck_assert_ptr_null(nf_device_name(context, "fake", 1));
    ck_assert_ptr_null(nf_device_name(context, "fake", -1));
    ck_assert_ptr_null(nf_device_name(context, "missing", 0));
    ck_assert_ptr_null(nf_device_name(context, NULL, 0));
    ck_assert_ptr_null(nf_context_device(context));
    nf_context_destroy(context);
}
END_TEST

START_TEST(a_name_alone_must_be_available)
{
    nf_context *context = NULL;
    setenv("NEARFIELD_BACKEND", "missing", 1);
    ck_assert_int_eq(nf_context_create_with(&context, NULL, fake_backends), NF_ERR_UNAVAILABLE);
    ck_assert_str_eq(nf_last_error(), "NEARFIELD_BACKEND: missing is unavailable: disabled at build time");
    ck_assert_ptr_null(context);
    ck_assert_int_eq(fake.opened, fake.closed);
    setenv("NEARFIELD_BACKEND", "missing,fake", 1);
    ck_assert_int_eq(nf_context_create_with(&context, NULL, fake_backends), NF_OK);
    nf_context_destroy(context);
    nf_context_options options;
    nf_context_options_init(&options);
    options.backend = "fake";
    fake.absent = true;
    context = NULL;
    ck_assert_int_eq(nf_context_create_with(&context, &options, fake_backends), NF_ERR_UNAVAILABLE);
    ck_assert_str_eq(nf_last_error(), "the option backend: fake is unavailable: no such device");
    ck_assert_ptr_null(context);
}
END_TEST

START_TEST(real_names_forced)
{
    nf_context *context = NULL;
    setenv("NEARFIELD_BACKEND", "cuda", 1);
    ck_assert_int_eq(nf_context_create(&context, NULL), NF_ERR_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(nf_last_error(), "NEARFIELD_BACKEND: cuda is unavailable: "));
    setenv("NEARFIELD_BACKEND", "reference", 1);
    ck_assert_int_eq(nf_context_create(&context, NULL), NF_OK);
    nf_context_destroy(context);
}
END_TEST

START_TEST(defaults_of_threads)
{
    nf_context *context = fake_context(NULL);
    nf_topology topology;
    nf_topology_detect(&topology);
    ck_assert_int_eq(nf_context_threads(context), nf_topology_default_threads(&topology));
    nf_context_destroy(context);
}
END_TEST

/* A context fails cleanly whichever allocation fails. */
typedef struct miser {
    int countdown, outstanding;
} miser;

static void *miser_allocate(void *user, size_t bytes, size_t alignment)
{
    miser *m = user;
    if (m->countdown-- == 0)
        return NULL;
    m->outstanding++;
    return aligned_alloc(alignment, bytes);
}

static void miser_release(void *user, void *memory, size_t bytes)
{
    (void)bytes;
    miser *m = user;
    m->outstanding--;
    free(memory);
}

START_TEST(allocation_failures_are_clean)
{
    const nf_backend *const *const tables[] = {fake_backends, nf_backends};
    for (int t = 0; t < 2; t++) {
        nf_status status = NF_ERR_MEMORY;
        for (int n = 0; status != NF_OK; n++) {
            ck_assert_int_lt(n, 100);
            miser m = {.countdown = n};
            nf_context_options options;
            nf_context_options_init(&options);
            options.allocate = miser_allocate;
            options.release = miser_release;
            options.memory_user = &m;
            nf_context *context = NULL;
            status = nf_context_create_with(&context, &options, tables[t]);
            if (status != NF_OK) {
                ck_assert_int_eq(status, NF_ERR_MEMORY);
                ck_assert_ptr_null(context);
            }
            nf_context_destroy(context);
            ck_assert_int_eq(m.outstanding, 0);
        }
    }
    ck_assert_int_eq(fake.opened, fake.closed);
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("context");
    tcase_add_checked_fixture(cases, setup, clear_environment);
    tcase_add_test(cases, real_backends_are_listed);
    tcase_add_test(cases, real_context);
    tcase_add_test(cases, describe_names_every_backend);
    tcase_add_loop_test(cases, preference_lists, 0, sizeof preferences / sizeof preferences[0]);
    tcase_add_test(cases, excluded_backends_are_not_opened);
    tcase_add_test(cases, an_unpreferred_backend_opens_late_and_once);
    tcase_add_test(cases, a_late_opening_fails_like_an_early_one);
    tcase_add_test(cases, a_gpu_is_preferred);
    tcase_add_test(cases, device_names);
    tcase_add_test(cases, a_name_alone_must_be_available);
    tcase_add_test(cases, real_names_forced);
    tcase_add_test(cases, defaults_of_threads);
    tcase_add_test(cases, allocation_failures_are_clean);
    Suite *suite = suite_create("context");
    suite_add_tcase(suite, cases);
    return nf_test_main(suite);
}
