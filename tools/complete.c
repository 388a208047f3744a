/* A problem string completed with the sizes and the type of the arrays it is run on. */
#include "complete.h"

#include <stdio.h>
#include <string.h>

/* A size, and who said so: PROBLEM or a file; NULL while nobody has. */
typedef struct fact {
    int64_t value;
    const char *source;
} fact;

typedef struct facts {
    fact batch, heads, kv_heads, head_dim, value_dim, extra, q_axis[NF_MAX_RANK], k_axis[NF_MAX_RANK];
    bool one_grid; /* queries and keys have the same axes; read q_axis for both */
} facts;

enum { MAX_DIMS = NF_MAX_TENSOR_RANK };

/* One dimension of an array: the fact it states, its name, and the axis if it is one, else -1. */
typedef struct dimension {
    fact *fact;
    const char *name;
    int axis;
} dimension;

/* Looks for a word of text that equals word, or, with digits, one that is word followed by a digit. */
static bool says(const char *text, const char *word, bool digits)
{
    const size_t length = strlen(word);
    for (const char *at = text + strspn(text, " \t"); *at; at += strspn(at, " \t")) {
        const size_t size = strcspn(at, " \t");
        if (size >= length && memcmp(at, word, length) == 0 &&
            (digits ? size > length && at[length] >= '0' && at[length] <= '9' : size == length))
            return true;
        at += size;
    }
    return false;
}

static bool says_type(const char *text)
{
    return says(text, "f32", false) || says(text, "f64", false) || says(text, "bf16", false) ||
           says(text, "f16", false);
}

static bool is_of_keys(nf_role role)
{
    return role == NF_K || role == NF_V;
}

/* The dimensions an array has in a role, batch first. */
static int list_dimensions(facts *f, const nf_problem *problem, nf_role role, dimension list[MAX_DIMS])
{
    int count = 0;
    list[count++] = (dimension){&f->batch, "batch", -1};
    if (role == NF_EXTRA_K || role == NF_EXTRA_V) {
        list[count++] = (dimension){&f->extra, "extra tokens", -1};
    } else {
        for (int a = 0; a < problem->rank; a++)
            list[count++] = is_of_keys(role) && !f->one_grid ? (dimension){&f->k_axis[a], "keys on axis", a}
                                                             : (dimension){&f->q_axis[a], "extent of axis", a};
    }
    const bool of_heads = role == NF_Q || role == NF_DOUT || role == NF_DLSE;
    list[count++] = of_heads ? (dimension){&f->heads, "heads", -1} : (dimension){&f->kv_heads, "key/value heads", -1};
    if (role == NF_Q || role == NF_K || role == NF_EXTRA_K)
        list[count++] = (dimension){&f->head_dim, "head_dim", -1};
    else if (role != NF_DLSE)
        list[count++] = (dimension){&f->value_dim, "value_dim", -1};
    return count;
}

static int settle(const char *command, const dimension *d, int64_t value, const char *source)
{
    char name[32];
    snprintf(name, sizeof(name), d->axis >= 0 ? "%s %d" : "%s", d->name, d->axis);
    if (value == 0)
        return nf_tool_error(command, "%s: %s is 0, must be at least 1", source, name);
    if (d->fact->source && d->fact->value != value)
        return nf_tool_error(command, "%s: %s says %lld, %s has %lld", name, d->fact->source,
                             (long long)d->fact->value, source, (long long)value);
    if (!d->fact->source)
        *d->fact = (fact){value, source};
    return NF_TOOL_OK;
}

