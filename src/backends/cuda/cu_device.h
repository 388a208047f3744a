/* Devices: what there is, what limits it, which one is used. */
#ifndef NF_CU_DEVICE_H
#define NF_CU_DEVICE_H

#include <stdbool.h>

#include "backends/cuda/cu_api.h"
#include "backends/gpu/gpu_plan.h"
#include "core/topo.h"

enum { CU_NAME_CAPACITY = 128 };

typedef struct cu_device {
    CUdevice id;
    int ordinal; /* as the driver counts */
    char name[CU_NAME_CAPACITY];
    int major, minor; /* compute capability */
    gpu_device limits;
    nf_pci_address place;
    char unusable[CU_NAME_CAPACITY]; /* why, or "" */
} cu_device;

typedef struct cu_device_list {
    cu_device *devices;
    int count;
    int driver; /* newest CUDA that the driver knows: 1000 * major + 10 * minor */
} cu_device_list;

/* Starts the driver. NF_ERR_UNAVAILABLE with the reason if it does not run our kernels or there is no device at all. */
nf_status cu_devices_find(cu_device_list *list, const nf_context *context, const cu_api *api);
void cu_devices_release(cu_device_list *list, const nf_context *context);

/* The device that the user's text names, an index or a part of a name; NULL: the first usable one. NF_ERR_UNAVAILABLE
 * with the reason. */
nf_status cu_devices_choose(const cu_device_list *list, const char *wanted, int *index);

/* A few lines for nearfield info. */
void cu_devices_describe(const cu_device_list *list, int used, nf_text *text);

#endif
