/* Finding devices and choosing one. */
#include "backends/cuda/cu_device.h"

#include <inttypes.h>
#include <stdio.h>

#include "backends/cuda/cu_images.h"
#include "backends/gpu/gpu_find.h"
#include "core/mem.h"

enum {
    MOST_DEVICES = 64,
    LEAST_WITH_MATRICES = 8, /* major compute capability: mma.sync of bf16, cp.async */
    WITH_WARPGROUPS = 90     /* wgmma, no other has it */
};

/* ---- One device -------------------------------------------------------------------------------------------------- */

/* 0 where the driver does not tell. */
static int attribute(const cu_api *api, CUdevice id, CUdevice_attribute which)
{
    int value = 0;
    return api->cuDeviceGetAttribute(&value, which, id) == CUDA_SUCCESS ? value : 0;
}

static void find_fault(cu_device *device, const cu_api *api)
{
    if (attribute(api, device->id, CU_DEVICE_ATTRIBUTE_COMPUTE_MODE) == CU_COMPUTEMODE_PROHIBITED)
        snprintf(device->unusable, sizeof device->unusable, "its compute mode is prohibited");
    else if (10 * device->major + device->minor < cu_images.least_capability)
        snprintf(device->unusable, sizeof device->unusable,
                 "its compute capability, %d.%d, is below %d.%d: there are no kernels for it", device->major,
                 device->minor, cu_images.least_capability / 10, cu_images.least_capability % 10);
}

/* A GPU that is out of order is as good as none: other backends run. */
static nf_status unavailable(const cu_api *api, CUresult error, const char *what)
{
    cu_fail(api, error, "%s", what);
    return NF_ERR_UNAVAILABLE;
}

static nf_status read_device(cu_device *device, const cu_api *api, int ordinal)
{
    cu_device made = {.ordinal = ordinal};
    size_t bytes = 0;
    CUresult error = api->cuDeviceGet(&made.id, ordinal);
    if (error == CUDA_SUCCESS)
        error = api->cuDeviceGetName(made.name, (int)sizeof made.name, made.id);
    if (error == CUDA_SUCCESS)
        error = api->cuDeviceTotalMem(&bytes, made.id);
    if (error != CUDA_SUCCESS)
        return unavailable(api, error, "a CUDA device cannot be read");
    made.major = attribute(api, made.id, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    made.minor = attribute(api, made.id, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    made.place = (nf_pci_address){.domain = (unsigned)attribute(api, made.id, CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID),
                                  .bus = (unsigned)attribute(api, made.id, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID),
                                  .device = (unsigned)attribute(api, made.id, CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)};
    made.limits = (gpu_device){
        .fp64 = true,
        .units = attribute(api, made.id, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        .group_items = attribute(api, made.id, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK),
        .local_bytes = attribute(api, made.id, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK),
        .launch_local_bytes = attribute(api, made.id, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
        .buffer_bytes = (int64_t)bytes,
        .matrices = made.major >= LEAST_WITH_MATRICES,
        .warpgroups = cu_images.warpgroups && 10 * made.major + made.minor == WITH_WARPGROUPS,
        .ahead = true,
        .memory = NF_CUDA,
    };
    find_fault(&made, api);
    *device = made;
    return NF_OK;
}

/* ---- All of them ------------------------------------------------------------------------------------------------- */

static nf_status start_driver(cu_device_list *list, const cu_api *api)
{
    CUresult error = api->cuInit(0);
    if (error == CUDA_ERROR_NO_DEVICE)
        return nf_fail(NF_ERR_UNAVAILABLE, "the driver finds no CUDA device");
    if (error == CUDA_SUCCESS)
        error = api->cuDriverGetVersion(&list->driver);
    if (error != CUDA_SUCCESS)
        return unavailable(api, error, "the CUDA driver does not start");
    const int needed = cu_images.toolkit / 1000 * 1000; /* minor versions are compatible */
    if (list->driver < needed)
        return nf_fail(NF_ERR_UNAVAILABLE, "the driver is for CUDA %d.%d, the kernels of this library need %d.%d",
                       list->driver / 1000, list->driver % 1000 / 10, needed / 1000, needed % 1000 / 10);
    return NF_OK;
}

static nf_status find_in(cu_device_list *list, const cu_api *api)
{
    int found = 0;
    nf_status status = start_driver(list, api);
    if (status != NF_OK)
        return status;
    const CUresult error = api->cuDeviceGetCount(&found);
    if (error != CUDA_SUCCESS)
        return unavailable(api, error, "CUDA devices cannot be counted");
    if (found == 0)
        return nf_fail(NF_ERR_UNAVAILABLE, "the driver finds no CUDA device");
    for (int i = 0; i < found && i < MOST_DEVICES && status == NF_OK; i++)
        if ((status = read_device(&list->devices[i], api, i)) == NF_OK)
            list->count++;
    return status;
}

nf_status cu_devices_find(cu_device_list *list, const nf_context *context, const cu_api *api)
{
    cu_device_list made = {.devices = nf_alloc_array(context, MOST_DEVICES, sizeof *made.devices)};
    if (!made.devices)
        return NF_ERR_MEMORY;
    const nf_status status = find_in(&made, api);
    if (status != NF_OK) {
        cu_devices_release(&made, context);
        return status;
    }
    *list = made;
    return NF_OK;
}

void cu_devices_release(cu_device_list *list, const nf_context *context)
{
    nf_release(context, list->devices);
    *list = (cu_device_list){0};
}

/* ---- The one that is used ---------------------------------------------------------------------------------------- */

static const char *name_of(const void *list, int index)
{
    return ((const cu_device_list *)list)->devices[index].name;
}

static int find_default(const cu_device_list *list)
{
    for (int i = 0; i < list->count; i++)
        if (!*list->devices[i].unusable)
            return i;
    return 0;
}

nf_status cu_devices_choose(const cu_device_list *list, const char *wanted, int *index)
{
    int found = wanted ? 0 : find_default(list);
    const nf_status status = wanted ? gpu_find_device(wanted, list, list->count, name_of, &found) : NF_OK;
    if (status != NF_OK)
        return status;
    const cu_device *device = &list->devices[found];
    if (*device->unusable)
        return nf_fail(NF_ERR_UNAVAILABLE, "%s cannot be used: %s", device->name, device->unusable);
    *index = found;
    return NF_OK;
}

void cu_devices_describe(const cu_device_list *list, int used, nf_text *text)
{
    for (int i = 0; i < list->count; i++) {
        const cu_device *device = &list->devices[i];
        nf_text_printf(text, "  [%d] %s%s%s%s\n", i, device->name, i == used ? ", used here" : "",
                       *device->unusable ? ", unusable: " : "", device->unusable);
        nf_text_printf(text,
                       "      compute capability %d.%d, %" PRId64 " multiprocessors, memory %" PRId64
                       " MiB, driver for CUDA %d.%d\n",
                       device->major, device->minor, device->limits.units, device->limits.buffer_bytes >> 20,
                       list->driver / 1000, list->driver % 1000 / 10);
        gpu_describe_place(&device->place, text);
    }
}
