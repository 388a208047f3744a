/* Strided, guarded, poisoned memory: the form in which the library sees the tensors. Every element that belongs to no
 * tensor, in gaps as around, is a guard. */
#include "verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { GUARD = 40, MISALIGN = 16 };
static const int64_t far_guard = (int64_t)1 << 31; /* so that a wrapped offset reads zeros rather than nothing */

/* A block of span elements behind a guard of varying alignment; returns the block's first element inside the guard. */
static int64_t create_block(verify_block *block, nf_dtype dtype, int64_t span, verify_random *random)
{
    const int64_t before = GUARD + verify_random_below(random, MISALIGN);
    const size_t size = nf_dtype_size(dtype);
    const uint64_t poison = verify_poison(dtype);
    *block = (verify_block){.count = before + span + GUARD, .dtype = dtype};
    block->memory = verify_alloc(block->count, size);
    for (int64_t i = 0; i < block->count; i++)
        memcpy(block->memory + (size_t)i * size, &poison, size); /* little-endian: the low bytes come first */
    return before;
}

static void *map_sparse(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, bytes, MADV_NOHUGEPAGE); /* every element lies on a page of its own */
    return memory;
}

bool verify_far_possible(size_t bytes)
{
    void *memory = map_sparse(bytes);
    return memory && munmap(memory, bytes) == 0;
}

/* A block so large that only touched pages exist: zero instead of poison, and no guards to check. */
static int64_t create_far_block(verify_block *block, nf_dtype dtype, int64_t span)
{
    *block = (verify_block){.count = span + 2 * far_guard, .dtype = dtype, .is_far = true};
    const size_t bytes = (size_t)block->count * nf_dtype_size(dtype);
    block->memory = map_sparse(bytes);
    if (!block->memory) {
        fprintf(stderr, "nearfield verify: a sparse mapping of %zu bytes was refused\n", bytes);
        exit(2);
    }
    return far_guard;
}

static void place(verify_buffers *buffers, int role, int index, int64_t element)
{
    const verify_block *block = &buffers->block[index];
    buffers->tensor[role].data = block->memory + (size_t)element * nf_dtype_size(block->dtype);
    buffers->block_of[role] = index;
}

static bool same_tokens(const nf_tensor *a, const nf_tensor *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank - 1; i++)
        if (a->extents[i] != b->extents[i])
            return false;
    return true;
}

/* Interleaves three roles, or the last two of them if the first has another shape: [..., heads, dim + dim + dim]. */
static void create_packed(verify_buffers *buffers, unsigned roles, int first_role, verify_random *random)
{
    nf_tensor *const last = &buffers->tensor[first_role + 2];
    const unsigned all = 7u << first_role, pair = 6u << first_role;
    const bool three = (roles & all) == all && same_tokens(&buffers->tensor[first_role], last);
    if (!three && (roles & pair) != pair)
        return;
    const int begin = three ? first_role : first_role + 1, rank = last->rank;
    int64_t width = 0, rows = 1, place_in_row = 0;
    for (int role = begin; role <= first_role + 2; role++)
        width += buffers->tensor[role].extents[rank - 1];
    for (int i = 0; i < rank - 1; i++)
        rows *= last->extents[i];
    const int64_t start = create_block(&buffers->block[begin], last->dtype, rows * width, random);
    for (int role = begin; role <= first_role + 2; role++) {
        nf_tensor *tensor = &buffers->tensor[role];
        tensor->strides[rank - 1] = 1;
        int64_t stride = width;
        for (int i = rank - 2; i >= 0; i--) {
            tensor->strides[i] = stride;
            stride *= tensor->extents[i];
        }
        place(buffers, role, begin, start + place_in_row);
        place_in_row += tensor->extents[rank - 1];
    }
}

void verify_buffers_create(verify_buffers *buffers, const verify_values *values, unsigned roles, verify_layout layout,
                           verify_random *random)
{
    *buffers = (verify_buffers){0};
    const int far_dimension = (int)verify_random_below(random, NF_MAX_TENSOR_RANK);
    for (int role = 0; role < NF_ROLES; role++)
        buffers->tensor[role] = values->role[role].shape;
    if (layout == VERIFY_PACKED) {
        create_packed(buffers, roles, NF_Q, random);
        create_packed(buffers, roles, NF_DQ, random);
    }
    for (int role = 0; role < NF_ROLES; role++) {
        if (!(roles >> role & 1) || buffers->tensor[role].data)
            continue;
        nf_tensor *tensor = &buffers->tensor[role];
        int64_t origin;
        const int64_t span = verify_layout_strides(tensor, role, layout, far_dimension, random, &origin);
        const int64_t start = layout == VERIFY_FAR ? create_far_block(&buffers->block[role], tensor->dtype, span)
                                                   : create_block(&buffers->block[role], tensor->dtype, span, random);
        place(buffers, role, role, start + origin);
    }
}

void verify_buffers_destroy(verify_buffers *buffers)
{
    for (int i = 0; i < NF_ROLES; i++) {
        const verify_block *block = &buffers->block[i];
        if (block->is_far)
            munmap(block->memory, (size_t)block->count * nf_dtype_size(block->dtype));
        else
            free(block->memory);
    }
    *buffers = (verify_buffers){0};
}

