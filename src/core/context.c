/* Creating a context: options, environment, machine, backends, in this order. */
#include "core/context.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/check.h"
#include "core/env.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/select.h"

/* The pool cannot lie in nf_context, which plans copy. */
typedef struct context_block {
    nf_context context;
    nf_pool pool;
    nf_context_backend backend[NF_MAX_BACKENDS];
} context_block;

void nf_context_options_init(nf_context_options *options)
{
    *options = (nf_context_options){.size = sizeof *options};
}

const char *nf_context_isa(const nf_context *context)
{
    return context->isa[0] ? context->isa : NULL;
}

const char *nf_context_device(const nf_context *context)
{
    return context->device[0] ? context->device : NULL;
}

int64_t nf_context_threads(const nf_context *context)
{
    return context->threads;
}

const nf_topology *nf_context_topology(const nf_context *context)
{
    return &context->topology;
}

static nf_status check_options(const nf_context_options *options)
{
    const nf_status status = nf_check_size(options, sizeof *options, "options", "nf_context_options");
    if (status != NF_OK)
        return status;
    if (!options->allocate != !options->release)
        return nf_fail(NF_ERR_ARGUMENT, "options: allocate and release must be given together");
    if (options->num_threads < 0 || options->num_threads > NF_MAX_THREADS)
        return nf_fail(NF_ERR_ARGUMENT, "options: num_threads %" PRId64 " must lie in 0..%d", options->num_threads,
                       NF_MAX_THREADS);
    return NF_OK;
}

/* What is neither in the options nor in the environment keeps its default. */
static nf_status resolve_options(nf_context *context, const nf_context_options *options)
{
    int64_t threads = nf_topology_default_threads(&context->topology), verbose = NF_LOG_WARNING;
    nf_status status = nf_env_number(NF_ENV_VERBOSE, &verbose);
    if (status != NF_OK || (status = nf_env_number(NF_ENV_NUM_THREADS, &threads)) != NF_OK)
        return status;
    context->verbose = (int)verbose;
    context->threads = options->num_threads ? options->num_threads : threads;
    context->log = options->log;
    context->log_user = options->log_user;
    const char *isa = options->isa && *options->isa ? options->isa : nf_env_text(NF_ENV_ISA);
    if (isa && strlen(isa) >= sizeof context->isa)
        return nf_fail(NF_ERR_ARGUMENT, "isa '%.40s...' names no instruction set", isa);
    snprintf(context->isa, sizeof context->isa, "%s", isa ? isa : "");
    const char *device = options->device && *options->device ? options->device : nf_env_text(NF_ENV_DEVICE);
    if (device && strlen(device) >= sizeof context->device)
        return nf_fail(NF_ERR_ARGUMENT, "device '%.40s...' names no device", device);
    snprintf(context->device, sizeof context->device, "%s", device ? device : "");
    return NF_OK;
}

static void close_backends(nf_context *context)
{
    for (int i = context->backend_count - 1; i >= 0; i--) {
        nf_context_backend *entry = &context->backend[i];
        if (entry->open)
            entry->backend->close(context, entry->state);
        entry->open = false;
    }
}

/* A backend that cannot run here is a reason to remember; any other failure is the caller's. */
static nf_status open_backend(nf_context_backend *entry)
{
    const nf_status status = entry->backend->open(entry->owner, &entry->state);
    if (status == NF_ERR_UNAVAILABLE)
        snprintf(entry->reason, sizeof entry->reason, "%s", nf_last_error());
    entry->open = status == NF_OK;
    entry->tried = entry->open || status == NF_ERR_UNAVAILABLE;
    return entry->tried ? NF_OK : status;
}

nf_status nf_context_try_backend(nf_context_backend *entry)
{
    if (!entry->late)
        return NF_OK;
    pthread_mutex_lock(&entry->opening);
    const nf_status status = entry->tried ? NF_OK : open_backend(entry);
    pthread_mutex_unlock(&entry->opening);
    return status;
}

