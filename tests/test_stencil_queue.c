/* Items of the stencil handed out to threads: each once, to begin with each thread's own. */
#include "backends/cpu/stencil.h"

#include "harness.h"

enum { MOST_ITEMS = 200, MOST_THREADS = 5 };

/* Threads ask in an order drawn from seed; there may be fewer of them than the queue was made for. */
static void hand_out(uint32_t seed, int64_t items, int64_t planned, int64_t threads)
{
    cpu_stencil_queue queue = cpu_stencil_queue_of(items, planned, 4);
    cpu_stencil_turn turn[MOST_THREADS];
    bool done[MOST_THREADS] = {false}, fresh[MOST_THREADS];
    int taken[MOST_ITEMS] = {0};
    for (int64_t t = 0; t < threads; t++) {
        turn[t] = cpu_stencil_turn_of(&queue, t, threads);
        fresh[t] = true;
    }
    for (int64_t left = threads; left > 0;) {
        seed = seed * 1664525 + 1013904223;
        const int64_t t = (seed >> 16) % threads, promised = turn[t].next;
        if (done[t])
            continue;
        if (!cpu_stencil_take(&queue, &turn[t])) {
            done[t] = true;
            left--;
            continue;
        }
        ck_assert_int_lt(turn[t].item, items);
        if (fresh[t] && t * queue.chunk < items)
            ck_assert_int_eq(turn[t].item, t * queue.chunk);
        ck_assert_int_eq(turn[t].known, promised >= 0);
        ck_assert(promised < 0 || turn[t].item == promised);
        ck_assert_int_eq(taken[turn[t].item]++, 0);
        fresh[t] = false;
    }
    for (int64_t i = 0; i < items; i++)
        ck_assert_msg(taken[i] == 1, "item %d of %d, threads %d of %d", (int)i, (int)items, (int)threads, (int)planned);
}

START_TEST(every_item_once)
{
    static const int64_t items[] = {1, 2, 3, 5, 16, 17, 64, MOST_ITEMS};
    uint32_t seed = 1;
    for (size_t i = 0; i < sizeof items / sizeof *items; i++)
        for (int64_t planned = 1; planned <= MOST_THREADS; planned++)
            for (int64_t threads = 1; threads <= planned; threads++)
                for (int trial = 0; trial < 20; trial++)
                    hand_out(seed++, items[i], planned, threads);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stencil queue");
    TCase *tests = tcase_create("stencil queue");
    tcase_add_test(tests, every_item_once);
    suite_add_tcase(suite, tests);
    return nf_test_main(suite);
}
