/* Blocks of threads on the host, one after another. A thread runs until it comes to a barrier or ends; when all have,
 * the next round begins. Whatever a kernel leaves to chance between two barriers is decided by the order of a round. */
#ifndef NF_TESTS_CUDA_BLOCK_H
#define NF_TESTS_CUDA_BLOCK_H

#include <stddef.h>

struct host_index {
    unsigned x;
};

extern __attribute__((tls_model("initial-exec"))) thread_local host_index host_thread, host_block, host_grid;

void host_barrier(int line);

/* Memory that the threads of a block share, full of NaN when the block begins. Each thread asks for the same in the
 * same order. */
void *host_shared(size_t bytes);

/* A round's order of threads. Greedy: the one that came last to the barrier goes on first. */
enum host_order { HOST_FORWARD, HOST_REVERSE, HOST_RANDOM, HOST_GREEDY, HOST_GREEDY_REVERSE, HOST_ORDERS };

/* One kernel launch. Runs `call(kernel, arguments)` for every thread. Returns NULL, or what went wrong. */
typedef void host_call(void **arguments);
const char *host_launch(host_call *call, void **arguments, unsigned blocks, unsigned threads, host_order order);

#endif