/* Opens what may be chosen; the rest waits until it is asked for. */
static nf_status open_now(nf_context *context, int index, bool excluded, const char *source)
{
    nf_context_backend *entry = &context->backend[index];
    entry->owner = context;
    if (excluded) {
        snprintf(entry->reason, sizeof entry->reason, "excluded by %s", source);
    } else if (entry->backend->built_out) {
        snprintf(entry->reason, sizeof entry->reason, "%s", entry->backend->built_out);
    } else {
        entry->late = !nf_preference_holds(context, index);
        return entry->late ? NF_OK : open_backend(entry);
    }
    return NF_OK;
}

static nf_status open_backends(nf_context *context, const nf_context_options *options)
{
    const bool by_option = options->backend && *options->backend;
    const char *names = by_option ? options->backend : nf_env_text(NF_ENV_BACKEND);
    const char *source = by_option ? "the option backend" : nf_env_name(NF_ENV_BACKEND);
    bool excluded[NF_MAX_BACKENDS];
    nf_status status = nf_preference_parse(context, names, source, excluded);
    for (int i = 0; status == NF_OK && i < context->backend_count; i++)
        status = open_now(context, i, excluded[i], source);
    if (status != NF_OK)
        return status;
    nf_preference_settle(context);
    const nf_context_backend *forced = &context->backend[context->preferred[0]];
    if (names && !strpbrk(names, ",-") && !forced->open)
        return nf_fail(NF_ERR_UNAVAILABLE, "%s: %s is unavailable: %s", source, forced->backend->name, forced->reason);
    return NF_OK;
}

static void prefer(nf_context *context, int index)
{
    int count = 1;
    int preferred[NF_MAX_BACKENDS] = {index};
    for (int i = 0; i < context->preferred_count; i++)
        if (context->preferred[i] != index)
            preferred[count++] = context->preferred[i];
    memcpy(context->preferred, preferred, sizeof preferred);
    context->preferred_count = count;
}

nf_status nf_context_adopt(nf_context *context, const nf_backend *backend, void *state)
{
    int index = 0;
    while (index < context->backend_count && context->backend[index].backend != backend)
        index++;
    if (index == context->backend_count)
        return nf_fail(NF_ERR_ARGUMENT, "context: it knows no backend %s", backend->name);
    nf_context_backend *entry = &context->backend[index];
    pthread_mutex_lock(&entry->opening);
    if (entry->open)
        backend->close(context, entry->state);
    entry->state = state;
    entry->open = entry->tried = true;
    pthread_mutex_unlock(&entry->opening);
    prefer(context, index);
    return NF_OK;
}

static void free_block(context_block *block)
{
    for (int i = 0; i < block->context.backend_count; i++)
        pthread_mutex_destroy(&block->backend[i].opening);
    /* The block is counted in the pool it contains. */
    nf_pool pool;
    nf_pool_init_child(&pool, &block->pool);
    pool.parent = NULL;
    atomic_store(&pool.current, nf_pool_bytes(&block->pool));
    nf_pool_release(&pool, block);
}

static nf_status allocate_block(context_block **block, const nf_context_options *options)
{
    nf_pool pool = {.allocate = options->allocate, .release = options->release, .user = options->memory_user};
    context_block *made = nf_pool_alloc(&pool, sizeof *made);
    if (!made)
        return NF_ERR_MEMORY;
    memset(made, 0, sizeof *made);
    nf_pool_init_child(&made->pool, &pool);
    made->pool.parent = NULL;
    atomic_store(&made->pool.current, nf_pool_bytes(&pool));
    atomic_store(&made->pool.peak, nf_pool_bytes(&pool));
    made->context.pool = &made->pool;
    made->context.backend = made->backend;
    *block = made;
    return NF_OK;
}

