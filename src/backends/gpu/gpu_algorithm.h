/* The slots of a device's algorithms, for both vendors. A backend includes this once, after functions of its own:
 * supports, cost and prepare, as in nf_algorithm with a `const shape *` more; free_plan, info, describe; and execute,
 * which runs an operation. */
static void release(const nf_request *request, void *prepared)
{
    (void)request;
    free_plan(prepared);
}

/* Of the host: none. What executions need was allocated with the plan. */
static size_t workspace(const void *prepared)
{
    (void)prepared;
    return 0;
}

static nf_status enqueue(const void *prepared, nf_operation operation, const nf_tensor *const io[NF_ROLES],
                         void *unused, const nf_exec *exec)
{
    (void)unused;
    return execute((void *)prepared, operation, io, exec);
}

static nf_status forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *unused)
{
    return enqueue(prepared, NF_FORWARD, io, unused, NULL);
}

static nf_status backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *unused)
{
    return enqueue(prepared, NF_BACKWARD, io, unused, NULL);
}

static nf_status qk(const void *prepared, const nf_tensor *const io[NF_ROLES], void *unused)
{
    return enqueue(prepared, NF_QK, io, unused, NULL);
}

static nf_status av(const void *prepared, const nf_tensor *const io[NF_ROLES], void *unused)
{
    return enqueue(prepared, NF_AV, io, unused, NULL);
}

static nf_status qk_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *unused)
{
    return enqueue(prepared, NF_QK_BACKWARD, io, unused, NULL);
}

static nf_status av_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *unused)
{
    return enqueue(prepared, NF_AV_BACKWARD, io, unused, NULL);
}

static const nf_pair pair = {.qk = qk, .av = av, .qk_backward = qk_backward, .av_backward = av_backward};

/* One algorithm, PREFIX##SHAPE: the slots that its shape goes into, and the rest; members may follow. */
#define GPU_ALGORITHM(PREFIX, SHAPE, ...)                                                                              \
    static nf_status SHAPE##_supports(const void *state, const nf_request *request)                                    \
    {                                                                                                                  \
        return supports(state, request, &SHAPE);                                                                       \
    }                                                                                                                  \
    static void SHAPE##_cost(const void *state, const nf_request *request, double seconds[NF_DIRECTIONS])              \
    {                                                                                                                  \
        cost(state, request, &SHAPE, seconds);                                                                         \
    }                                                                                                                  \
    static nf_status SHAPE##_prepare(const void *state, const nf_request *request, void **prepared)                    \
    {                                                                                                                  \
        return prepare(state, request, prepared, &SHAPE);                                                              \
    }                                                                                                                  \
    const nf_algorithm PREFIX##SHAPE = {.name = #SHAPE,                                                                \
                                        .supports = SHAPE##_supports,                                                  \
                                        .cost = SHAPE##_cost,                                                          \
                                        .prepare = SHAPE##_prepare,                                                    \
                                        .release = release,                                                            \
                                        .workspace = workspace,                                                        \
                                        .info = info,                                                                  \
                                        .describe = describe,                                                          \
                                        .forward = forward,                                                            \
                                        .backward = backward,                                                          \
                                        .enqueue = enqueue,                                                            \
                                        .pair = __VA_ARGS__};