static int settle_array(const char *command, facts *f, const nf_problem *problem, nf_role role,
                        const nf_tool_array *array)
{
    dimension list[MAX_DIMS];
    const int count = list_dimensions(f, problem, role, list), rank = array->npy.rank;
    if (rank != count && rank != count - 1)
        return nf_tool_error(command, "%s: has %d dimensions; %s of a na%dd problem has %d, or %d without batch",
                             array->path, rank, nf_role_name(role), (int)problem->rank, count, count - 1);
    if (rank == count - 1 && settle(command, &list[0], 1, array->path))
        return NF_TOOL_BAD;
    for (int i = 0; i < rank; i++)
        if (settle(command, &list[count - rank + i], array->npy.extents[i], array->path))
            return NF_TOOL_BAD;
    return NF_TOOL_OK;
}

static npy_type storage_of(nf_dtype dtype)
{
    return dtype == NF_F32 ? NPY_F4 : dtype == NF_F64 ? NPY_F8 : dtype == NF_F16 ? NPY_F2 : NPY_U2;
}

static int check_type(const char *command, const nf_tool_array *array, nf_role role, nf_dtype dtype, bool stated)
{
    const npy_type wanted = storage_of(dtype);
    if (array->npy.type == wanted)
        return NF_TOOL_OK;
    return nf_tool_error(command, "%s: holds '%s', but %s of %s %s is '%s'", array->path,
                         npy_type_name(array->npy.type), nf_role_name(role),
                         stated ? "a PROBLEM that says" : "type", nf_dtype_name(dtype), npy_type_name(wanted));
}

static int settle_types(const char *command, const char *text, const nf_tool_array arrays[NF_ROLES],
                        nf_problem *problem)
{
    const bool stated = says_type(text);
    if (!stated) {
        const npy_type type = arrays[NF_Q].npy.type;
        if (type == NPY_U2)
            return nf_tool_error(command, "%s: holds '<u2', which is read as bf16 only where PROBLEM says bf16",
                                 arrays[NF_Q].path);
        problem->dtype = type == NPY_F4 ? NF_F32 : type == NPY_F8 ? NF_F64 : NF_F16;
        if (!strstr(text, "out="))
            problem->out_dtype = problem->dtype;
    }
    for (int role = 0; role < NF_ROLES; role++) {
        const nf_dtype dtype = role == NF_DOUT  ? problem->out_dtype
                               : role == NF_DLSE ? (problem->dtype == NF_F64 ? NF_F64 : NF_F32)
                                                 : problem->dtype;
        if (arrays[role].npy.data && check_type(command, &arrays[role], (nf_role)role, dtype, stated))
            return NF_TOOL_BAD;
    }
    return NF_TOOL_OK;
}

static bool is_cross(const nf_axis *axis)
{
    return axis->key_extent != 0 && axis->key_extent != axis->extent;
}

/* What the text itself says about one axis. */
static void read_axis(const nf_axis *axis, fact *queries, fact *keys)
{
    const int64_t key_extent = axis->key_extent ? axis->key_extent : axis->extent;
    const int64_t rest = is_cross(axis) ? axis->extent : axis->extent - axis->q_begin;
    *queries = (fact){axis->q_count ? axis->q_count : rest, "PROBLEM"};
    *keys = (fact){axis->k_count ? axis->k_count : key_extent - axis->k_begin, "PROBLEM"};
}

