/* nearfield run - attention forward and backward on NumPy files. Nothing is written unless everything succeeded. */
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "args.h"
#include "complete.h"
#include "npy.h"

static const char *const self = "run";

/* How a role is named on the command line, and whether its file is read or written. */
static const struct {
    const char *option;
    bool input;
} files[NF_ROLES] = {
    [NF_Q] = {"--q", true},
    [NF_K] = {"--k", true},
    [NF_V] = {"--v", true},
    [NF_EXTRA_K] = {"--extra-k", true},
    [NF_EXTRA_V] = {"--extra-v", true},
    [NF_OUT] = {"--out", false},
    [NF_LSE] = {"--lse", false},
    [NF_DOUT] = {"--dout", true},
    [NF_DLSE] = {"--dlse", true},
    [NF_DQ] = {"--dq", false},
    [NF_DK] = {"--dk", false},
    [NF_DV] = {"--dv", false},
    [NF_DEXTRA_K] = {"--dextra-k", false},
    [NF_DEXTRA_V] = {"--dextra-v", false},
};

typedef struct run {
    const char *problem_text, *backend, *algo;
    int64_t threads;
    nf_tool_array arrays[NF_ROLES]; /* paths of all files, contents of the inputs */
    nf_problem problem;
    nf_tensor tensors[NF_ROLES];
    void *buffers[NF_ROLES]; /* of the outputs */
    nf_io io;
} run;

static int parse(run *r, int argc, char **argv)
{
    nf_tool_array *const a = r->arrays;
    const nf_tool_option options[] = {
        {"q", NF_TOOL_STRING, &a[NF_Q].path, .value = "FILE", .help = "queries [batch, axes..., heads, head_dim]"},
        {"k", NF_TOOL_STRING, &a[NF_K].path, .value = "FILE", .help = "keys [batch, axes..., kv_heads, head_dim]"},
        {"v", NF_TOOL_STRING, &a[NF_V].path, .value = "FILE", .help = "values [batch, axes..., kv_heads, value_dim]"},
        {"extra-k", NF_TOOL_STRING, &a[NF_EXTRA_K].path, .value = "FILE",
         .help = "keys all queries see [batch, extra, kv_heads, head_dim]"},
        {"extra-v", NF_TOOL_STRING, &a[NF_EXTRA_V].path, .value = "FILE", .help = "and their values"},
        {"dout", NF_TOOL_STRING, &a[NF_DOUT].path, .value = "FILE", .help = "gradient of out; asks for backward"},
        {"dlse", NF_TOOL_STRING, &a[NF_DLSE].path, .value = "FILE", .help = "gradient of lse [batch, axes..., heads]"},
        {"out", NF_TOOL_STRING, &a[NF_OUT].path, .value = "FILE", .help = "write the result"},
        {"lse", NF_TOOL_STRING, &a[NF_LSE].path, .value = "FILE", .help = "write the log of the sum of exponentials"},
        {"dq", NF_TOOL_STRING, &a[NF_DQ].path, .value = "FILE", .help = "write the gradient of q"},
        {"dk", NF_TOOL_STRING, &a[NF_DK].path, .value = "FILE", .help = "write the gradient of k"},
        {"dv", NF_TOOL_STRING, &a[NF_DV].path, .value = "FILE", .help = "write the gradient of v"},
        {"dextra-k", NF_TOOL_STRING, &a[NF_DEXTRA_K].path, .value = "FILE", .help = "write the gradient of extra-k"},
        {"dextra-v", NF_TOOL_STRING, &a[NF_DEXTRA_V].path, .value = "FILE", .help = "write the gradient of extra-v"},
        {"backend", NF_TOOL_STRING, &r->backend, .value = "NAME", .help = "as NEARFIELD_BACKEND"},
        {"algo", NF_TOOL_STRING, &r->algo, .value = "NAME", .help = "use only this algorithm"},
        {"threads", NF_TOOL_INT, &r->threads, .value = "N", .help = "threads to use", .minimum = 1, .maximum = 4096},
        {0}};
    const nf_tool_command command = {
        .name = self, .words = "PROBLEM", .min_words = 1, .max_words = 1, .options = options,
        .summary = "Computes attention on .npy files of type <f4, <f8, <f2, or <u2 holding bf16. PROBLEM gives the kind and\n"
                   "window, e.g. \"na2d w7x7 s1x1\"; sizes and type come from the files, and must agree with PROBLEM where\n"
                   "it states them. Any array may lack its batch dimension, which then is 1."};
    const int stop = nf_tool_parse(&command, &argc, argv);
    if (stop == NF_TOOL_CONTINUE)
        r->problem_text = argv[1];
    return stop;
}

