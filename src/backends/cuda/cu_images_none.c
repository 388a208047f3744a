/* A build without nvcc. */
#include "backends/cuda/cu_images.h"

#include "config.h"

const cu_image_set cu_images = {.absent = "this build has no kernels for NVIDIA GPUs (configure: " NF_NVCC_ABSENT ")"};
