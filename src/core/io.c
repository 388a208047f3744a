/* The roles of tensors: shapes, layouts of a plan, and the check of a call. */
#include "core/io.h"

#include <inttypes.h>
#include <string.h>

#include "core/check.h"
#include "core/dtype.h"
#include "core/problem.h"
#include "core/status.h"
#include "core/tensor.h"
#include "core/text.h"

typedef enum grid_kind { OF_QUERIES, OF_KEYS, OF_EXTRA } grid_kind;
typedef enum dim_kind { HEAD_DIM, VALUE_DIM, NO_DIM, SLOTS } dim_kind;
typedef enum type_kind { INPUT_TYPE, OUTPUT_TYPE, LSE_TYPE } type_kind;

/* Whether a call reads or writes a role. Gradients are optional one by one. */
typedef enum use { UNUSED, READS, MAY_READ, WRITES, MAY_WRITE } use;

static const struct {
    const char *name;
    nf_direction direction; /* that the plan must include */
} operations[NF_OPERATIONS] = {
    [NF_FORWARD] = {"forward", NF_FWD},
    [NF_BACKWARD] = {"backward", NF_BWD},
    [NF_QK] = {"nf_qk", NF_FWD},
    [NF_AV] = {"nf_av", NF_FWD},
    [NF_QK_BACKWARD] = {"nf_qk_backward", NF_BWD},
    [NF_AV_BACKWARD] = {"nf_av_backward", NF_BWD},
};

static const struct {
    const char *name;
    grid_kind grid;
    dim_kind dim;
    type_kind type;
    use use[NF_OPERATIONS]; /* forward, backward, qk, av, qk_backward, av_backward */
} roles[NF_ROLES] = {
    [NF_Q] = {"q", OF_QUERIES, HEAD_DIM, INPUT_TYPE, {READS, READS, READS, UNUSED, READS}},
    [NF_K] = {"k", OF_KEYS, HEAD_DIM, INPUT_TYPE, {READS, READS, READS, UNUSED, READS}},
    [NF_V] = {"v", OF_KEYS, VALUE_DIM, INPUT_TYPE, {READS, READS, UNUSED, READS, UNUSED, READS}},
    [NF_EXTRA_K] = {"extra_k", OF_EXTRA, HEAD_DIM, INPUT_TYPE, {READS, READS, READS, UNUSED, READS}},
    [NF_EXTRA_V] = {"extra_v", OF_EXTRA, VALUE_DIM, INPUT_TYPE, {READS, READS, UNUSED, READS, UNUSED, READS}},
    [NF_BIAS] = {"bias", OF_QUERIES, NO_DIM, INPUT_TYPE, {UNUSED}},
    [NF_OUT] = {"out", OF_QUERIES, VALUE_DIM, OUTPUT_TYPE, {WRITES, READS, UNUSED, WRITES}},
    [NF_LSE] = {"lse", OF_QUERIES, NO_DIM, LSE_TYPE, {MAY_WRITE, READS}},
    [NF_DOUT] = {"dout", OF_QUERIES, VALUE_DIM, OUTPUT_TYPE, {UNUSED, READS, UNUSED, UNUSED, UNUSED, READS}},
    [NF_DLSE] = {"dlse", OF_QUERIES, NO_DIM, LSE_TYPE, {UNUSED, MAY_READ}},
    [NF_DQ] = {"dq", OF_QUERIES, HEAD_DIM, INPUT_TYPE, {UNUSED, MAY_WRITE, UNUSED, UNUSED, MAY_WRITE}},
    [NF_DK] = {"dk", OF_KEYS, HEAD_DIM, INPUT_TYPE, {UNUSED, MAY_WRITE, UNUSED, UNUSED, MAY_WRITE}},
    [NF_DV] = {"dv", OF_KEYS, VALUE_DIM, INPUT_TYPE, {UNUSED, MAY_WRITE, UNUSED, UNUSED, UNUSED, MAY_WRITE}},
    [NF_DEXTRA_K] = {"dextra_k", OF_EXTRA, HEAD_DIM, INPUT_TYPE, {UNUSED, MAY_WRITE, UNUSED, UNUSED, MAY_WRITE}},
    [NF_DEXTRA_V] = {"dextra_v", OF_EXTRA, VALUE_DIM, INPUT_TYPE,
                     {UNUSED, MAY_WRITE, UNUSED, UNUSED, UNUSED, MAY_WRITE}},
    [NF_SCORES] = {"scores", OF_QUERIES, SLOTS, LSE_TYPE, {UNUSED, UNUSED, WRITES, READS, UNUSED, READS}},
    [NF_DSCORES] = {"dscores", OF_QUERIES, SLOTS, LSE_TYPE, {UNUSED, UNUSED, UNUSED, UNUSED, READS, MAY_WRITE}},
};

