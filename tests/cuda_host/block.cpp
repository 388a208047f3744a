/* Fibers, and the rounds of a block. */
#include "block.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__) && !defined(HOST_UCONTEXT)
#define HOST_ASSEMBLY
#else
#include <ucontext.h>
#endif

thread_local host_index host_thread, host_block, host_grid;

/* ---- Fibers ------------------------------------------------------------------------------------------------------ */

static const size_t stack_bytes = 128 << 10;

#ifdef HOST_ASSEMBLY
struct context {
    void *stack_pointer;
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
};

static void switch_context(context *from, const context *to)
{
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

enum state { READY, WAITING, ENDED };

struct fiber {
    context at;
    state is;
    int line;           /* of the barrier */
    size_t shared_used; /* of what it has asked for */
};

/* ---- A block ----------------------------------------------------------------------------------------------------- */

enum { MOST_THREADS = 1024, SHARED_BYTES = 48 << 10, SHARED_ALIGNMENT = 128, SHARED_GUARD = 4 << 10, POISON = 0xff };

struct block {
    host_call *call;
    void **arguments;
    unsigned threads, current;
    unsigned order[MOST_THREADS];
    fiber fibers[MOST_THREADS];
    context scheduler;
    size_t shared_used; /* by any thread */
    uint64_t seed;
    char *stacks;
    alignas(SHARED_ALIGNMENT) unsigned char shared[SHARED_BYTES + SHARED_GUARD];
};

static thread_local block *running;

static void run_thread()
{
    running->call(running->arguments);
    running->fibers[running->current].is = ENDED;
    switch_context(&running->fibers[running->current].at, &running->scheduler);
    abort();
}

void host_barrier(int line)
{
    fiber *self = &running->fibers[running->current];
    self->is = WAITING;
    self->line = line;
    switch_context(&self->at, &running->scheduler);
}

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

/* What lies past the memory that was asked for is as it was. */
static const char *judge_shared(const block *b)
{
    for (size_t i = b->shared_used; i < sizeof b->shared; i++)
        if (b->shared[i] != POISON)
            return "something was written past shared memory";
    return nullptr;
}

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

static void run_round(block *b)
{
    for (unsigned i = 0; i < b->threads; i++) {
        b->current = b->order[i];
        host_thread.x = b->current;
        b->fibers[b->current].is = READY;
        switch_context(&b->scheduler, &b->fibers[b->current].at);
    }
}

/* After a round all threads are at the same barrier, or all have ended. */
static const char *judge_round(const block *b)
{
    for (unsigned i = 1; i < b->threads; i++) {
        if (b->fibers[i].is != b->fibers[0].is)
            return "some threads of a block have ended, others wait at a barrier";
        if (b->fibers[0].is == WAITING && b->fibers[i].line != b->fibers[0].line)
            return "threads of a block wait at different barriers";
    }
    return nullptr;
}

static const char *run_block(block *b, host_order order)
{
    for (unsigned i = 0; i < b->threads; i++) {
        make_context(&b->fibers[i].at, b->stacks + i * stack_bytes, run_thread);
        b->fibers[i].shared_used = 0;
    }
    memset(b->shared, POISON, sizeof b->shared);
    b->shared_used = 0;
    begin_order(b, order);
    for (;;) {
        next_order(b, order);
        run_round(b);
        const char *fault = judge_round(b);
        if (fault || b->fibers[0].is == ENDED)
            return fault ? fault : judge_shared(b);
    }
}

const char *host_launch(host_call *call, void **arguments, unsigned blocks, unsigned threads, host_order order)
{
    if (threads == 0 || threads > MOST_THREADS || blocks == 0)
        return "a launch of no block, or of too many threads";
    void *stacks = mmap(nullptr, threads * stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    block *b = static_cast<block *>(aligned_alloc(alignof(block), sizeof *b));
    if (stacks == MAP_FAILED || !b)
        return "out of host memory";
    memset(b, 0, sizeof *b);
    b->call = call;
    b->arguments = arguments;
    b->threads = threads;
    b->stacks = static_cast<char *>(stacks);
    b->seed = 1;
    running = b;
    host_grid.x = blocks;
    const char *fault = nullptr;
    for (unsigned i = 0; i < blocks && !fault; i++) {
        host_block.x = i;
        fault = run_block(b, order);
    }
    running = nullptr;
    munmap(stacks, threads * stack_bytes);
    free(b);
    return fault;
}
