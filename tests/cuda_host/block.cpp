/* Fibers, and the rounds of a block.
 *
 * With HOST_TSAN the threads of a launch are threads to ThreadSanitizer, too, ordered by barriers, meetings of warps
 * and the launch alone: it sees races within a round, and between blocks, in any order of threads. This file is itself
 * compiled without it. */
#include "block.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <vector>
#if defined(__x86_64__) && !defined(HOST_UCONTEXT)
#define HOST_ASSEMBLY
#else
#include <ucontext.h>
#endif

thread_local host_index host_thread, host_block, host_grid, host_block_size;

/* ---- What ThreadSanitizer is told -------------------------------------------------------------------------------- */

#ifdef HOST_TSAN
#include <sanitizer/tsan_interface.h>
typedef void *told_thread;
static told_thread told_begin()
{
    return __tsan_create_fiber(0);
}
static told_thread told_current()
{
    return __tsan_get_current_fiber();
}
static void told_switch(told_thread to)
{
    __tsan_switch_to_fiber(to, __tsan_switch_to_fiber_no_sync);
}
static void told_end(told_thread thread)
{
    __tsan_destroy_fiber(thread);
}
/* What comes before `before` of an order is seen by what comes after `after`. */
static void told_before(char *order)
{
    __tsan_release(order);
}
static void told_after(char *order)
{
    __tsan_acquire(order);
}
static const bool told = true;
#else
struct told_thread {
};
static told_thread told_begin()
{
    return {};
}
static told_thread told_current()
{
    return {};
}
static void told_switch(told_thread)
{
}
static void told_end(told_thread)
{
}
static void told_before(char *)
{
}
static void told_after(char *)
{
}
static const bool told = false;
#endif

/* ---- Fibers ------------------------------------------------------------------------------------------------------ */

static const size_t stack_bytes = 128 << 10;

#ifdef HOST_ASSEMBLY
struct context {
    void *stack_pointer;
    told_thread thread;
};

/* Saves what a call must preserve on the old stack, and finds it on the new one. swapcontext asks the kernel of the
 * system each time, which takes 20 times as long. */
extern "C" void host_switch_stack(void **from, void *to);
__asm__(".text\n"
        ".local host_switch_stack\n"
        "host_switch_stack:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp, (%rdi)\n"
        "movq %rsi, %rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\n"
        "ret\n");

static void switch_context(context *from, const context *to)
{
    told_switch(to->thread);
    host_switch_stack(&from->stack_pointer, to->stack_pointer);
}

static void make_context(context *made, char *stack, void (*begin)())
{
    enum { SAVED = 6 };
    void **top = reinterpret_cast<void **>(stack + stack_bytes) - 2;
    *--top = nullptr; /* begin does not return; the stack is aligned as after a call */
    *--top = reinterpret_cast<void *>(begin);
    for (int i = 0; i < SAVED; i++)
        *--top = nullptr;
    made->stack_pointer = top;
}
#else
struct context {
    ucontext_t place;
    told_thread thread;
};

static void switch_context(context *from, const context *to)
{
    told_switch(to->thread);
    swapcontext(&from->place, &to->place);
}

static void make_context(context *made, char *stack, void (*begin)())
{
    getcontext(&made->place);
    made->place.uc_stack.ss_sp = stack;
    made->place.uc_stack.ss_size = stack_bytes;
    made->place.uc_link = nullptr;
    makecontext(&made->place, begin, 0);
}
#endif

enum state { READY, WAITING, MEETING, ENDED }; /* to run, at a barrier, at a meeting of its warp */

/* On its way to shared memory. */
struct copy {
    unsigned to;
    const void *from;
    int bytes, size;
    long group;
};

struct fiber {
    context at;
    state is;
    int line;           /* of the barrier */
    size_t shared_used; /* of what it has asked for */
    std::vector<copy> copies;
    long groups; /* committed */
    unsigned barriers, meetings;
};

/* Orders take turns: who comes late out of one must not see what others have done since. */
enum { TURNS = 2 };