const char *nf_operation_name(nf_operation operation)
{
    return operations[operation].name;
}

nf_direction nf_operation_direction(nf_operation operation)
{
    return operations[operation].direction;
}

bool nf_operation_writes(nf_operation operation, nf_role role)
{
    return roles[role].use[operation] >= WRITES;
}

const char *nf_role_name(nf_role role)
{
    return (unsigned)role < NF_ROLES ? roles[role].name : NULL;
}

void nf_io_init(nf_io *io)
{
    *io = (nf_io){.size = sizeof *io};
}

void nf_io_by_role(const nf_io *io, const nf_tensor *tensors[NF_ROLES])
{
    const nf_tensor *const members[NF_ROLES] = {
        [NF_Q] = io->q,
        [NF_K] = io->k,
        [NF_V] = io->v,
        [NF_EXTRA_K] = io->extra_k,
        [NF_EXTRA_V] = io->extra_v,
        [NF_BIAS] = io->bias,
        [NF_OUT] = io->out,
        [NF_LSE] = io->lse,
        [NF_DOUT] = io->dout,
        [NF_DLSE] = io->dlse,
        [NF_DQ] = io->dq,
        [NF_DK] = io->dk,
        [NF_DV] = io->dv,
        [NF_DEXTRA_K] = io->dextra_k,
        [NF_DEXTRA_V] = io->dextra_v,
        [NF_SCORES] = io->scores,
        [NF_DSCORES] = io->dscores,
    };
    memcpy(tensors, members, sizeof members);
}

/* Batch, axes and heads, in the order of the role, and the last dimension. Returns the rank. */
static int32_t list_extents(const nf_problem *p, nf_role role, int64_t *extents)
{
    const grid_kind grid = roles[role].grid;
    const dim_kind dim = roles[role].dim;
    const int64_t heads = grid == OF_QUERIES ? p->heads : p->kv_heads;
    int32_t rank = 0;
    extents[rank++] = p->batch;
    if (dim == SLOTS)
        extents[rank++] = heads;
    if (grid == OF_EXTRA)
        extents[rank++] = p->extra;
    else
        for (int32_t a = 0; a < p->rank; a++)
            extents[rank++] = grid == OF_QUERIES ? nf_axis_query_range(&p->axis[a]).count
                                                 : nf_axis_key_range(&p->axis[a]).count;
    if (dim != SLOTS)
        extents[rank++] = heads;
    if (dim == HEAD_DIM || dim == VALUE_DIM)
        extents[rank++] = dim == HEAD_DIM ? p->head_dim : p->value_dim;
    return rank;
}

/* Slots of a query, or -1 if they are too many to count. Extents alone bound no product of windows and queries. */
static int64_t count_slots(const nf_problem *p)
{
    int64_t slots = 1;
    for (int32_t a = 0; a < p->rank; a++)
        if (__builtin_mul_overflow(slots, nf_axis_window(&p->axis[a]), &slots))
            return -1;
    return __builtin_add_overflow(slots, p->extra, &slots) ? -1 : slots;
}

