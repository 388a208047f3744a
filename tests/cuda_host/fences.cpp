/* Which 16 bytes of shared memory a thread has written that it has not fenced since: neither products nor copies of
 * boxes may touch them. Writes are those that wrappers make. */
#include <string.h>

#include "async.h"

enum { THREAD_SHIFT = 16, FENCES = (1 << THREAD_SHIFT) - 1 };

static uint32_t fences_of(uint32_t thread)
{
    return host_async_here()->fences[thread] & FENCES;
}

void host_fence()
{
    host_async_here()->fences[host_thread.x]++;
}

void host_note_write(unsigned address)
{
    if (address < HOST_FIRST_ADDRESS + HOST_DYNAMIC_BYTES)
        host_async_here()->writes[address / HOST_CHUNK] =
            (host_thread.x + 1) << THREAD_SHIFT | fences_of(host_thread.x);
}

void host_touch(unsigned address, unsigned bytes)
{
    const uint32_t *first = host_async_here()->writes + address / HOST_CHUNK;
    for (const uint32_t *write = first; write < first + bytes / HOST_CHUNK; write++)
        if (*write && fences_of((*write >> THREAD_SHIFT) - 1) == (*write & FENCES))
            host_fault("what a thread wrote and did not fence is used by a product or overwritten by a box");
}

void host_forget_writes(unsigned address, unsigned bytes)
{
    memset(host_async_here()->writes + address / HOST_CHUNK, 0, bytes / HOST_CHUNK * sizeof(uint32_t));
}
