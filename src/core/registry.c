/* All backends by preference, and the shared stubs of those this build leaves out. A new backend adds its line here. */
#include <string.h>

#include "core/backend.h"

const nf_backend *const nf_backends[] = {
    &nf_backend_cuda, &nf_backend_opencl, &nf_backend_cpu, &nf_backend_reference, NULL,
};

const char *nf_backend_name(int index)
{
    if (index < 0)
        return NULL;
    for (int i = 0; nf_backends[i]; i++)
        if (i == index)
            return nf_backends[i]->name;
    return NULL;
}

const char *nf_algorithm_name(const char *backend, int index)
{
    for (int b = 0; backend && nf_backends[b]; b++) {
        const nf_algorithm *const *algorithms = nf_backends[b]->algorithms;
        if (strcmp(nf_backends[b]->name, backend) != 0)
            continue;
        for (int i = 0; algorithms[i]; i++)
            if (i == index)
                return algorithms[i]->name;
    }
    return NULL;
}

nf_status nf_stub_open(const nf_context *context, void **state)
{
    (void)context;
    (void)state;
    return nf_fail(NF_ERR_UNAVAILABLE, "disabled at build time");
}

void nf_stub_close(const nf_context *context, void *state)
{
    (void)context;
    (void)state;
}

void nf_stub_describe(const void *state, nf_text *text)
{
    (void)state;
    (void)text;
}

const char *nf_stub_device(const void *state, int index)
{
    (void)state;
    return index == 0 ? "host" : NULL;
}

bool nf_stub_gpu(const void *state)
{
    (void)state;
    return false;
}

nf_status nf_stub_enqueue(const void *prepared, nf_operation operation, const nf_tensor *const io[NF_ROLES],
                          void *workspace, const nf_exec *exec)
{
    (void)prepared;
    (void)operation;
    (void)io;
    (void)workspace;
    (void)exec;
    return nf_fail(NF_ERR_ARGUMENT, "exec: queue and events must be NULL, this algorithm takes none");
}

nf_status nf_stub_peak(const void *state, nf_dtype dtype, nf_peak *peak)
{
    (void)state;
    (void)dtype;
    (void)peak;
    return nf_fail(NF_ERR_UNSUPPORTED, "backend: it runs on the host, or has no clock of its own");
}

nf_status nf_stub_merge(const void *state, const nf_merging *merging, const nf_exec *exec)
{
    (void)state;
    (void)merging;
    (void)exec;
    return nf_fail(NF_ERR_UNSUPPORTED, "out: the backend merges in host memory only");
}

static nf_status no_scores(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    (void)prepared;
    (void)io;
    (void)workspace;
    return nf_fail(NF_ERR_UNSUPPORTED, "plan: its algorithm keeps no scores; \"unfused\" does");
}

const nf_pair nf_stub_pair = {
    .qk = no_scores,
    .av = no_scores,
    .qk_backward = no_scores,
    .av_backward = no_scores,
};
