/* Barriers of phases, and barriers that have numbers. */
#include <string.h>

#include "async.h"

/* ---- Barriers of phases: 8 bytes of shared memory, where a mark is until somebody overwrites it -------------------
 */

static const uint64_t mark = 0x6d62617272696572;
static const long most_bytes = (1 << 20) - 1;

static unsigned char *place_of(unsigned address)
{
    return host_bytes_at(address, sizeof mark, sizeof mark);
}

static host_phased *find(unsigned address)
{
    host_async *async = host_async_here();
    for (int i = 0; i < async->phased_count; i++)
        if (async->phased[i].address == address)
            return &async->phased[i];
    return nullptr;
}

host_phased *host_find_phased(unsigned address)
{
    host_phased *b = find(address);
    const unsigned char *place = place_of(address);
    if (!b || !place || memcmp(place, &mark, sizeof mark) != 0)
        host_fault("a barrier is used before it is made, or was overwritten");
    else if (!b->announced)
        host_fault("a barrier is used before all know that it is made");
    else if (b->maker != host_thread.x && b->barriers_passed == host_barriers_passed())
        host_fault("a barrier is used by others before a barrier of the block");
    else
        return b;
    return nullptr;
}

void host_phased_init(unsigned address, int arrivals)
{
    host_async *async = host_async_here();
    unsigned char *place = place_of(address);
    if (find(address) || !place || arrivals < 1 || async->phased_count == HOST_PHASED) {
        host_fault("a barrier is made twice, of nobody, or is one too many");
        return;
    }
    memcpy(place, &mark, sizeof mark);
    host_phased *b = &async->phased[async->phased_count++];
    b->address = address;
    b->arrivals = b->awaited = arrivals;
    b->bytes = 0;
    b->phase = 0;
    b->maker = host_thread.x;
    b->barriers_passed = host_barriers_passed();
    b->announced = false;
}

void host_phased_init_done()
{
    host_async *async = host_async_here();
    for (int i = 0; i < async->phased_count; i++)
        async->phased[i].announced |= async->phased[i].maker == host_thread.x;
}

static void end_phase_if_all_came(host_phased *b)
{
    if (b->bytes > most_bytes || b->bytes < -most_bytes || (!b->awaited && b->bytes < 0))
        host_fault("a barrier gets more bytes than it expects, or expects too many");
    if (b->awaited || b->bytes)
        return;
    b->phase++;
    b->awaited = b->arrivals;
    host_wake(b);
}

void host_phased_arrive(unsigned address, int bytes)
{
    host_phased *b = host_find_phased(address);
    if (!b)
        return;
    if (!b->awaited || bytes < 0) {
        host_fault(bytes < 0 ? "a barrier is to expect less than no bytes" : "more arrive at a barrier than it awaits");
        return;
    }
    told_before(&b->order[b->phase % TURNS]);
    b->awaited--;
    b->bytes += bytes;
    end_phase_if_all_came(b);
}

void host_bytes_come(host_phased *b, unsigned bytes)
{
    b->bytes -= bytes;
    end_phase_if_all_came(b);
}

/* As on the device, a thread that looks again after two phases waits for the third. */
void host_phased_wait(unsigned address, int parity)
{
    host_phased *b = host_find_phased(address);
    if (!b)
        return;
    if (parity < 0 || parity >= TURNS) {
        host_fault("a parity is neither 0 nor 1");
        return;
    }
    while (b->phase % TURNS == static_cast<unsigned>(parity))
        host_park(b);
    told_after(&b->order[parity]);
}

/* ---- Barriers that have numbers ---------------------------------------------------------------------------------- */

static bool may_come(const host_named *b, int threads)
{
    const unsigned self = host_thread.x;
    if (threads <= 0 || threads % HOST_LANES || static_cast<unsigned>(threads) > host_block_size.x)
        host_fault("a barrier of a number of threads that is no number of warps");
    else if (b->arrived && b->threads != threads)
        host_fault("threads come to a barrier, some as so many, some as others");
    else if (b->came[self / HOST_LANES] >> self % HOST_LANES & 1)
        host_fault("a thread comes to a barrier twice, before all have once");
    else
        return true;
    return false;
}

void host_named_arrive(int barrier, int threads, bool waits)
{
    if (barrier < 1 || barrier >= HOST_NAMED) {
        host_fault("a barrier has no such number, or that of the whole block");
        return;
    }
    host_named *b = &host_async_here()->named[barrier];
    if (!may_come(b, threads))
        return;
    const unsigned self = host_thread.x;
    char *order = &b->order[b->use % TURNS];
    told_before(order);
    b->threads = threads;
    b->came[self / HOST_LANES] |= 1u << self % HOST_LANES;
    if (++b->arrived == threads) {
        memset(b->came, 0, sizeof b->came);
        b->arrived = 0;
        b->use++;
        host_wake(b);
    } else if (waits) {
        host_park(b);
    }
    if (waits)
        told_after(order);
}

/* ---- Of a block -------------------------------------------------------------------------------------------------- */

void host_begin_async(host_async *async)
{
    async->phased_count = async->boxes_count = 0;
    memset(async->named, 0, sizeof async->named);
    for (unsigned i = 0; i * HOST_WARPGROUP < host_block_size.x; i++) {
        async->warpgroups[i].count = 0;
        async->warpgroups[i].groups = 0;
        async->warpgroups[i].begun = false;
    }
}

const char *host_judge_async()
{
    const host_async *async = host_async_here();
    if (async->boxes_count)
        return "a block has ended before its boxes have landed";
    for (int i = 0; i < async->phased_count; i++)
        if (async->phased[i].bytes)
            return "a block has ended, and a barrier's bytes are not those that it expected";
    return nullptr;
}