/* Who has come to a meeting. */
struct warp {
    char order[TURNS];
    host_collective *all;
    void *arguments[HOST_LANES];
    int arrived;
};

/* ---- A block ----------------------------------------------------------------------------------------------------- */

enum {
    MOST_THREADS = 1024,
    SHARED_BYTES = 48 << 10,
    DYNAMIC_BYTES = 227 << 10,
    SHARED_ALIGNMENT = 128,
    SHARED_GUARD = 4 << 10,
    POISON = 0xff
};

struct block {
    host_call *call;
    void **arguments;
    const host_rules *rules;
    unsigned threads, current;
    unsigned order[MOST_THREADS];
    fiber fibers[MOST_THREADS];
    warp warps[MOST_THREADS / HOST_LANES];
    context scheduler;
    size_t shared_used; /* by any thread */
    uint64_t seed;
    char *stacks;
    const char *fault; /* the first */
    char begun, barrier[TURNS];
    int gathering, gathered; /* of a barrier that asks, in this round and in the last */
    alignas(SHARED_ALIGNMENT) unsigned char shared[SHARED_BYTES + SHARED_GUARD];
    alignas(SHARED_ALIGNMENT) unsigned char dynamic[DYNAMIC_BYTES + SHARED_GUARD];
};

static thread_local block *running;

/* Between the threads of a launch and all before it, and all after it. */
static thread_local char launch_begun, launch_ended;

void host_fault(const char *what)
{
    if (!running->fault)
        running->fault = what;
}

static void run_thread()
{
    told_after(&launch_begun);
    told_after(&running->begun);
    running->call(running->arguments);
    told_before(&launch_ended);
    fiber *self = &running->fibers[running->current];
    if (!self->copies.empty())
        host_fault("a thread has ended before its copies have landed");
    std::vector<copy>().swap(self->copies); /* what the thread has allocated it frees itself */
    self->is = ENDED;
    switch_context(&self->at, &running->scheduler);
    abort();
}

void host_barrier(int line)
{
    fiber *self = &running->fibers[running->current];
    self->is = WAITING;
    self->line = line;
    char *order = &running->barrier[self->barriers++ % TURNS];
    told_before(order);
    switch_context(&self->at, &running->scheduler);
    told_after(order);
}

int host_barrier_or(int line, int holds)
{
    running->gathering |= holds != 0;
    host_barrier(line);
    return running->gathered;
}

/* ---- Warps ------------------------------------------------------------------------------------------------------- */

void host_meet(host_collective *all, void *argument)
{
    warp *w = &running->warps[running->current / HOST_LANES];
    fiber *self = &running->fibers[running->current], *lanes = self - running->current % HOST_LANES;
    if (w->arrived && w->all != all)
        host_fault("lanes of a warp meet for different things");
    w->all = all;
    w->arguments[running->current % HOST_LANES] = argument;
    char *order = &w->order[self->meetings++ % TURNS];
    told_before(order);
    if (++w->arrived < HOST_LANES) {
        self->is = MEETING;
        switch_context(&self->at, &running->scheduler);
        told_after(order);
        return;
    }
    told_after(order);
    all(w->arguments);
    told_before(order);
    w->arrived = 0;
    for (int i = 0; i < HOST_LANES; i++)
        lanes[i].is = READY;
}

/* ---- Shared memory ----------------------------------------------------------------------------------------------- */

void *host_shared(size_t bytes)
{
    fiber *self = &running->fibers[running->current];
    unsigned char *memory = running->shared + self->shared_used;
    self->shared_used += (bytes + SHARED_ALIGNMENT - 1) / SHARED_ALIGNMENT * SHARED_ALIGNMENT;
    if (self->shared_used > running->shared_used)
        running->shared_used = self->shared_used;
    if (self->shared_used > SHARED_BYTES)
        abort();
    return memory;
}

unsigned char *host_dynamic_shared()
{
    return running->dynamic;
}

unsigned host_address_of(const void *shared)
{
    const size_t address = static_cast<size_t>(static_cast<const unsigned char *>(shared) - running->dynamic);
    if (address > running->rules->shared)
        host_fault("an address is not of the launch's shared memory");
    return static_cast<unsigned>(address);
}

