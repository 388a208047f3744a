/* A merge of partial results (gpu_merge.cl) in no vendor's terms: a table, scratch memory, and launches, a part at a
 * time, so that any number of parts will do. */
#ifndef NF_GPU_MERGE_H
#define NF_GPU_MERGE_H

#include <stdbool.h>

#include "core/backend.h"

enum { GPU_MERGE_MOST_ARGS = 20, GPU_MERGE_GROUP_ITEMS = 64 };

/* A launch has a table, maybe scratch, and then numbers and tensors; a tensor is its memory and its place in the table.
 */
typedef struct gpu_merge_arg {
    enum { GPU_MERGE_ARG_TABLE, GPU_MERGE_ARG_SCRATCH, GPU_MERGE_ARG_TENSOR, GPU_MERGE_ARG_NUMBER } kind;
    const nf_tensor *tensor; /* NULL: absent, any memory will do */
    int64_t number;
} gpu_merge_arg;

typedef struct gpu_merge_launch {
    const char *kernel;
    int64_t elements; /* an item for each */
    gpu_merge_arg args[GPU_MERGE_MOST_ARGS];
    int count;
} gpu_merge_launch;

/* Groups of so many items: each takes every so many-th element. */
int64_t gpu_merge_groups(int64_t elements, int64_t items);

/* Calls visit for every tensor, with its name, until one fails. */
nf_status gpu_merge_each_tensor(const nf_merging *merging,
                                nf_status (*visit)(void *data, const nf_tensor *tensor, const char *name), void *data);

/* Of the program. */
void gpu_merge_options(const nf_merging *merging, char *options, size_t capacity);

/* The table, of int64, which is zeros before. */
size_t gpu_merge_table_words(const nf_merging *merging);
void gpu_merge_fill(const nf_merging *merging, int64_t *table);

size_t gpu_merge_scratch_bytes(const nf_merging *merging);

int64_t gpu_merge_launch_count(const nf_merging *merging);
/* Calls launch for each, in order, until one fails. */
nf_status gpu_merge_each_launch(const nf_merging *merging, nf_status (*launch)(void *data, const gpu_merge_launch *l),
                                void *data);

#endif
