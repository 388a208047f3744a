/* What the files of `nearfield verify` share. The checker uses the public interface of the library only; its masks,
 * conversions and computations are its own, so that a mistake of the library cannot hide in them. */
#ifndef NF_TOOL_VERIFY_H
#define NF_TOOL_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "nearfield.h"

/* ---- verify_random.c: a seeded stream, and memory that is there or the program ends ------------------------------ */

typedef struct verify_random {
    uint64_t state;
} verify_random;

/* Streams of one seed with different purposes are independent. */
verify_random verify_random_stream(uint64_t seed, uint64_t purpose);
uint64_t verify_random_next(verify_random *random);
int64_t verify_random_below(verify_random *random, int64_t bound);
int64_t verify_random_between(verify_random *random, int64_t low, int64_t high);
bool verify_random_chance(verify_random *random, int percent);
double verify_random_uniform(verify_random *random);
double verify_random_normal(verify_random *random);

/* Zeroed; at least one byte. */
void *verify_alloc(int64_t count, size_t size);

/* ---- verify_dtype.c: element types ------------------------------------------------------------------------------- */

double verify_read(nf_dtype dtype, const void *element);
void verify_write(nf_dtype dtype, void *element, double value);
/* The nearest value of the type, as a double. */
double verify_round(nf_dtype dtype, double value);
/* Distance from 1 to the next value, and the greatest finite value. */
double verify_epsilon(nf_dtype dtype);
double verify_largest(nf_dtype dtype);
/* The type sums are kept in, and the type of lse. */
nf_dtype verify_working(nf_dtype dtype);
/* The bits that mark memory nobody has written: a quiet NaN that no computation makes. */
uint64_t verify_poison(nf_dtype dtype);

/* ---- verify_mask.c: who sees whom -------------------------------------------------------------------------------- */

/* Keys of one query on one axis: tensor indices first, first + step, ... */
typedef struct verify_keys {
    int64_t first, count, step;
} verify_keys;

typedef struct verify_mask {
    int32_t rank;
    int64_t q_count[NF_MAX_RANK], k_count[NF_MAX_RANK];
    int64_t queries, keys; /* products of the above */
    int64_t longest;       /* keys of the row that sees most */
    double pairs;
    verify_keys *axis[NF_MAX_RANK];
} verify_mask;

void verify_mask_create(verify_mask *mask, const nf_problem *problem);
void verify_mask_destroy(verify_mask *mask);
/* Flat tensor indices of the keys of a query, row-major, into keys unless it is NULL; returns how many. */
int64_t verify_mask_row(const verify_mask *mask, int64_t query, int64_t *keys);
bool verify_mask_sees(const verify_mask *mask, int64_t query, int64_t key);
/* Multiply-adds of one forward over all batches and heads: what a check of the problem costs. */
double verify_cost(const nf_problem *problem);

/* ---- verify_values.c: the tensors of a problem as plain numbers -------------------------------------------------- */

/* Contiguous, heads-last; tokens is the product of the axes. data is NULL where the problem has no such tensor. */
typedef struct verify_array {
    double *data;
    int64_t batch, tokens, heads, dim, count;
    nf_tensor shape;
} verify_array;

typedef struct verify_values {
    verify_array role[NF_ROLES];
} verify_values;

void verify_values_create(verify_values *values, const nf_problem *problem);
void verify_values_destroy(verify_values *values);
/* Same problem, same numbers. */
void verify_values_copy(verify_values *values, const verify_values *from);
/* The channels of one (batch, token, head). */
static inline double *verify_row(const verify_array *array, int64_t batch, int64_t token, int64_t head)
{
    return array->data + ((batch * array->tokens + token) * array->heads + head) * array->dim;
}
static inline bool verify_is_gradient(int role) { return role >= NF_DQ && role <= NF_DEXTRA_V; }

/* ---- verify_data.c: what the tensors hold ------------------------------------------------------------------------ */

typedef enum verify_kind {
    VERIFY_NORMAL,     /* N(0,1) */
    VERIFY_LARGE,      /* scores up to 1e4 */
    VERIFY_DOMINANT,   /* one key takes almost all the weight */
    VERIFY_EQUAL,      /* all queries, all keys and maybe all values the same */
    VERIFY_DENORMAL,   /* subnormal queries against huge keys */
    VERIFY_ZERO,       /* zeros of both signs among ordinary numbers */
    VERIFY_POISON,     /* NaN or infinity in a few keys and values */
    VERIFY_KINDS
} verify_kind;

const char *verify_kind_name(verify_kind kind);
/* Fills the inputs, dout and dlse with values their types can hold. */
void verify_fill(verify_values *values, const nf_problem *problem, verify_kind kind, verify_random *random);
/* Fills them with N(0,1), whatever the seed's case would say. */
void verify_fill_normal(verify_values *values, const nf_problem *problem, uint64_t seed);

