/* What ThreadSanitizer is told.
 *
 * With HOST_TSAN the threads of a launch are threads to ThreadSanitizer, too, ordered by barriers, meetings of warps
 * and the launch alone: it sees races within a round, and between blocks, in any order of threads. What stands in for
 * the device is itself compiled without it, and tells it what memory copies and products touch. */
#ifndef NF_TESTS_CUDA_TOLD_H
#define NF_TESTS_CUDA_TOLD_H

#include <stddef.h>

#ifdef HOST_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_read_range(void *place, unsigned long size);
extern "C" void __tsan_write_range(void *place, unsigned long size);
typedef void *told_thread;
static inline told_thread told_begin()
{
    return __tsan_create_fiber(0);
}
static inline told_thread told_current()
{
    return __tsan_get_current_fiber();
}
static inline void told_switch(told_thread to)
{
    __tsan_switch_to_fiber(to, __tsan_switch_to_fiber_no_sync);
}
static inline void told_end(told_thread thread)
{
    __tsan_destroy_fiber(thread);
}
/* What comes before `before` of an order is seen by what comes after `after`. */
static inline void told_before(char *order)
{
    __tsan_release(order);
}
static inline void told_after(char *order)
{
    __tsan_acquire(order);
}
static inline void told_read(void *place, size_t size)
{
    __tsan_read_range(place, size);
}
static inline void told_written(void *place, size_t size)
{
    __tsan_write_range(place, size);
}
static const bool told = true;
#else
struct told_thread {
};
static inline told_thread told_begin()
{
    return {};
}
static inline told_thread told_current()
{
    return {};
}
static inline void told_switch(told_thread)
{
}
static inline void told_end(told_thread)
{
}
static inline void told_before(char *)
{
}
static inline void told_after(char *)
{
}
static inline void told_read(void *, size_t)
{
}
static inline void told_written(void *, size_t)
{
}
static const bool told = false;
#endif

/* Orders take turns: who comes late out of one must not see what others have done since. */
enum { TURNS = 2 };

#endif
