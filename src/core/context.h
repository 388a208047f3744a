/* The context: options resolved once, the machine, the opened backends, and the pool every allocation is counted in. */
#ifndef NF_CORE_CONTEXT_H
#define NF_CORE_CONTEXT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/backend.h"
#include "core/topo.h"
#include "nearfield.h"

enum { NF_MAX_BACKENDS = 16, NF_REASON_CAPACITY = 240, NF_MAX_THREADS = 1 << 16, NF_DEVICE_CAPACITY = 128 };

/* An allocator with counters. A plan has its own, whose allocations also count in its parent. */
typedef struct nf_pool {
    void *(*allocate)(void *user, size_t bytes, size_t alignment); /* NULL: the C library's */
    void (*release)(void *user, void *memory, size_t bytes);
    void *user;
    struct nf_pool *parent;
    _Atomic size_t current, peak;
} nf_pool;

/* A pool that allocates like its parent and counts on its own. */
void nf_pool_init_child(nf_pool *pool, nf_pool *parent);
void *nf_pool_alloc(nf_pool *pool, size_t bytes);
void nf_pool_release(nf_pool *pool, void *memory);
size_t nf_pool_bytes(const nf_pool *pool); /* allocated now */

/* One known backend and what became of it here. */
typedef struct nf_context_backend {
    const nf_backend *backend;
    const nf_context *owner; /* plans look at it through copies of the context */
    bool late;               /* not preferred and not named: opened when it is first asked for */
    bool provisional;        /* preferred if its device turns out to be a GPU */
    pthread_mutex_t opening; /* of a late one: guards what follows */
    bool tried;
    void *state; /* of an open backend */
    bool open;
    char reason[NF_REASON_CAPACITY]; /* why it is not open */
} nf_context_backend;

struct nf_context {
    nf_pool *pool; /* not inside: a plan allocates through a copy of its context with a pool of its own */
    char isa[32];
    char device[NF_DEVICE_CAPACITY];
    int64_t threads;
    int verbose;
    void (*log)(void *user, int level, const char *line);
    void *log_user;
    nf_topology topology;
    int backend_count;
    nf_context_backend *backend; /* in the order of nf_backends */
    int preferred_count;
    int preferred[NF_MAX_BACKENDS]; /* indices of the backends that may be chosen unasked, best first */
};

/* Creates a context that knows these backends, NULL-terminated, instead of nf_backends. */
nf_status nf_context_create_with(nf_context **context, const nf_context_options *options,
                                 const nf_backend *const *backends);

/* Gives a backend a state that the program made, in place of its own, and makes it the most preferred one: before any
 * plan is made. On failure the state stays the caller's. */
nf_status nf_context_adopt(nf_context *context, const nf_backend *backend, void *state);

/* The highest instruction set allowed, as the user wrote it; NULL: no cap. */
const char *nf_context_isa(const nf_context *context);
/* Which device of a backend to use, as the user wrote it: an index or a part of its name; NULL: the backend's choice.
 */
const char *nf_context_device(const nf_context *context);
/* Threads an execution may use, >= 1. */
int64_t nf_context_threads(const nf_context *context);
const nf_topology *nf_context_topology(const nf_context *context);

/* Opens a late backend that was not tried yet. NF_OK also where it is unavailable: look at open and reason. */
nf_status nf_context_try_backend(nf_context_backend *entry);

/* The entry of a backend by name, opened. NF_ERR_ARGUMENT's sentence names the nearest, NF_ERR_UNAVAILABLE's the
 * reason; both begin with source, the name of the argument. */
nf_status nf_context_use_backend(const nf_context *context, const char *name, const char *source,
                                 const nf_context_backend **entry);

#endif