/* ---- verify_layout.c, verify_buffer.c: the same tensors as strided, guarded, poisoned memory --------------------- */

typedef enum verify_layout {
    VERIFY_CONTIGUOUS,
    VERIFY_HEADS_FIRST, /* [batch, heads, axes..., dim] */
    VERIFY_PACKED,      /* q, k and v (or k and v) interleaved in one buffer, and their gradients in another */
    VERIFY_PADDED,      /* gaps behind every dimension */
    VERIFY_PERMUTED,    /* dimensions in any order */
    VERIFY_NEGATIVE,    /* some dimensions backwards, some permuted */
    VERIFY_BROADCAST,   /* inputs repeat along a dimension (stride 0) */
    VERIFY_LAYOUTS,
    VERIFY_FAR = VERIFY_LAYOUTS /* one dimension reaches beyond 2^32 elements; never drawn by chance */
} verify_layout;

const char *verify_layout_name(verify_layout layout);
/* Chooses strides; returns the elements spanned and stores where element [0, 0, ...] lies in the span. */
int64_t verify_layout_strides(nf_tensor *tensor, int role, verify_layout layout, int far_dimension,
                              verify_random *random, int64_t *origin);
/* True if this machine grants a sparse mapping of so many bytes. */
bool verify_far_possible(size_t bytes);

typedef struct verify_block {
    unsigned char *memory;
    int64_t count;     /* elements, guards included */
    nf_dtype dtype;
    uint64_t checksum; /* of an input's bytes */
    bool is_far;       /* a sparse mapping, too large to poison, guard or sum */
} verify_block;

typedef struct verify_buffers {
    nf_tensor tensor[NF_ROLES]; /* data NULL: absent */
    int block_of[NF_ROLES];
    verify_block block[NF_ROLES];
} verify_buffers;

/* Buffers for the roles whose bit is set; everything in them is poison. */
void verify_buffers_create(verify_buffers *buffers, const verify_values *values, unsigned roles, verify_layout layout,
                           verify_random *random);
void verify_buffers_destroy(verify_buffers *buffers);
/* Writes the values, then reads them back into values: a broadcast dimension has made some of them equal. */
void verify_buffers_store(verify_buffers *buffers, verify_values *values, int role);
void verify_buffers_load(const verify_buffers *buffers, verify_values *values, int role);
/* Elements of the role that still are poison, and elements around its block's tensors that no longer are. */
int64_t verify_buffers_unwritten(const verify_buffers *buffers, int role);
int64_t verify_buffers_trespassed(const verify_buffers *buffers, int role);
/* Remembers an input's bytes; tells whether they are still the same. */
void verify_buffers_seal(verify_buffers *buffers, int role);
bool verify_buffers_unchanged(const verify_buffers *buffers, int role);
void verify_buffers_io(const verify_buffers *buffers, nf_io *io, unsigned roles);

/* ---- verify_run.c: one execution through the public interface ---------------------------------------------------- */

typedef enum verify_outcome { VERIFY_PASS, VERIFY_FAIL, VERIFY_SKIP } verify_outcome;

enum { VERIFY_THREAD_COUNTS = 5 };
extern const int64_t verify_thread_counts[VERIFY_THREAD_COUNTS];

/* What is under test, and what it is judged against. */
typedef struct verify_engine {
    nf_context *context, *truth;
    nf_context *with_threads[VERIFY_THREAD_COUNTS];
    const char *backend, *algo; /* as asked for; NULL: the library's choice */
    int64_t threads;
    bool is_reference; /* the backend under test is the reference: the checker's own computation is the truth */
    bool must_run;     /* the backend may refuse no valid problem */
    double affordable; /* greatest verify_cost of an identity's problem */
} verify_engine;

/* How one execution is made. */
typedef struct verify_call {
    nf_context *context;
    const char *backend, *algo;
    verify_layout layout;
    uint64_t seed;      /* of the strides */
    bool lse, dlse;     /* lse asked for by forward; its gradient given to backward */
    unsigned gradients; /* bits of the gradient roles asked for */
} verify_call;

verify_call verify_call_plain(const verify_engine *engine); /* contiguous, everything asked for */

#define VERIFY_WHY 400
/* Runs the direction of the problem (backward alone gets out and lse from a forward of the same kind) and leaves the
 * outputs in values. Inputs may be changed by a broadcast layout. On VERIFY_FAIL and VERIFY_SKIP why says it. */
verify_outcome verify_execute(const verify_call *call, const nf_problem *problem, verify_values *values, char *why);
/* The same, and a refusal of a backend that must run is a failure. */
verify_outcome verify_under_test(const verify_engine *engine, const verify_call *call, const nf_problem *problem,
                                 verify_values *values, char *why);

/* ---- verify_plain.c: the unfused computation, and how much rounding an element can suffer ------------------------ */

