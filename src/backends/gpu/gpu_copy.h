/* Tensors in host memory on their way to a device and back. */
#ifndef NF_GPU_COPY_H
#define NF_GPU_COPY_H

#include "nearfield.h"

/* Copies a strided host tensor to dense memory, or back. */
void gpu_gather(void *dense, const nf_tensor *tensor);
void gpu_scatter(const nf_tensor *tensor, const void *dense);

/* Of the dense copy. */
size_t gpu_tensor_bytes(const nf_tensor *tensor);

#endif