bool nf_role_describe(const nf_problem *p, nf_role role, nf_tensor *tensor)
{
    static const int64_t most = INT64_C(1) << 54; /* elements: 2^57 bytes of f64 */
    if (role == NF_BIAS || (roles[role].grid == OF_EXTRA && p->extra == 0))
        return false;
    nf_dtype dtype = roles[role].type == OUTPUT_TYPE ? p->out_dtype : p->dtype;
    if (roles[role].type == LSE_TYPE)
        dtype = p->dtype == NF_F64 ? NF_F64 : NF_F32;
    nf_tensor made = {.size = sizeof made, .dtype = dtype, .memory = NF_HOST};
    made.rank = list_extents(p, role, made.extents);
    if (roles[role].dim == SLOTS && (made.extents[made.rank++] = count_slots(p)) < 0)
        return false;
    int64_t stride = 1;
    for (int32_t i = made.rank - 1; i >= 0; i--) {
        made.strides[i] = stride;
        if (__builtin_mul_overflow(stride, made.extents[i], &stride) || (roles[role].dim == SLOTS && stride > most))
            return false;
    }
    *tensor = made;
    return true;
}

nf_status nf_problem_tensor(const nf_problem *problem, nf_role role, nf_tensor *tensor)
{
    const nf_status status = nf_problem_check(problem);
    if (status != NF_OK)
        return status;
    if (!tensor || !nf_role_name(role))
        return nf_fail(NF_ERR_ARGUMENT, tensor ? "role: %d is no nf_role" : "tensor: NULL for role %d", (int)role);
    nf_tensor made;
    if (!nf_role_describe(problem, role, &made))
        return nf_fail(NF_ERR_ARGUMENT, "role: the problem has no %s%s", roles[role].name,
                       role == NF_BIAS            ? ""
                       : roles[role].dim == SLOTS ? ", which would exceed 2^57 bytes"
                                                  : " without extra tokens");
    *tensor = made;
    return NF_OK;
}

static nf_status check_same_shape(const nf_tensor *tensor, const nf_tensor *wanted, const char *name, const char *whose)
{
    if (tensor->dtype != wanted->dtype)
        return nf_fail(NF_ERR_TENSOR, "%s: dtype is %s, %s %s", name, nf_dtype_name(tensor->dtype), whose,
                       nf_dtype_name(wanted->dtype));
    if (tensor->rank != wanted->rank)
        return nf_fail(NF_ERR_TENSOR, "%s: rank is %d, %s %d", name, (int)tensor->rank, whose, (int)wanted->rank);
    for (int32_t i = 0; i < wanted->rank; i++)
        if (tensor->extents[i] != wanted->extents[i])
            return nf_fail(NF_ERR_TENSOR, "%s: extent %d is %" PRId64 ", %s %" PRId64, name, (int)i, tensor->extents[i],
                           whose, wanted->extents[i]);
    return NF_OK;
}

/* Of some call that a plan allows. */
static bool is_output(nf_role role, nf_direction direction)
{
    for (int o = 0; o < NF_OPERATIONS; o++)
        if (direction & operations[o].direction && roles[role].use[o] >= WRITES)
            return true;
    return false;
}

static nf_status complete_role(nf_tensor *layout, const nf_problem *problem, nf_role role, const nf_tensor *given)
{
    const char *name = roles[role].name;
    const bool exists = nf_role_describe(problem, role, layout);
    if (!exists)
        layout->rank = 0;
    if (!given)
        return NF_OK;
    if (!exists)
        return nf_fail(NF_ERR_TENSOR, "%s: the problem has no such tensor", name);
    nf_status status = nf_tensor_check(given, name);
    if (status != NF_OK || (status = check_same_shape(given, layout, name, "the problem needs")) != NF_OK)
        return status;
    if (is_output(role, problem->direction) && nf_tensor_overlaps_itself(given))
        return nf_fail(NF_ERR_TENSOR, "%s: an output must not overlap itself, its strides make it", name);
    memcpy(layout->strides, given->strides, sizeof layout->strides);
    layout->memory = given->memory;
    return NF_OK;
}