/* What the text says; the rules that need no file are checked first, so that ranges can be trusted. */
static int read_text(const char *command, const char *text, nf_problem *problem, facts *f)
{
    if (nf_problem_parse(problem, text) != NF_OK)
        return nf_tool_fail_status(command, "PROBLEM");
    *f = (facts){.one_grid = !problem->axis[0].extent && !(problem->rank == 1 && problem->axis[0].window == 0)};
    const nf_problem *p = problem;
    f->batch = says(text, "b", true) ? (fact){p->batch, "PROBLEM"} : (fact){0};
    f->heads = says(text, "h", true) ? (fact){p->heads, "PROBLEM"} : (fact){0};
    f->kv_heads = f->heads.source ? (fact){p->kv_heads, "PROBLEM"} : (fact){0};
    f->head_dim = p->head_dim ? (fact){p->head_dim, "PROBLEM"} : (fact){0};
    f->value_dim = p->value_dim ? (fact){p->value_dim, "PROBLEM"} : (fact){0};
    f->extra = says(text, "x", true) ? (fact){p->extra, "PROBLEM"} : (fact){0};
    if (p->axis[0].extent) {
        nf_problem probe = *problem;
        probe.head_dim = p->head_dim ? p->head_dim : 1;
        probe.value_dim = p->value_dim ? p->value_dim : 1;
        if (nf_problem_check(&probe) != NF_OK)
            return nf_tool_fail_status(command, "PROBLEM");
        for (int a = 0; a < p->rank; a++)
            read_axis(&p->axis[a], &f->q_axis[a], &f->k_axis[a]);
        return NF_TOOL_OK;
    }
    for (int a = 0; a < p->rank; a++)
        if (p->axis[a].q_begin || p->axis[a].q_count || p->axis[a].k_begin || p->axis[a].k_count)
            return nf_tool_error(command, "PROBLEM: states a query or key range, so it must state the extents too");
    return NF_TOOL_OK;
}

static int check_direction(const char *command, const char *text, nf_direction direction)
{
    if (direction == NF_FWD && (says(text, "bwd", false) || says(text, "both", false)))
        return nf_tool_error(command, "PROBLEM says %s, which needs --dout", says(text, "bwd", false) ? "bwd" : "both");
    if (direction != NF_FWD && says(text, "fwd", false))
        return nf_tool_error(command, "PROBLEM says fwd, but --dout asks for gradients too");
    return NF_TOOL_OK;
}

/* Extra tokens are stated by the text, by two files, or by neither. */
static int check_extra(const char *command, const nf_tool_array arrays[NF_ROLES], const fact *extra)
{
    const bool present = arrays[NF_EXTRA_K].path;
    if (!present && extra->value > 0)
        return nf_tool_error(command, "PROBLEM says x%lld: --extra-k and --extra-v are needed",
                             (long long)extra->value);
    return NF_TOOL_OK;
}

int nf_tool_complete(const char *command, const char *text, const nf_tool_array arrays[NF_ROLES],
                     nf_direction direction, nf_problem *problem)
{
    facts f;
    if (read_text(command, text, problem, &f) || check_direction(command, text, direction) ||
        settle_types(command, text, arrays, problem))
        return NF_TOOL_BAD;
    for (int role = 0; role < NF_ROLES; role++)
        if (arrays[role].npy.data && settle_array(command, &f, problem, (nf_role)role, &arrays[role]))
            return NF_TOOL_BAD;
    if (check_extra(command, arrays, &f.extra))
        return NF_TOOL_BAD;
    problem->direction = direction;
    problem->batch = f.batch.value;
    problem->heads = f.heads.value;
    problem->kv_heads = f.kv_heads.value;
    problem->head_dim = f.head_dim.value;
    problem->value_dim = f.value_dim.value;
    problem->extra = f.extra.value;
    for (int a = 0; a < problem->rank && !problem->axis[a].extent; a++) {
        problem->axis[a].extent = f.q_axis[a].value;
        problem->axis[a].key_extent =
            !f.one_grid && f.k_axis[a].value != f.q_axis[a].value ? f.k_axis[a].value : 0;
    }
    return nf_problem_check(problem) == NF_OK ? NF_TOOL_OK : nf_tool_fail_status(command, "PROBLEM");
}

nf_status nf_tool_array_tensor(const nf_problem *problem, nf_role role, const struct npy *npy, nf_tensor *tensor)
{
    const nf_status status = nf_problem_tensor(problem, role, tensor);
    if (status != NF_OK)
        return status;
    const int skipped = tensor->rank - npy->rank; /* 1 if the array has no batch dimension */
    for (int i = 0; i < npy->rank; i++)
        tensor->strides[skipped + i] = npy->strides[i];
    if (skipped)
        tensor->strides[0] = npy->count;
    tensor->data = (void *)npy->data;
    return NF_OK;
}
