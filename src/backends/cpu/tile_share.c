/* Items of streams, handed out by counters. */
#include "backends/cpu/tile_share.h"

size_t cpu_share_bytes(int64_t streams)
{
    return (size_t)(1 + streams) * sizeof(_Atomic int64_t);
}

cpu_share cpu_share_create(void *memory, int64_t streams, int64_t items)
{
    _Atomic int64_t *counters = memory;
    for (int64_t i = 0; i <= streams; i++)
        atomic_init(&counters[i], 0);
    return (cpu_share){.begun = counters, .taken = counters + 1, .streams = streams, .items = items};
}

static int64_t read_counter(const _Atomic int64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static int64_t count_up(_Atomic int64_t *counter)
{
    return atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* The stream with the most items left; -1 if none has any. */
static int64_t find_longest(const cpu_share *share)
{
    int64_t longest = -1, least = share->items;
    for (int64_t s = 0; s < share->streams; s++) {
        const int64_t taken = read_counter(&share->taken[s]);
        if (taken < least) {
            longest = s;
            least = taken;
        }
    }
    return longest;
}

/* A stream for a thread to go on with: one that is untouched, else the one with the most items left; -1 if none has
 * any. */
static int64_t find_stream(const cpu_share *share)
{
    const int64_t fresh = read_counter(share->begun) < share->streams ? count_up(share->begun) : share->streams;
    return fresh < share->streams ? fresh : find_longest(share);
}

int64_t cpu_share_take(const cpu_share *share, int64_t *stream)
{
    if (*stream < 0)
        *stream = find_stream(share);
    for (; *stream >= 0; *stream = find_stream(share)) {
        const int64_t item = count_up(&share->taken[*stream]);
        if (item < share->items)
            return *stream * share->items + item;
    }
    return -1;
}

int64_t cpu_share_guess(const cpu_share *share, int64_t stream)
{
    const int64_t taken = read_counter(&share->taken[stream]), begun = read_counter(share->begun);
    if (taken < share->items)
        return stream * share->items + taken;
    return begun < share->streams ? begun * share->items : -1;
}
