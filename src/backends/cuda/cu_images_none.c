/* A build without nvcc. */
#include "backends/cuda/cu_images.h"

const cu_image_set cu_images = {.absent = "this build has no kernels for NVIDIA GPUs, because configure had no nvcc"};