/* Which options need which others. */
static int check_presence(const run *r)
{
    const nf_tool_array *const a = r->arrays;
    bool any_output = false, any_gradient = false;
    for (int role = NF_Q; role <= NF_V; role++)
        if (!a[role].path)
            return nf_tool_error(self, "%s is missing", files[role].option);
    for (int role = 0; role < NF_ROLES; role++) {
        if (!a[role].path || files[role].input)
            continue;
        any_output = true;
        any_gradient = any_gradient || role >= NF_DQ;
        if (role >= NF_DQ && !a[NF_DOUT].path)
            return nf_tool_error(self, "%s needs --dout", files[role].option);
        if (role >= NF_DEXTRA_K && !a[NF_EXTRA_K].path)
            return nf_tool_error(self, "%s needs --extra-k and --extra-v", files[role].option);
    }
    if (!a[NF_EXTRA_K].path != !a[NF_EXTRA_V].path)
        return nf_tool_error(self, "--extra-k and --extra-v need each other");
    if (a[NF_DLSE].path && !a[NF_DOUT].path)
        return nf_tool_error(self, "--dlse needs --dout");
    if (!any_output)
        return nf_tool_error(self, "nothing to write: give --out, --lse, or --dout and a gradient");
    if (a[NF_DOUT].path && !any_gradient)
        return nf_tool_error(self, "--dout needs a gradient to write: --dq, --dk, --dv, --dextra-k or --dextra-v");
    return NF_TOOL_CONTINUE;
}

/* The directory of a path and its last component: equal pairs are equal files even where the file does not exist. */
static bool same_place(const char *a, const char *b)
{
    char *copy[4] = {strdup(a), strdup(a), strdup(b), strdup(b)};
    struct stat of_a, of_b;
    const bool same = copy[0] && copy[1] && copy[2] && copy[3] && stat(dirname(copy[0]), &of_a) == 0 &&
                      stat(dirname(copy[2]), &of_b) == 0 && of_a.st_dev == of_b.st_dev &&
                      of_a.st_ino == of_b.st_ino && strcmp(basename(copy[1]), basename(copy[3])) == 0;
    for (int i = 0; i < 4; i++)
        free(copy[i]);
    return same;
}

static bool same_file(const char *a, const char *b)
{
    struct stat of_a, of_b;
    if (stat(a, &of_a) == 0 && stat(b, &of_b) == 0)
        return of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
    return same_place(a, b);
}

/* An output may not be any other file of the call. */
static int check_paths(const run *r)
{
    for (int i = 0; i < NF_ROLES; i++)
        for (int j = 0; j < NF_ROLES; j++)
            if (i != j && r->arrays[i].path && r->arrays[j].path && !files[i].input &&
                same_file(r->arrays[i].path, r->arrays[j].path))
                return nf_tool_error(self, "%s and %s are the same file, %s", files[i].option, files[j].option,
                                     r->arrays[i].path);
    return NF_TOOL_CONTINUE;
}

static int read_inputs(run *r)
{
    for (int role = 0; role < NF_ROLES; role++) {
        nf_tool_array *array = &r->arrays[role];
        if (files[role].input && array->path && npy_open(array->path, &array->npy))
            return nf_tool_error(self, "%s %s: %s", files[role].option, array->path, array->npy.error);
    }
    return NF_TOOL_CONTINUE;
}

static int allocate_output(run *r, nf_role role)
{
    nf_tensor *tensor = &r->tensors[role];
    if (nf_problem_tensor(&r->problem, role, tensor) != NF_OK)
        return nf_tool_fail_status(self, "%s", files[role].option);
    size_t bytes = nf_dtype_size(tensor->dtype);
    for (int i = 0; i < tensor->rank; i++)
        bytes *= (size_t)tensor->extents[i];
    enum { ALIGNMENT = 64 };
    r->buffers[role] = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (!r->buffers[role])
        return nf_tool_error(self, "%s: out of memory for %zu bytes", files[role].option, bytes);
    tensor->data = r->buffers[role];
    return NF_TOOL_CONTINUE;
}

/* Describes the inputs, allocates the outputs, and names them all in io. Backward needs out and lse, wanted or not. */
static int prepare_tensors(run *r)
{
    const bool backward = r->arrays[NF_DOUT].path;
    nf_io_init(&r->io);
    for (int role = 0; role < NF_ROLES; role++) {
        const bool needed = role == NF_OUT || (role == NF_LSE && backward);
        if (!r->arrays[role].path && !needed)
            continue;
        if (!files[role].input) {
            if (allocate_output(r, (nf_role)role) != NF_TOOL_CONTINUE)
                return NF_TOOL_BAD;
        } else if (nf_tool_array_tensor(&r->problem, (nf_role)role, &r->arrays[role].npy, &r->tensors[role]) !=
                   NF_OK) {
            return nf_tool_fail_status(self, "%s", files[role].option);
        }
        *nf_tool_io_slot(&r->io, (nf_role)role) = &r->tensors[role];
    }
    return NF_TOOL_CONTINUE;
}

