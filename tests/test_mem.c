/* Allocations: alignment, counters, refusals, callbacks. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/context.h"
#include "core/mem.h"
#include "harness.h"

/* An allocator that knows what it gave out. */
typedef struct ledger {
    size_t bytes, calls, shift;
} ledger;

static void *ledger_allocate(void *user, size_t bytes, size_t alignment)
{
    ledger *l = user;
    l->calls++;
    l->bytes += bytes;
    return (char *)aligned_alloc(alignment, bytes + alignment) + l->shift;
}

static void ledger_release(void *user, void *memory, size_t bytes)
{
    ledger *l = user;
    l->bytes -= bytes;
    free((char *)memory - l->shift);
}

static nf_context_options ledger_options(ledger *l)
{
    nf_context_options options;
    nf_context_options_init(&options);
    options.allocate = ledger_allocate;
    options.release = ledger_release;
    options.memory_user = l;
    return options;
}

START_TEST(blocks_are_aligned)
{
    for (size_t bytes = 0; bytes < 300; bytes += 7) {
        unsigned char *block = nf_alloc(NULL, bytes);
        ck_assert_ptr_nonnull(block);
        ck_assert_uint_eq((uintptr_t)block % NF_ALIGNMENT, 0);
        memset(block, 0xff, bytes);
        nf_release(NULL, block);
    }
    nf_release(NULL, NULL);
}
END_TEST

START_TEST(arrays_are_zero)
{
    unsigned char *array = nf_alloc_array(NULL, 100, 3);
    for (int i = 0; i < 300; i++)
        ck_assert_int_eq(array[i], 0);
    nf_release(NULL, array);
}
END_TEST

START_TEST(overflow_is_refused)
{
    ck_assert_ptr_null(nf_alloc(NULL, SIZE_MAX));
    ck_assert_str_eq(nf_last_error(), "memory: 18446744073709551615 bytes are more than an address space holds");
    ck_assert_ptr_null(nf_alloc(NULL, PTRDIFF_MAX));
    ck_assert_ptr_null(nf_alloc_array(NULL, SIZE_MAX / 8 + 1, 8));
    ck_assert_str_eq(nf_last_error(),
                     "memory: 2305843009213693952 items of 8 bytes are more than an address space holds");
}
END_TEST

START_TEST(counters_follow)
{
    nf_context *context;
    ck_assert_int_eq(nf_context_create(&context, NULL), NF_OK);
    size_t start, now, peak;
    nf_context_memory(context, &start, NULL);
    void *a = nf_alloc(context, 1000), *b = nf_alloc(context, 5000);
    nf_context_memory(context, &now, &peak);
    ck_assert_uint_ge(now - start, 6000);
    ck_assert_uint_le(now - start, 6000 + 4 * NF_ALIGNMENT);
    ck_assert_uint_ge(peak, now);
    nf_release(context, b);
    nf_release(context, a);
    const size_t before = peak;
    nf_context_memory(context, &now, &peak);
    ck_assert_uint_eq(now, start);
    ck_assert_uint_eq(peak, before);
    nf_context_destroy(context);
    nf_context_memory(NULL, &now, &peak);
    ck_assert_uint_eq(now + peak, 0);
}
END_TEST

START_TEST(callbacks_see_every_byte)
{
    ledger l = {0};
    const nf_context_options options = ledger_options(&l);
    nf_context *context;
    ck_assert_int_eq(nf_context_create(&context, &options), NF_OK);
    ck_assert_uint_gt(l.calls, 0);
    size_t now;
    nf_context_memory(context, &now, NULL);
    ck_assert_uint_eq(now, l.bytes);
    void *block = nf_alloc(context, 12345);
    nf_context_memory(context, &now, NULL);
    ck_assert_uint_eq(now, l.bytes);
    nf_release(context, block);
    nf_context_destroy(context);
    ck_assert_uint_eq(l.bytes, 0);
}
END_TEST

START_TEST(misaligned_callbacks_are_refused)
{
    ledger l = {.shift = 8};
    const nf_context_options options = ledger_options(&l);
    nf_context *context = NULL;
    ck_assert_int_eq(nf_context_create(&context, &options), NF_ERR_MEMORY);
    ck_assert_str_eq(nf_last_error(), "memory: the allocate callback returned a block that is not 64-byte aligned");
    ck_assert_ptr_null(context);
    ck_assert_uint_eq(l.bytes, 0);
}
END_TEST

START_TEST(child_pools_count_twice)
{
    nf_pool parent = {0}, child;
    nf_pool_init_child(&child, &parent);
    void *a = nf_pool_alloc(&parent, 100), *b = nf_pool_alloc(&child, 100);
    ck_assert_uint_eq(nf_pool_bytes(&parent), 2 * nf_pool_bytes(&child));
    nf_pool_release(&child, b);
    nf_pool_release(&parent, a);
    ck_assert_uint_eq(nf_pool_bytes(&parent) + nf_pool_bytes(&child), 0);
}
END_TEST

static void *churn(void *user)
{
    for (size_t i = 0; i < 2000; i++)
        nf_release(user, nf_alloc(user, i));
    return NULL;
}

START_TEST(threads_share_the_counters)
{
    nf_context *context;
    ck_assert_int_eq(nf_context_create(&context, NULL), NF_OK);
    size_t start, end;
    nf_context_memory(context, &start, NULL);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, churn, context), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    nf_context_memory(context, &end, NULL);
    ck_assert_uint_eq(start, end);
    nf_context_destroy(context);
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("mem");
    tcase_add_test(cases, blocks_are_aligned);
    tcase_add_test(cases, arrays_are_zero);
    tcase_add_test(cases, overflow_is_refused);
    tcase_add_test(cases, counters_follow);
    tcase_add_test(cases, callbacks_see_every_byte);
    tcase_add_test(cases, misaligned_callbacks_are_refused);
    tcase_add_test(cases, child_pools_count_twice);
    tcase_add_test(cases, threads_share_the_counters);
    Suite *suite = suite_create("mem");
    suite_add_tcase(suite, cases);
    return nf_test_main(suite);
}
