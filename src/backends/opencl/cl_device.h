/* Platforms and devices: what there is, what limits it, which one is used. */
#ifndef NF_CL_DEVICE_H
#define NF_CL_DEVICE_H

#include <stdbool.h>

#include "backends/gpu/gpu_plan.h"
#include "backends/opencl/cl_api.h"

enum { CL_TEXT_CAPACITY = 96, CL_NAME_CAPACITY = 2 * CL_TEXT_CAPACITY + 4 };

typedef struct cl_device {
    cl_platform_id platform;
    cl_device_id id;
    char name[CL_NAME_CAPACITY]; /* of the device, and of its platform in brackets */
    char platform_name[CL_TEXT_CAPACITY], platform_version[CL_TEXT_CAPACITY];
    char version[CL_TEXT_CAPACITY], driver[CL_TEXT_CAPACITY];
    cl_device_type type;
    gpu_device limits;
    char unusable[CL_NAME_CAPACITY]; /* why, or "" */
} cl_device;

typedef struct cl_device_list {
    cl_device *devices;
    int count;
} cl_device_list;

/* NF_ERR_UNAVAILABLE with the reason if there is no device at all. Platforms without devices are passed over. */
nf_status cl_devices_find(cl_device_list *list, const nf_context *context, const cl_api *api);
void cl_devices_release(cl_device_list *list, const nf_context *context);

/* Reads what a program's own device is and can do. */
nf_status cl_device_read(cl_device *device, const cl_api *api, cl_platform_id platform, cl_device_id id);

/* One text of a device, trimmed; "unknown" where the driver does not tell. */
void cl_device_text(const cl_api *api, cl_device_id id, cl_device_info what, char text[CL_TEXT_CAPACITY]);

/* The device that the user's text names, an index or a part of a name; NULL: the first GPU, else the first usable one.
 * NF_ERR_UNAVAILABLE with the reason. */
nf_status cl_devices_choose(const cl_device_list *list, const char *wanted, int *index);

/* Whether it is a CPU, and does not claim to be anything else. */
static inline bool cl_is_cpu(const cl_device *device)
{
    return (device->type & (CL_DEVICE_TYPE_GPU | CL_DEVICE_TYPE_CPU)) == CL_DEVICE_TYPE_CPU;
}

/* A few lines for nearfield info. */
void cl_device_describe(const cl_device *device, const cl_api *api, int index, bool used, nf_text *text);

#endif