static int execute(const run *r, const nf_plan *plan)
{
    nf_io forward = r->io;
    forward.dout = forward.dlse = forward.dq = forward.dk = forward.dv = forward.dextra_k = forward.dextra_v = NULL;
    if (nf_forward(plan, &forward, NULL) != NF_OK)
        return nf_tool_fail_status(self, "forward");
    if (r->io.dout && nf_backward(plan, &r->io, NULL) != NF_OK)
        return nf_tool_fail_status(self, "backward");
    return NF_TOOL_CONTINUE;
}

static int plan_and_execute(run *r)
{
    nf_context *context = nf_tool_context(self, r->backend, r->threads);
    if (!context)
        return NF_TOOL_BAD;
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.algo = r->algo;
    options.layout = &r->io;
    nf_plan *plan = NULL;
    int stop;
    if (nf_plan_create(&plan, context, &r->problem, &options) == NF_OK)
        stop = execute(r, plan);
    else
        stop = nf_tool_fail_status(self, r->algo ? "cannot plan with --algo %s" : "cannot plan", r->algo);
    nf_plan_destroy(plan);
    nf_context_destroy(context);
    return stop;
}

/* The array whose batch dimension, or lack of it, an output imitates. */
static const struct npy *model_of(const run *r, nf_role role)
{
    const nf_role model = role == NF_DK         ? NF_K
                          : role == NF_DV       ? NF_V
                          : role == NF_DEXTRA_K ? NF_EXTRA_K
                          : role == NF_DEXTRA_V ? NF_EXTRA_V
                                                : NF_Q;
    return &r->arrays[model].npy;
}

static int stage(const run *r, nf_role role, struct npy_output *output)
{
    const nf_tensor *t = &r->tensors[role];
    const npy_type type = t->dtype == NF_F32   ? NPY_F4
                          : t->dtype == NF_F64 ? NPY_F8
                          : t->dtype == NF_F16 ? NPY_F2
                                               : NPY_U2;
    const bool no_batch = model_of(r, role)->rank == r->problem.rank + 2;
    if (npy_stage(output, r->arrays[role].path, type, t->rank - no_batch, t->extents + no_batch, t->data))
        return nf_tool_error(self, "%s %s: %s", files[role].option, r->arrays[role].path, output->error);
    return NF_TOOL_CONTINUE;
}

/* Writes all outputs beside their targets, then renames them all. */
static int write_outputs(const run *r)
{
    struct npy_output outputs[NF_ROLES] = {0};
    int stop = NF_TOOL_CONTINUE;
    for (int role = 0; role < NF_ROLES && stop == NF_TOOL_CONTINUE; role++)
        if (!files[role].input && r->arrays[role].path)
            stop = stage(r, (nf_role)role, &outputs[role]);
    for (int role = 0; role < NF_ROLES && stop == NF_TOOL_CONTINUE; role++)
        if (outputs[role].temporary && npy_commit(&outputs[role]))
            stop = nf_tool_error(self, "%s %s: %s", files[role].option, r->arrays[role].path, outputs[role].error);
    for (int role = 0; role < NF_ROLES; role++)
        npy_abandon(&outputs[role]);
    return stop;
}

static int run_all(run *r)
{
    const nf_direction direction = r->arrays[NF_DOUT].path ? NF_BOTH : NF_FWD;
    int stop = check_presence(r);
    if (stop == NF_TOOL_CONTINUE)
        stop = check_paths(r);
    if (stop == NF_TOOL_CONTINUE)
        stop = read_inputs(r);
    if (stop == NF_TOOL_CONTINUE && nf_tool_complete(self, r->problem_text, r->arrays, direction, &r->problem))
        stop = NF_TOOL_BAD;
    if (stop == NF_TOOL_CONTINUE)
        stop = prepare_tensors(r);
    if (stop == NF_TOOL_CONTINUE)
        stop = plan_and_execute(r);
    if (stop == NF_TOOL_CONTINUE)
        stop = write_outputs(r);
    return stop == NF_TOOL_CONTINUE ? NF_TOOL_OK : stop;
}

int nf_tool_run(int argc, char **argv)
{
    run r = {0};
    const int stop = parse(&r, argc, argv);
    if (stop != NF_TOOL_CONTINUE)
        return stop;
    const int status = run_all(&r);
    for (int role = 0; role < NF_ROLES; role++) {
        npy_close(&r.arrays[role].npy);
        free(r.buffers[role]);
    }
    return status;
}