typedef struct verify_plain_options {
    nf_dtype working;  /* NF_F32 or NF_F64 */
    bool exact;        /* keep results unrounded: the truth */
    bool reversed;     /* sum everything in the opposite order */
    bool dlse;
} verify_plain_options;

/* Fills the outputs of result from its inputs; unit gets the rounding unit of every output element (verify_plain.c),
 * and score_size the greatest |score|, or a hundredth of the size before cancellation if that is more. */
void verify_plain(const nf_problem *problem, const verify_mask *mask, const verify_plain_options *options,
                  verify_values *result, verify_values *unit, double *score_size);

/* ---- verify_rule.c: the differential rule ------------------------------------------------------------------------ */

typedef struct verify_judge {
    const nf_problem *problem;
    const verify_values *truth, *plain, *unit;
    double score_size;     /* from verify_plain */
    bool well_conditioned; /* ordinary data: the norm-wise rule applies too */
    int64_t equal_terms; /* of the longest sum, if all its terms may be equal; else 0 */
    double worst;        /* greatest error that has passed so far, in units of its bound */
} verify_judge;

/* True if fast passes in this role; else why names rule, place, error and bound. Raises worst. */
bool verify_judge_role(verify_judge *judge, int role, const verify_array *fast, char *why);

/* ---- verify_case.c: random problems, and how a seed runs one ----------------------------------------------------- */

typedef struct verify_case {
    nf_problem problem;
    uint64_t seed;
    verify_kind kind;
    verify_call call;
} verify_case;

void verify_generate(nf_problem *problem, uint64_t seed);
/* A cheaper problem, for laws that run it several times. */
void verify_generate_cheap(nf_problem *problem, uint64_t seed);
/* Everything else about a case follows from its seed: data, strides, which outputs are asked for. */
void verify_case_derive(verify_case *verify, const verify_engine *engine, const nf_problem *problem, uint64_t seed);
/* worst, if not NULL, is raised to the greatest error that passed, in units of its bound. */
verify_outcome verify_case_run(const verify_engine *engine, const verify_case *verify, double *worst, char *why);
/* Fewer queries, so that the reference can follow: some window of each axis, drawn from the seed. */
void verify_restrict_queries(nf_problem *problem, uint64_t seed);

/* ---- verify_crash.c: a check that ends the program still leaves a line ------------------------------------------- */

#define VERIFY_COMMAND 700
/* From now on a crash prints what is being checked and the totals of a failure, and exits as failed. */
void verify_watch_crashes(void);
/* Names what is being checked. */
void verify_watch(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *verify_watched(void);

/* ---- verify_identity*.c: laws that need no truth ----------------------------------------------------------------- */

/* VERIFY_SKIP with an empty why: the problem, even changed, cannot show this law or costs too much. */
typedef struct verify_identity {
    const char *name;
    verify_outcome (*check)(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why);
} verify_identity;

/* Each ends with a NULL name. */
extern const verify_identity verify_identities_mask[], verify_identities_keys[], verify_identities_algebra[],
    verify_identities_repeat[], verify_identities_far[];
/* Over all of them; NULL past the last. */
const verify_identity *verify_identity_at(int index);

/* The problem made fit for a law: forward and backward, scores of ordinary size, a cost that can be afforded at least
 * after giving up channels, heads and batches; false if it cannot. */
bool verify_tame(const verify_engine *engine, nf_problem *problem);
/* Whole ranges, no cross attention. */
void verify_make_whole(nf_problem *problem);
/* Runs a problem contiguously with everything asked for, on inputs that are there. */
verify_outcome verify_trial(const verify_engine *engine, const nf_problem *problem, verify_values *values, bool dlse,
                            char *why);
/* The same on N(0,1) of this seed, in values that it creates. */
verify_outcome verify_normal_trial(const verify_engine *engine, const nf_problem *problem, uint64_t seed, bool dlse,
                                   verify_values *values, char *why);

/* How far equal results of differently ordered sums may be apart, relative to the greater of 1 and the largest. */
double verify_tolerance(const nf_problem *problem);
/* Compares all, or one row of dim elements; tolerance 0 means bitwise. False, and why, if they differ. */
bool verify_same(const verify_array *a, const verify_array *b, double tolerance, const char *name, char *why);
bool verify_same_rows(const double *a, const double *b, int64_t dim, double tolerance);
/* Compares the outputs of two runs role by role. */
bool verify_same_outputs(const verify_values *a, const verify_values *b, double tolerance, char *why);
/* Copies tokens of every batch: to's t-th is from's map[t]-th. */
void verify_take_tokens(verify_array *to, const verify_array *from, const int64_t *map);
void verify_copy_array(verify_array *to, const verify_array *from);
void verify_add_array(verify_array *sum, const verify_array *term);
double verify_scale(const nf_problem *problem);

#endif