nf_status nf_layout_complete(nf_tensor layout[NF_ROLES], const nf_problem *problem, const nf_io *given)
{
    const nf_tensor *tensors[NF_ROLES] = {NULL};
    if (given) {
        const nf_status status = nf_check_size(given, sizeof *given, "layout", "nf_io");
        if (status != NF_OK)
            return status;
        nf_io_by_role(given, tensors);
    }
    for (int role = 0; role < NF_ROLES; role++) {
        const nf_status status = complete_role(&layout[role], problem, (nf_role)role, tensors[role]);
        if (status != NF_OK)
            return status;
    }
    return NF_OK;
}

static nf_status fail_nothing_written(nf_operation operation)
{
    char names[128];
    nf_text text;
    nf_text_init(&text, names, sizeof names);
    for (int role = 0; role < NF_ROLES; role++)
        if (roles[role].use[operation] == MAY_WRITE)
            nf_text_printf(&text, "%s%s", text.length ? ", " : "", roles[role].name);
    return nf_fail(NF_ERR_TENSOR, "%s: at least one must be present", names);
}

static nf_status check_presence(const nf_tensor *const tensors[NF_ROLES], const nf_tensor layout[NF_ROLES],
                                nf_operation operation)
{
    bool writes = false;
    for (int role = 0; role < NF_ROLES; role++) {
        const use u = roles[role].use[operation];
        const char *name = roles[role].name;
        if (tensors[role] && layout[role].rank == 0)
            return nf_fail(NF_ERR_TENSOR, "%s: must be NULL, the problem has no such tensor", name);
        if (!tensors[role] && layout[role].rank && (u == READS || u == WRITES))
            return nf_fail(NF_ERR_TENSOR, "%s: NULL, but %s needs it", name, operations[operation].name);
        writes |= tensors[role] && u >= WRITES;
    }
    return writes ? NF_OK : fail_nothing_written(operation);
}

/* A stride along an extent of 1 says nothing. */
static nf_status check_as_planned(const nf_tensor *tensor, const nf_tensor *planned, const char *name)
{
    const nf_status status = check_same_shape(tensor, planned, name, "the plan was made for");
    if (status != NF_OK)
        return status;
    for (int32_t i = 0; i < planned->rank; i++)
        if (tensor->strides[i] != planned->strides[i] && planned->extents[i] > 1)
            return nf_fail(NF_ERR_TENSOR, "%s: stride %d is %" PRId64 ", the plan was made for %" PRId64, name, (int)i,
                           tensor->strides[i], planned->strides[i]);
    if (tensor->memory != planned->memory)
        return nf_fail(NF_ERR_TENSOR, "%s: memory is %s, the plan was made for %s", name,
                       nf_memory_name(tensor->memory), nf_memory_name(planned->memory));
    return NF_OK;
}

/* That no output overlaps itself was checked when the strides were planned. */
static nf_status check_overlap(const nf_tensor *const tensors[NF_ROLES], nf_operation operation, int output)
{
    for (int other = 0; other < NF_ROLES; other++) {
        const use u = roles[other].use[operation];
        if (!tensors[other] || u == UNUSED || other == output || (u >= WRITES && other > output))
            continue;
        if (nf_tensors_overlap(tensors[output], tensors[other]))
            return nf_fail(NF_ERR_TENSOR, "%s: an output must not overlap %s", roles[output].name, roles[other].name);
    }
    return NF_OK;
}

nf_status nf_call_check(const nf_tensor *const tensors[NF_ROLES], const nf_tensor layout[NF_ROLES],
                        nf_operation operation)
{
    nf_status status = check_presence(tensors, layout, operation);
    if (status != NF_OK)
        return status;
    for (int role = 0; role < NF_ROLES; role++) {
        if (!tensors[role] || roles[role].use[operation] == UNUSED)
            continue;
        if ((status = nf_tensor_check_data(tensors[role], roles[role].name)) != NF_OK ||
            (status = check_as_planned(tensors[role], &layout[role], roles[role].name)) != NF_OK)
            return status;
    }
    for (int role = 0; role < NF_ROLES; role++)
        if (tensors[role] && roles[role].use[operation] >= WRITES)
            if ((status = check_overlap(tensors, operation, role)) != NF_OK)
                return status;
    return NF_OK;
}
