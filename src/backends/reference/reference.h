/* The reference backend: plain loops in long double, the truth that every other algorithm is judged by. It shares no
 * mask code with them: which keys a query sees comes from reference_keys.c, straight from the formulas of
 * doc/semantics.md. */
#ifndef NF_REFERENCE_H
#define NF_REFERENCE_H

#include "core/backend.h"

/* What everything is computed in: where compilers have one, a type wider than double, whose truth is else off by as
 * much as what it judges. */
typedef long double ref_real;

/* What prepare makes. */
typedef struct ref_plan {
    const nf_request *request;
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
void ref_read(ref_row row, int64_t count, ref_real *to);
void ref_write(ref_row row, int64_t count, const ref_real *from);

static inline ref_real ref_dot(const ref_real *a, const ref_real *b, int64_t count)
{
    ref_real sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

static inline void ref_add_scaled(ref_real *to, ref_real factor, const ref_real *from, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        to[i] += factor * from[i];
}

/* ---- reference_forward.c, reference_backward.c ------------------------------------------------------------------ */

/* A key that a query sees: its number, its vectors, and p, first its score, then its probability. */
typedef struct ref_pair {
    int64_t key;
    ref_row k, v;
    ref_real p;
} ref_pair;

/* One worker's part of the workspace, and the query it works on. */
typedef struct ref_slot {
    ref_pair *pairs;
    int64_t pair_count;
    ref_real *q, *k, *dq;     /* [head_dim] */
    ref_real *v, *out, *dout; /* [value_dim] */
    ref_real lse;
    ref_real *dk, *dv; /* [keys + extra, head_dim], [keys + extra, value_dim]: of one kv head */
} ref_slot;

typedef struct ref_call {
    const ref_plan *plan;
    const nf_problem *problem;
    const nf_tensor *const *io;
} ref_call;

/* Fills pairs, q, out and lse of a slot for one query. */
void ref_attend(const ref_call *call, ref_slot *slot, int64_t batch, int64_t head, const int64_t *query);

/* All queries of the heads that read one kv head. */
void ref_forward(const ref_call *call, ref_slot *slot, int64_t batch, int64_t kv_head);
void ref_backward(const ref_call *call, ref_slot *slot, int64_t batch, int64_t kv_head);

#endif
