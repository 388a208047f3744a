/* Blocks of threads on the host, one after another. A thread runs until it has to wait or ends; when all are at a
 * barrier of the block, the next round begins. Whatever a kernel leaves to chance is decided by the order of a round.
 */
#ifndef NF_TESTS_CUDA_BLOCK_H
#define NF_TESTS_CUDA_BLOCK_H

#include <stddef.h>

struct host_index {
    unsigned x;
};

extern __attribute__((tls_model("initial-exec"))) thread_local host_index host_thread, host_block, host_grid,
    host_block_size;

void host_barrier(int line);
int host_barrier_or(int line, int holds); /* whether any thread's holds */

/* Memory that the threads of a block share, full of NaN when the block begins. Each thread asks for the same in the
 * same order. */
void *host_shared(size_t bytes);

/* That whose size the launch says, and places in it as cu_ptx.h has them: as on a device, it does not begin at 0. */
enum { HOST_DYNAMIC_BYTES = 227 << 10, HOST_FIRST_ADDRESS = 1 << 10 };
unsigned char *host_dynamic_shared();
unsigned host_address_of(const void *shared);
enum { HOST_CHUNK = 16 };
void *host_chunk_at(unsigned address);
void host_note_write(unsigned address);                                            /* of a chunk or a part of it */
unsigned char *host_bytes_at(unsigned address, unsigned size, unsigned alignment); /* NULL after a fault */

/* Copies from global memory to there, filled up to `size` with zeros. They land at once, or as late as the thread's
 * waits allow. */
void host_copy(unsigned to, const void *from, int bytes, int size);
void host_copy_commit();
void host_copy_wait(int pending);

/* The last lane of a warp to come calls all(arguments of the lanes); then all go on. host_gather: of a warpgroup. */
enum { HOST_LANES = 32, HOST_WARPGROUP = 128, HOST_MOST_THREADS = 1024 };
typedef void host_collective(void *const *arguments);
void host_meet(host_collective *all, void *argument);
void host_gather(host_collective *all, void *argument);

/* The thread goes on when somebody wakes those who wait for this. */
void host_park(const void *awaited);
void host_wake(const void *awaited);
unsigned host_barriers_passed(); /* by the thread, of the whole block */

/* Whether asynchronous work is done at once, not as late as waits allow. */
bool host_lands_early();
enum { HOST_POISON = 0xff }; /* bytes of NaN */

/* What a kernel must not do. The first is what the launch returns. */
void host_fault(const char *what);

/* A round's order of threads. Greedy: the one that came last to the barrier goes on first, and whoever is earlier in
 * the order as soon as it can. A warp that meets goes on until all of it waits for others. */
enum host_order { HOST_FORWARD, HOST_REVERSE, HOST_RANDOM, HOST_GREEDY, HOST_GREEDY_REVERSE, HOST_ORDERS };

/* One kernel launch. Runs `call(kernel, arguments)` for every thread. Returns NULL, or what went wrong. */
struct host_rules {
    unsigned blocks, threads;
    unsigned shared; /* bytes of dynamic shared memory */
    host_order order;
    bool copies_early; /* asynchronous work, else late */
};
typedef void host_call(void **arguments);
const char *host_launch(host_call *call, void **arguments, const host_rules *rules);

#endif