static void *bytes_at(unsigned address, unsigned size)
{
    if (address % size == 0 && address + size <= running->rules->shared)
        return running->dynamic + address;
    host_fault("a place in shared memory is not aligned, or not there");
    return running->dynamic;
}

void *host_chunk_at(unsigned address)
{
    return bytes_at(address, HOST_CHUNK);
}

static void land(const copy *c)
{
    unsigned char chunk[HOST_CHUNK] = {};
    memcpy(chunk, c->from, static_cast<size_t>(c->bytes));
    memcpy(bytes_at(c->to, static_cast<unsigned>(c->size)), chunk, static_cast<size_t>(c->size));
}

void host_copy(unsigned to, const void *from, int bytes, int size)
{
    fiber *self = &running->fibers[running->current];
    if (bytes < 0 || bytes > size || reinterpret_cast<uintptr_t>(from) % static_cast<uintptr_t>(size) != 0) {
        host_fault("a copy of too many bytes, or from where they are not aligned");
        return;
    }
    const copy c = {to, from, bytes, size, self->groups};
    if (running->rules->copies_early)
        land(&c);
    else
        self->copies.push_back(c);
}

void host_copy_commit()
{
    running->fibers[running->current].groups++;
}

void host_copy_wait(int pending)
{
    fiber *self = &running->fibers[running->current];
    size_t landed = 0;
    while (landed < self->copies.size() && self->copies[landed].group < self->groups - pending)
        land(&self->copies[landed++]);
    self->copies.erase(self->copies.begin(), self->copies.begin() + static_cast<long>(landed));
}

static bool is_poisoned(const unsigned char *begin, const unsigned char *end)
{
    while (begin < end && *begin == POISON)
        begin++;
    return begin == end;
}

/* What lies past the memory that was asked for is as it was. */
static const char *judge_shared(const block *b)
{
    const unsigned char *dynamic_end = b->dynamic + b->rules->shared;
    const bool kept = is_poisoned(b->shared + b->shared_used, b->shared + sizeof b->shared) &&
                      is_poisoned(dynamic_end, dynamic_end + SHARED_GUARD);
    return kept ? nullptr : "something was written past shared memory";
}

/* ---- Rounds ------------------------------------------------------------------------------------------------------ */

static void shuffle(block *b)
{
    for (unsigned i = b->threads; i > 1; i--) {
        b->seed = b->seed * 6364136223846793005u + 1442695040888963407u;
        const unsigned j = static_cast<unsigned>((b->seed >> 33) % i), kept = b->order[i - 1];
        b->order[i - 1] = b->order[j];
        b->order[j] = kept;
    }
}

/* The thread that came last is first, the others keep their order. */
static void rotate(block *b)
{
    const unsigned last = b->order[b->threads - 1];
    memmove(b->order + 1, b->order, (b->threads - 1) * sizeof *b->order);
    b->order[0] = last;
}

static void begin_order(block *b, host_order order)
{
    const bool reverse = order == HOST_REVERSE || order == HOST_GREEDY_REVERSE;
    for (unsigned i = 0; i < b->threads; i++)
        b->order[i] = reverse ? b->threads - 1 - i : i;
}

static void next_order(block *b, host_order order)
{
    if (order == HOST_RANDOM)
        shuffle(b);
    if (order == HOST_GREEDY || order == HOST_GREEDY_REVERSE)
        rotate(b);
}

static void resume(block *b, unsigned thread)
{
    b->current = thread;
    host_thread.x = thread;
    switch_context(&b->scheduler, &b->fibers[thread].at);
}

/* Lets a warp go from meeting to meeting, until none of it can go on. */
static void run_warp(block *b, unsigned index)
{
    for (bool moved = true; moved;) {
        moved = false;
        for (unsigned i = 0; i < b->threads; i++)
            if (b->order[i] / HOST_LANES == index && b->fibers[b->order[i]].is == READY) {
                resume(b, b->order[i]);
                moved = true;
            }
    }
}

