/* Items handed out to threads: each once, those of a stream in order, whole streams first. */
#include "backends/cpu/tile_share.h"

#include "harness.h"

enum { STREAMS = 5, ITEMS = 7, THREADS = 3 };

static _Atomic int64_t counters[1 + STREAMS];

/* Threads ask in an order drawn from seed; every item must come once, after those before it in its stream. */
static void hand_out(uint32_t seed)
{
    ck_assert_uint_le(cpu_share_bytes(STREAMS), sizeof counters);
    const cpu_share share = cpu_share_create(counters, STREAMS, ITEMS);
    int64_t stream[THREADS] = {-1, -1, -1}, next[STREAMS] = {0};
    for (int taken = 0; taken < STREAMS * ITEMS; taken++) {
        seed = seed * 1664525 + 1013904223;
        const int64_t item = cpu_share_take(&share, &stream[(seed >> 16) % THREADS]);
        ck_assert_int_ge(item, 0);
        ck_assert_int_lt(item, STREAMS * ITEMS);
        ck_assert_int_eq(item % ITEMS, next[item / ITEMS]++);
    }
    for (int t = 0; t < THREADS; t++)
        ck_assert_int_eq(cpu_share_take(&share, &stream[t]), -1);
}

START_TEST(every_item_once_and_in_order)
{
    for (uint32_t seed = 0; seed < 100; seed++)
        hand_out(seed);
}
END_TEST

START_TEST(whole_streams_then_help)
{
    const cpu_share share = cpu_share_create(counters, 3, 2);
    int64_t a = -1, b = -1;
    ck_assert_int_eq(cpu_share_take(&share, &a), 0);
    ck_assert_int_eq(cpu_share_guess(&share, a), 1);
    ck_assert_int_eq(cpu_share_take(&share, &b), 2);
    ck_assert_int_eq(cpu_share_take(&share, &a), 1);
    ck_assert_int_eq(cpu_share_guess(&share, a), 4);
    ck_assert_int_eq(cpu_share_take(&share, &a), 4);
    ck_assert_int_eq(cpu_share_take(&share, &b), 3);
    ck_assert_int_eq(cpu_share_guess(&share, b), -1);
    ck_assert_int_eq(cpu_share_take(&share, &b), 5); /* of the stream that a has begun */
    ck_assert_int_eq(cpu_share_take(&share, &a), -1);
}
END_TEST

START_TEST(streams_without_items)
{
    const cpu_share share = cpu_share_create(counters, STREAMS, 0);
    int64_t stream = -1;
    ck_assert_int_eq(cpu_share_take(&share, &stream), -1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tile share");
    TCase *tests = tcase_create("tile share");
    tcase_add_test(tests, every_item_once_and_in_order);
    tcase_add_test(tests, whole_streams_then_help);
    tcase_add_test(tests, streams_without_items);
    suite_add_tcase(suite, tests);
    return nf_test_main(suite);
}