nf_status nf_context_create_with(nf_context **context, const nf_context_options *options,
                                 const nf_backend *const *backends)
{
    nf_context_options defaults;
    nf_context_options_init(&defaults);
    if (!context)
        return nf_fail(NF_ERR_ARGUMENT, "context: NULL");
    if (!options)
        options = &defaults;
    context_block *block;
    nf_status status = check_options(options);
    if (status != NF_OK || (status = allocate_block(&block, options)) != NF_OK)
        return status;
    nf_context *made = &block->context;
    for (int i = 0; backends[i] && i < NF_MAX_BACKENDS; i++) {
        made->backend[i].backend = backends[i];
        pthread_mutex_init(&made->backend[i].opening, NULL);
        made->backend_count++;
    }
    nf_topology_detect(&made->topology);
    status = resolve_options(made, options);
    if (status == NF_OK)
        status = open_backends(made, options);
    if (status != NF_OK) {
        close_backends(made);
        free_block(block);
        return status;
    }
    nf_env_warn_unknown(made);
    *context = made;
    return NF_OK;
}

nf_status nf_context_create(nf_context **context, const nf_context_options *options)
{
    return nf_context_create_with(context, options, nf_backends);
}

void nf_context_destroy(nf_context *context)
{
    if (!context)
        return;
    close_backends(context);
    free_block((context_block *)context);
}

void nf_context_memory(const nf_context *context, size_t *current_bytes, size_t *peak_bytes)
{
    if (current_bytes)
        *current_bytes = context ? nf_pool_bytes(context->pool) : 0;
    if (peak_bytes)
        *peak_bytes = context ? atomic_load(&context->pool->peak) : 0;
}

nf_status nf_backend_available(const nf_context *context, const char *name)
{
    if (!context || !name)
        return nf_fail(NF_ERR_ARGUMENT, "%s: NULL", context ? "name" : "context");
    const nf_context_backend *entry;
    return nf_context_use_backend(context, name, "name", &entry);
}

nf_status nf_backend_peak(nf_context *context, const char *backend, nf_dtype dtype, nf_peak *peak)
{
    const nf_context_backend *entry;
    if (!context || !backend || !peak)
        return nf_fail(NF_ERR_ARGUMENT, "%s: NULL", !context ? "context" : !backend ? "backend" : "peak");
    nf_status status = nf_check_size(peak, sizeof *peak, "peak", "nf_peak");
    if (status == NF_OK && nf_dtype_size(dtype) == 0)
        status = nf_fail(NF_ERR_ARGUMENT, "dtype: %d is no nf_dtype", (int)dtype);
    if (status == NF_OK)
        status = nf_context_use_backend(context, backend, "backend", &entry);
    return status == NF_OK ? entry->backend->peak(entry->state, dtype, peak) : status;
}

const char *nf_device_name(const nf_context *context, const char *backend, int index)
{
    const nf_context_backend *entry;
    if (!context || !backend || index < 0 || nf_context_use_backend(context, backend, "backend", &entry) != NF_OK)
        return NULL;
    return entry->backend->device(entry->state, index);
}

nf_status nf_context_describe(const nf_context *context, char *buffer, size_t capacity, size_t *length)
{
    nf_text text;
    if (!context)
        return nf_fail(NF_ERR_ARGUMENT, "context: NULL");
    nf_status status = nf_text_init(&text, buffer, capacity);
    for (int i = 0; status == NF_OK && i < context->backend_count; i++)
        status = nf_context_try_backend(&context->backend[i]);
    if (status != NF_OK)
        return status;
    nf_text_printf(&text, "nearfield %s\n", nf_version());
    nf_topology_describe(&context->topology, &text);
    nf_text_printf(&text, "threads: %" PRId64 " per execution\n", context->threads);
    nf_text_printf(&text, "backends:\n");
    for (int i = 0; i < context->backend_count; i++) {
        const nf_context_backend *entry = &context->backend[i];
        nf_text_printf(&text, "%s: %s%s%s\n", entry->backend->name, entry->backend->summary,
                       entry->open ? "" : "; unavailable: ", entry->reason);
        if (entry->open)
            entry->backend->describe(entry->state, &text);
    }
    return nf_text_finish(&text, length);
}
