/* The reference backend: plain loops in double, the truth that every other algorithm is judged by; f64 in long double,
 * as a truth in double would be off by as much as what it judges. It shares no mask code with them: which keys a query
 * sees comes from reference_keys.c, straight from the formulas of doc/semantics.md. */
#ifndef NF_REFERENCE_H
#define NF_REFERENCE_H

#include "core/backend.h"
#include "core/dtype.h"

/* What a problem is computed in, below. */
typedef struct ref_arithmetic ref_arithmetic;

/* What prepare makes. */
typedef struct ref_plan {
    const nf_request *request;
    const ref_arithmetic *arithmetic;
    double scale;
    double pairs;     /* visible (query, key) pairs of one batch and head, extra tokens included */
    int64_t keys;     /* grid keys that tensors hold; extra tokens are numbered after them */
    int64_t row_keys; /* most keys that one query sees, extra tokens included */
    bool gradients;   /* slots have room for dk and dv */
    size_t slot_bytes;
    int slots; /* (batch, kv head) pairs worked on at once */
} ref_plan;

/* ---- reference_keys.c: visibility ------------------------------------------------------------------------------- */

/* The keys one query sees, one at a time, last axis fastest. Indices are those of the key tensors. */
typedef struct ref_walk {
    int32_t rank;
    int64_t count[NF_MAX_RANK]; /* keys that tensors hold, per axis */
    int64_t begin[NF_MAX_RANK], end[NF_MAX_RANK], step[NF_MAX_RANK];
    int64_t at[NF_MAX_RANK];
} ref_walk;

/* Both return whether there is a key at walk->at. query: index in the query tensors. */
bool ref_walk_start(ref_walk *walk, const nf_problem *problem, const int64_t *query);
bool ref_walk_next(ref_walk *walk);
/* Row-major number of the current key. */
int64_t ref_walk_number(const ref_walk *walk);

/* Visible pairs of the grid, and the most keys that one query sees. */
void ref_count_pairs(const nf_problem *problem, double *pairs, int64_t *most);

/* index = number, row-major, over the queries (keys) that tensors hold; and how many there are. */
void ref_query_index(const nf_problem *problem, int64_t number, int64_t *index);
void ref_key_index(const nf_problem *problem, int64_t number, int64_t *index);
int64_t ref_queries(const nf_problem *problem);
int64_t ref_keys(const nf_problem *problem);

/* ---- reference_rows.c: elements --------------------------------------------------------------------------------- */

/* The vector of one token and head: elements of a tensor's last dimension. */
typedef struct ref_row {
    char *data;
    int64_t stride;
    nf_dtype dtype;
} ref_row;

/* Row of tensor [batch, axes..., head, dim]; a single element if the tensor ends at head. */
ref_row ref_row_at(const nf_tensor *tensor, int64_t batch, int32_t axes, const int64_t *index, int64_t head);

static inline double ref_load(ref_row row, int64_t i)
{
    const int64_t at = i * row.stride;
    switch (row.dtype) {
    case NF_F64:
        return ((const double *)(const void *)row.data)[at];
    case NF_BF16:
        return (double)nf_bf16_to_f32(((const uint16_t *)(const void *)row.data)[at]);
    case NF_F16:
        return (double)nf_f16_to_f32(((const uint16_t *)(const void *)row.data)[at]);
    case NF_F32:
    default:
        return (double)((const float *)(const void *)row.data)[at];
    }
}

static inline void ref_store(ref_row row, int64_t i, double value)
{
    const int64_t at = i * row.stride;
    switch (row.dtype) {
    case NF_F64:
        ((double *)(void *)row.data)[at] = value;
        break;
    case NF_BF16:
        ((uint16_t *)(void *)row.data)[at] = nf_f64_to_bf16(value);
        break;
    case NF_F16:
        ((uint16_t *)(void *)row.data)[at] = nf_f64_to_f16(value);
        break;
    case NF_F32:
    default:
        ((float *)(void *)row.data)[at] = (float)value;
    }
}

/* ---- reference_double.c, reference_long_double.c: attention ------------------------------------------------------ */

typedef struct ref_call {
    const ref_plan *plan;
    const nf_problem *problem;
    const nf_tensor *const *io;
} ref_call;

/* All queries of the heads that read one kv head. memory: slot_bytes of the plan. */
typedef void ref_item(const ref_call *call, void *memory, int64_t batch, int64_t kv_head);

struct ref_arithmetic {
    const char *name;
    size_t real_bytes, pair_bytes; /* of a number, and of what is known of a key that a query sees */
    ref_item *forward, *backward;
};

extern const ref_arithmetic ref_double, ref_long_double;

#endif