/* Calls visit for every element of a tensor, row-major, with its address. */
typedef struct walk {
    verify_array *array;
    nf_dtype dtype;
    uint64_t poison;
    size_t size;
    int64_t count;
    const unsigned char *memory;
    unsigned char *mark;
} walk;
typedef void (*visitor)(walk *w, int64_t flat, unsigned char *element);

static void visit_all(const nf_tensor *tensor, visitor visit, walk *w)
{
    int64_t index[NF_MAX_TENSOR_RANK] = {0}, offset = 0, total = 1;
    for (int i = 0; i < tensor->rank; i++)
        total *= tensor->extents[i];
    for (int64_t flat = 0; flat < total; flat++) {
        visit(w, flat, (unsigned char *)tensor->data + offset * (int64_t)w->size);
        for (int i = tensor->rank - 1; i >= 0; i--) {
            offset += tensor->strides[i];
            if (++index[i] < tensor->extents[i])
                break;
            offset -= index[i] * tensor->strides[i];
            index[i] = 0;
        }
    }
}

static walk walk_of(const nf_tensor *tensor, verify_array *array)
{
    return (walk){.array = array, .dtype = tensor->dtype, .poison = verify_poison(tensor->dtype),
                  .size = nf_dtype_size(tensor->dtype)};
}

static void visit_store(walk *w, int64_t flat, unsigned char *element)
{
    verify_write(w->dtype, element, w->array->data[flat]);
}

static void visit_load(walk *w, int64_t flat, unsigned char *element)
{
    w->array->data[flat] = verify_read(w->dtype, element);
}

static void visit_poisoned(walk *w, int64_t flat, unsigned char *element)
{
    (void)flat;
    w->count += memcmp(element, &w->poison, w->size) == 0;
}

static void visit_mark(walk *w, int64_t flat, unsigned char *element)
{
    (void)flat;
    w->mark[(size_t)(element - w->memory) / w->size] = 1;
}

void verify_buffers_store(verify_buffers *buffers, verify_values *values, int role)
{
    walk w = walk_of(&buffers->tensor[role], &values->role[role]);
    visit_all(&buffers->tensor[role], visit_store, &w);
    visit_all(&buffers->tensor[role], visit_load, &w);
}

void verify_buffers_load(const verify_buffers *buffers, verify_values *values, int role)
{
    walk w = walk_of(&buffers->tensor[role], &values->role[role]);
    visit_all(&buffers->tensor[role], visit_load, &w);
}

int64_t verify_buffers_unwritten(const verify_buffers *buffers, int role)
{
    walk w = walk_of(&buffers->tensor[role], NULL);
    visit_all(&buffers->tensor[role], visit_poisoned, &w);
    return w.count;
}

int64_t verify_buffers_trespassed(const verify_buffers *buffers, int role)
{
    const int index = buffers->block_of[role];
    const verify_block *block = &buffers->block[index];
    if (block->is_far)
        return 0;
    walk w = walk_of(&buffers->tensor[role], NULL);
    w.memory = block->memory;
    w.mark = verify_alloc(block->count, 1);
    for (int other = 0; other < NF_ROLES; other++)
        if (buffers->tensor[other].data && buffers->block_of[other] == index)
            visit_all(&buffers->tensor[other], visit_mark, &w);
    int64_t trespassed = 0;
    for (int64_t i = 0; i < block->count; i++)
        trespassed += !w.mark[i] && memcmp(block->memory + (size_t)i * w.size, &w.poison, w.size) != 0;
    free(w.mark);
    return trespassed;
}

static uint64_t checksum(const verify_block *block)
{
    const size_t bytes = block->is_far ? 0 : (size_t)block->count * nf_dtype_size(block->dtype);
    uint64_t sum = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < bytes; i++)
        sum = (sum ^ block->memory[i]) * 0x100000001b3u;
    return sum;
}

void verify_buffers_seal(verify_buffers *buffers, int role)
{
    verify_block *block = &buffers->block[buffers->block_of[role]];
    block->checksum = checksum(block);
}

bool verify_buffers_unchanged(const verify_buffers *buffers, int role)
{
    const verify_block *block = &buffers->block[buffers->block_of[role]];
    return block->checksum == checksum(block);
}

void verify_buffers_io(const verify_buffers *buffers, nf_io *io, unsigned roles)
{
    nf_io_init(io);
    const nf_tensor **const member[NF_ROLES] = {
        [NF_Q] = &io->q, [NF_K] = &io->k, [NF_V] = &io->v, [NF_EXTRA_K] = &io->extra_k, [NF_EXTRA_V] = &io->extra_v,
        [NF_OUT] = &io->out, [NF_LSE] = &io->lse, [NF_DOUT] = &io->dout, [NF_DLSE] = &io->dlse, [NF_DQ] = &io->dq,
        [NF_DK] = &io->dk, [NF_DV] = &io->dv, [NF_DEXTRA_K] = &io->dextra_k, [NF_DEXTRA_V] = &io->dextra_v};
    for (int role = 0; role < NF_ROLES; role++)
        if (roles >> role & 1 && member[role] && buffers->tensor[role].data)
            *member[role] = &buffers->tensor[role];
}
