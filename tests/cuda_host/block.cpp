/* Fibers, and the rounds of a block. */
#include "block.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <vector>

#include "async.h"
#include "told.h"

#if defined(__x86_64__) && !defined(HOST_UCONTEXT)
#define HOST_ASSEMBLY
#else
#include <ucontext.h>
#endif

thread_local host_index host_thread, host_block, host_grid, host_block_size;

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

/* To run, at a barrier of the block, at a meeting of its warp, at one of its warpgroup, until it is woken. */
enum state { READY, WAITING, MEETING, GATHERING, PARKED, ENDED };

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
    unsigned barriers, meetings, gatherings;
    const void *awaited; /* what it is parked for */
};

/* Who has come to a meeting, of a warp or of a warpgroup. */
struct meeting {
    char order[TURNS];
    host_collective *all;
    void *arguments[HOST_WARPGROUP];
    unsigned arrived;
};

/* ---- A block ----------------------------------------------------------------------------------------------------- */

enum { SHARED_BYTES = 48 << 10, SHARED_ALIGNMENT = 128, SHARED_GUARD = 4 << 10 };

struct block {
    host_call *call;
    void **arguments;
    const host_rules *rules;
    unsigned threads, current;
    unsigned order[HOST_MOST_THREADS];
    fiber fibers[HOST_MOST_THREADS];
    meeting warps[HOST_MOST_THREADS / HOST_LANES], warpgroups[HOST_MOST_THREADS / HOST_WARPGROUP];
    host_async *async;
    bool woken; /* somebody is ready again */
    context scheduler;
    size_t shared_used; /* by any thread */
    uint64_t seed;
    char *stacks;
    const char *fault; /* the first */
    char begun, barrier[TURNS];
    int gathering, gathered; /* of a barrier that asks, in this round and in the last */
    alignas(SHARED_ALIGNMENT) unsigned char shared[SHARED_BYTES + SHARED_GUARD];
    alignas(SHARED_ALIGNMENT) unsigned char dynamic[HOST_DYNAMIC_BYTES + SHARED_GUARD];
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
    host_end_of_products();
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

/* ---- Waiting for each other -------------------------------------------------------------------------------------- */

/* The last of a meeting's threads, of which there are `size`, does what it is for. */
static void meet(meeting *m, unsigned size, unsigned turn, state waiting, host_collective *all, void *argument)
{
    fiber *self = &running->fibers[running->current], *first = self - running->current % size;
    if (m->arrived && m->all != all)
        host_fault("threads of a warp or of a warpgroup meet for different things");
    m->all = all;
    m->arguments[running->current % size] = argument;
    char *order = &m->order[turn % TURNS];
    told_before(order);
    if (++m->arrived < size) {
        self->is = waiting;
        switch_context(&self->at, &running->scheduler);
        told_after(order);
        return;
    }
    told_after(order);
    all(m->arguments);
    told_before(order);
    m->arrived = 0;
    for (unsigned i = 0; i < size; i++)
        first[i].is = READY;
    running->woken = true;
}

void host_meet(host_collective *all, void *argument)
{
    meet(&running->warps[running->current / HOST_LANES], HOST_LANES, running->fibers[running->current].meetings++,
         MEETING, all, argument);
}

void host_gather(host_collective *all, void *argument)
{
    meet(&running->warpgroups[running->current / HOST_WARPGROUP], HOST_WARPGROUP,
         running->fibers[running->current].gatherings++, GATHERING, all, argument);
}

void host_park(const void *awaited)
{
    fiber *self = &running->fibers[running->current];
    self->is = PARKED;
    self->awaited = awaited;
    switch_context(&self->at, &running->scheduler);
}

void host_wake(const void *awaited)
{
    for (unsigned i = 0; i < running->threads; i++)
        if (running->fibers[i].is == PARKED && running->fibers[i].awaited == awaited) {
            running->fibers[i].is = READY;
            running->woken = true;
        }
}

unsigned host_barriers_passed()
{
    return running->fibers[running->current].barriers;
}

host_async *host_async_here()
{
    return running->async;
}

bool host_lands_early()
{
    return running->rules->copies_early;
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
    return HOST_FIRST_ADDRESS + static_cast<unsigned>(address);
}

unsigned char *host_bytes_at(unsigned address, unsigned size, unsigned alignment)
{
    const size_t begin = static_cast<size_t>(address) - HOST_FIRST_ADDRESS;
    if (address % alignment == 0 && address >= HOST_FIRST_ADDRESS && begin + size <= running->rules->shared)
        return running->dynamic + begin;
    host_fault("a place in shared memory is not aligned, or not there");
    return nullptr;
}

static unsigned char *piece_at(unsigned address, unsigned size)
{
    unsigned char *piece = host_bytes_at(address, size, size);
    return piece ? piece : running->dynamic;
}

void *host_chunk_at(unsigned address)
{
    return piece_at(address, HOST_CHUNK);
}

static void land(const copy *c)
{
    unsigned char chunk[HOST_CHUNK] = {};
    memcpy(chunk, c->from, static_cast<size_t>(c->bytes));
    memcpy(piece_at(c->to, static_cast<unsigned>(c->size)), chunk, static_cast<size_t>(c->size));
    host_note_write(c->to);
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
    while (begin < end && *begin == HOST_POISON)
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

static bool is_greedy(const block *b)
{
    return b->rules->order == HOST_GREEDY || b->rules->order == HOST_GREEDY_REVERSE;
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

/* All that can go on do; greedy, those that the order has first, again as soon as somebody is woken. */
static void run_pass(block *b)
{
    if (b->rules->order == HOST_RANDOM)
        shuffle(b);
    b->woken = false;
    for (unsigned i = 0; i < b->threads && !(is_greedy(b) && b->woken); i++) {
        const unsigned thread = b->order[i];
        if (b->fibers[thread].is == READY)
            resume(b, thread);
        if (b->fibers[thread].is == MEETING)
            run_warp(b, thread / HOST_LANES);
    }
}

static bool is_any(const block *b, state is)
{
    for (unsigned i = 0; i < b->threads; i++)
        if (b->fibers[i].is == is)
            return true;
    return false;
}

/* When nobody can go on, something is done that somebody waits for. */
static bool do_awaited(block *b)
{
    for (unsigned i = 0; i < b->threads; i++) {
        const fiber *f = &b->fibers[b->order[i]];
        if (f->is == PARKED && (host_land_for(f->awaited) || host_run_for(f->awaited)))
            return true;
    }
    return false;
}

static void run_round(block *b)
{
    for (unsigned i = 0; i < b->threads; i++)
        b->fibers[i].is = READY;
    do {
        if (is_greedy(b))
            rotate(b);
        while (is_any(b, READY))
            run_pass(b);
    } while (do_awaited(b));
    b->gathered = b->gathering;
    b->gathering = 0;
}

/* After a round all threads are at the same barrier, or all have ended. */
static const char *judge_round(const block *b)
{
    if (is_any(b, PARKED))
        return "threads of a block wait for each other";
    if (is_any(b, GATHERING))
        return "some threads of a warpgroup wait for others that do not come";
    if (is_any(b, MEETING))
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
        b->fibers[i].barriers = b->fibers[i].meetings = b->fibers[i].gatherings = 0;
        b->fibers[i].shared_used = 0;
        b->fibers[i].copies.clear();
        b->fibers[i].groups = 0;
    }
    for (meeting &m : b->warps)
        m.arrived = 0;
    for (meeting &m : b->warpgroups)
        m.arrived = 0;
    host_begin_async(b->async);
    host_forget_writes(HOST_FIRST_ADDRESS, b->rules->shared + HOST_CHUNK - 1);
    memset(b->shared, HOST_POISON, sizeof b->shared);
    memset(b->dynamic, HOST_POISON, b->rules->shared + SHARED_GUARD);
    b->shared_used = 0;
    begin_order(b, b->rules->order);
    told_before(&b->begun);
}

static const char *judge_end(const block *b)
{
    const char *fault = host_judge_async();
    return fault ? fault : judge_shared(b);
}

static const char *run_rounds(block *b)
{
    for (;;) {
        run_round(b);
        const char *fault = b->fault ? b->fault : judge_round(b);
        if (fault || b->fibers[0].is == ENDED)
            return fault ? fault : judge_end(b);
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
    host_async *async = static_cast<host_async *>(calloc(1, sizeof *async));
    if (!stacks || !async)
        return nullptr;
    block *b = new block();
    b->async = async;
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
    free(b->async);
    delete b;
}

const char *host_launch(host_call *call, void **arguments, const host_rules *rules)
{
    const unsigned threads = rules->threads;
    if (threads == 0 || threads > HOST_MOST_THREADS || rules->blocks == 0 || rules->shared > HOST_DYNAMIC_BYTES)
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
