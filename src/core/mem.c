/* Counted allocations. Each block is preceded by a header of one alignment unit that remembers its size. */
#include "core/mem.h"

#include <stdlib.h>
#include <string.h>

#include "core/context.h"
#include "core/status.h"

static size_t round_up(size_t bytes)
{
    return (bytes + NF_ALIGNMENT - 1) / NF_ALIGNMENT * NF_ALIGNMENT;
}

static void count_up(nf_pool *pool, size_t bytes)
{
    for (; pool; pool = pool->parent) {
        const size_t now = atomic_fetch_add(&pool->current, bytes) + bytes;
        size_t peak = atomic_load(&pool->peak);
        while (peak < now && !atomic_compare_exchange_weak(&pool->peak, &peak, now))
            continue;
    }
}

static void count_down(nf_pool *pool, size_t bytes)
{
    for (; pool; pool = pool->parent)
        atomic_fetch_sub(&pool->current, bytes);
}

static void *obtain(const nf_pool *pool, size_t total)
{
    return pool && pool->allocate ? pool->allocate(pool->user, total, NF_ALIGNMENT)
                                  : aligned_alloc(NF_ALIGNMENT, total);
}

static void give_back(const nf_pool *pool, void *block, size_t total)
{
    if (pool && pool->allocate)
        pool->release(pool->user, block, total);
    else
        free(block);
}

void *nf_pool_alloc(nf_pool *pool, size_t bytes)
{
    if (bytes > PTRDIFF_MAX - 2 * NF_ALIGNMENT) {
        nf_fail(NF_ERR_MEMORY, "memory: %zu bytes are more than an address space holds", bytes);
        return NULL;
    }
    const size_t total = NF_ALIGNMENT + round_up(bytes);
    char *block = obtain(pool, total);
    if (!block) {
        nf_fail(NF_ERR_MEMORY, "memory: an allocation of %zu bytes failed", total);
        return NULL;
    }
    if ((uintptr_t)block % NF_ALIGNMENT) {
        give_back(pool, block, total);
        nf_fail(NF_ERR_MEMORY, "memory: the allocate callback returned a block that is not %d-byte aligned",
                NF_ALIGNMENT);
        return NULL;
    }
    memcpy(block, &total, sizeof total);
    count_up(pool, total);
    return block + NF_ALIGNMENT;
}

void nf_pool_release(nf_pool *pool, void *memory)
{
    if (!memory)
        return;
    char *block = (char *)memory - NF_ALIGNMENT;
    size_t total;
    memcpy(&total, block, sizeof total);
    count_down(pool, total);
    give_back(pool, block, total);
}

void nf_pool_init_child(nf_pool *pool, nf_pool *parent)
{
    pool->allocate = parent->allocate;
    pool->release = parent->release;
    pool->user = parent->user;
    pool->parent = parent;
    atomic_init(&pool->current, 0);
    atomic_init(&pool->peak, 0);
}

size_t nf_pool_bytes(const nf_pool *pool)
{
    return atomic_load(&pool->current);
}

void *nf_alloc(const nf_context *context, size_t bytes)
{
    return nf_pool_alloc(context ? context->pool : NULL, bytes);
}

void *nf_alloc_array(const nf_context *context, size_t count, size_t size)
{
    if (size && count > SIZE_MAX / size) {
        nf_fail(NF_ERR_MEMORY, "memory: %zu items of %zu bytes are more than an address space holds", count, size);
        return NULL;
    }
    void *memory = nf_alloc(context, count * size);
    if (memory)
        memset(memory, 0, count * size);
    return memory;
}

void nf_release(const nf_context *context, void *memory)
{
    nf_pool_release(context ? context->pool : NULL, memory);
}
