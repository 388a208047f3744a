/* nearfield_cuda.h - attention on a program's own CUDA memory and streams, so that nothing is copied.
 *
 * Describe tensors whose memory is NF_CUDA: data is a device pointer (cudaMalloc, cuMemAlloc, managed memory), strides
 * may be any. Pass such descriptions as the layout of a plan (nf_plan_options) and the same in each call; tensors in host
 * memory may be mixed in. Everything runs in the primary context of the device, which is that of the CUDA runtime;
 * nf_exec.queue may name a CUstream (a cudaStream_t) of it for one call, and its events are CUevents (cudaEvent_t): the
 * call runs after wait_events, and signal_event receives one that is the caller's to destroy.
 *
 * A call whose tensors are all NF_CUDA, on a stream of yours or with a signal_event, returns once its kernels are
 * enqueued, without synchronisation or, signal_event aside, allocation: what you enqueue next on that stream finds its
 * results, elsewhere wait. If the device fails after that, your stream says so, and outputs may be partly written. Such a
 * call can be captured into a CUDA graph; graphs with backward of one plan must not run at the same time as each other or
 * as calls of that plan. Every other call returns when its results are there, and finds what is enqueued on the legacy
 * default stream. Calls of one plan run one after the other, whatever their streams.
 *
 * The header needs none of CUDA's: CUstream and cudaStream_t are struct CUstream_st *. */
#ifndef NEARFIELD_CUDA_H
#define NEARFIELD_CUDA_H

#include <nearfield.h>

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

/* Lets a context run the cuda backend on a device, numbered as the CUDA driver does, in preference to all other
 * backends. stream is where calls run that name none; NULL: each plan makes its own (the default streams themselves are
 * CU_STREAM_LEGACY and CU_STREAM_PER_THREAD). Call it before the context's first plan. The stream must outlive the
 * context's plans. NF_ERR_UNAVAILABLE: this build has no such backend or no kernels, there is no driver, or the device
 * cannot be used; NF_ERR_ARGUMENT: there is no such device, or the stream is of another context. */
NF_API nf_status nf_cuda_use(nf_context *context, int device, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

#endif