static void run_round(block *b)
{
    for (unsigned i = 0; i < b->threads; i++)
        b->fibers[i].is = READY;
    for (unsigned i = 0; i < b->threads; i++) {
        const unsigned thread = b->order[i];
        if (b->fibers[thread].is == READY)
            resume(b, thread);
        if (b->fibers[thread].is == MEETING)
            run_warp(b, thread / HOST_LANES);
    }
    b->gathered = b->gathering;
    b->gathering = 0;
}

/* After a round all threads are at the same barrier, or all have ended. */
static const char *judge_round(const block *b)
{
    for (unsigned i = 0; i < b->threads; i++)
        if (b->fibers[i].is == MEETING)
            return "some lanes of a warp wait for others that do not come";
    for (unsigned i = 1; i < b->threads; i++) {
        if (b->fibers[i].is != b->fibers[0].is)
            return "some threads of a block have ended, others wait at a barrier";
        if (b->fibers[0].is == WAITING && b->fibers[i].line != b->fibers[0].line)
            return "threads of a block wait at different barriers";
    }
    return nullptr;
}

static char *make_stacks(unsigned threads)
{
    void *made = mmap(nullptr, threads * stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return made == MAP_FAILED ? nullptr : static_cast<char *>(made);
}

static void begin_block(block *b)
{
    for (unsigned i = 0; i < b->threads; i++) {
        make_context(&b->fibers[i].at, b->stacks + i * stack_bytes, run_thread);
        b->fibers[i].at.thread = told_begin();
        b->fibers[i].barriers = b->fibers[i].meetings = 0;
        b->fibers[i].shared_used = 0;
        b->fibers[i].copies.clear();
        b->fibers[i].groups = 0;
    }
    for (warp &w : b->warps)
        w.arrived = 0;
    memset(b->shared, POISON, sizeof b->shared);
    memset(b->dynamic, POISON, b->rules->shared + SHARED_GUARD);
    b->shared_used = 0;
    begin_order(b, b->rules->order);
    told_before(&b->begun);
}

static const char *run_rounds(block *b)
{
    for (;;) {
        next_order(b, b->rules->order);
        run_round(b);
        const char *fault = b->fault ? b->fault : judge_round(b);
        if (fault || b->fibers[0].is == ENDED)
            return fault ? fault : judge_shared(b);
    }
}

static const char *run_block(block *b)
{
    begin_block(b);
    const char *fault = run_rounds(b);
    for (unsigned i = 0; i < b->threads; i++)
        told_end(b->fibers[i].at.thread);
    return fault;
}

/* A block's memory, in which nothing of another block's is left: to ThreadSanitizer that would be a race. */
static block *make_block(host_call *call, void **arguments, const host_rules *rules)
{
    char *stacks = make_stacks(rules->threads);
    if (!stacks)
        return nullptr;
    block *b = new block();
    b->call = call;
    b->arguments = arguments;
    b->rules = rules;
    b->threads = rules->threads;
    b->stacks = stacks;
    b->seed = 1;
    b->scheduler.thread = told_current();
    return b;
}

static void free_block(block *b)
{
    munmap(b->stacks, b->threads * stack_bytes);
    delete b;
}

const char *host_launch(host_call *call, void **arguments, const host_rules *rules)
{
    const unsigned threads = rules->threads;
    if (threads == 0 || threads > MOST_THREADS || rules->blocks == 0 || rules->shared > DYNAMIC_BYTES)
        return "a launch of no block, of too many threads or of too much shared memory";
    block *b = nullptr;
    const char *fault = nullptr;
    host_grid.x = rules->blocks;
    host_block_size.x = rules->threads;
    told_before(&launch_begun);
    for (unsigned i = 0; i < rules->blocks && !fault; i++) {
        if (b && told) {
            free_block(b);
            b = nullptr;
        }
        if (!b)
            b = make_block(call, arguments, rules);
        if (!b)
            return "out of host memory";
        running = b;
        host_block.x = i;
        fault = run_block(b);
    }
    running = nullptr;
    free_block(b);
    told_after(&launch_ended);
    return fault;
}
