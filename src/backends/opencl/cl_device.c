/* Finding devices and choosing one. What nearfield info prints of them is in cl_describe.c. */
#include "backends/opencl/cl_device.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "backends/gpu/gpu_find.h"
#include "core/mem.h"

enum { MOST_PLATFORMS = 32, MOST_DEVICES = 64 };

/* ---- One device -------------------------------------------------------------------------------------------------- */

/* Texts of drivers are padded with blanks, and end early rather than fail. */
static void trim(char *text)
{
    size_t length = strlen(text), begin = strspn(text, " \t");
    while (length > begin && isspace((unsigned char)text[length - 1]))
        length--;
    memmove(text, text + begin, length - begin);
    text[length - begin] = '\0';
}

void cl_device_text(const cl_api *api, cl_device_id id, cl_device_info what, char text[CL_TEXT_CAPACITY])
{
    char whole[1024] = "";
    if (api->clGetDeviceInfo(id, what, sizeof whole, whole, NULL) != CL_SUCCESS)
        snprintf(whole, sizeof whole, "unknown");
    trim(whole);
    snprintf(text, CL_TEXT_CAPACITY, "%.*s", CL_TEXT_CAPACITY - 1, whole);
}

static void read_platform_text(const cl_api *api, cl_platform_id id, cl_platform_info what, char *text)
{
    char whole[1024] = "";
    if (api->clGetPlatformInfo(id, what, sizeof whole, whole, NULL) != CL_SUCCESS)
        snprintf(whole, sizeof whole, "unknown");
    trim(whole);
    snprintf(text, CL_TEXT_CAPACITY, "%.*s", CL_TEXT_CAPACITY - 1, whole);
}

static int64_t read_uint(const cl_api *api, cl_device_id id, cl_device_info what)
{
    cl_uint value = 0;
    return api->clGetDeviceInfo(id, what, sizeof value, &value, NULL) == CL_SUCCESS ? value : 0;
}

/* A size_t or a cl_ulong. */
static int64_t read_size(const cl_api *api, cl_device_id id, cl_device_info what)
{
    cl_ulong value = 0;
    size_t written = 0;
    if (api->clGetDeviceInfo(id, what, sizeof value, &value, &written) != CL_SUCCESS)
        return 0;
    if (written == sizeof(cl_uint)) {
        cl_uint narrow;
        memcpy(&narrow, &value, sizeof narrow);
        value = narrow;
    }
    return value > INT64_MAX ? INT64_MAX : (int64_t)value;
}

/* "OpenCL 1.2 and what the vendor adds". */
static bool is_new_enough(const char *version)
{
    int major, minor;
    return sscanf(version, "OpenCL %d.%d", &major, &minor) == 2 && (major > 1 || (major == 1 && minor >= 2));
}

static void find_fault(cl_device *device, const cl_api *api)
{
    const char *fault = "";
    if (!read_uint(api, device->id, CL_DEVICE_AVAILABLE))
        fault = "the driver says that it is not available";
    else if (!read_uint(api, device->id, CL_DEVICE_COMPILER_AVAILABLE))
        fault = "it has no compiler";
    else if (!read_uint(api, device->id, CL_DEVICE_ENDIAN_LITTLE))
        fault = "it is big-endian";
    else if (strcmp(device->platform_name, "Clover") == 0)
        fault = "Clover aborts the process on kernels of this size";
    snprintf(device->unusable, sizeof device->unusable, "%s", fault);
    if (!*fault && !is_new_enough(device->version))
        snprintf(device->unusable, sizeof device->unusable, "its version, '%s', is not OpenCL 1.2 or later",
                 device->version);
}

static void read_limits(cl_device *device, const cl_api *api)
{
    const cl_device_id id = device->id;
    const int64_t width = read_uint(api, id, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT);
    device->limits = (gpu_device){
        /* A driver without vectors lays work-items side by side, as a GPU does, and compiles wide vectors badly. */
        .cpu = cl_is_cpu(device) && width > 1,
        .fp64 = read_size(api, id, CL_DEVICE_DOUBLE_FP_CONFIG) != 0,
        .units = read_uint(api, id, CL_DEVICE_MAX_COMPUTE_UNITS),
        .group_items = read_size(api, id, CL_DEVICE_MAX_WORK_GROUP_SIZE),
        .local_bytes = read_size(api, id, CL_DEVICE_LOCAL_MEM_SIZE),
        .buffer_bytes = read_size(api, id, CL_DEVICE_MAX_MEM_ALLOC_SIZE),
        .vector_bytes = width * (int64_t)sizeof(float),
        .memory = NF_OPENCL,
    };
}

nf_status cl_device_read(cl_device *device, const cl_api *api, cl_platform_id platform, cl_device_id id)
{
    cl_device made = {.platform = platform, .id = id};
    char name[CL_TEXT_CAPACITY];
    const cl_int error = api->clGetDeviceInfo(id, CL_DEVICE_TYPE, sizeof made.type, &made.type, NULL);
    if (error != CL_SUCCESS)
        return cl_fail(error, "the type of an OpenCL device cannot be read");
    cl_device_text(api, id, CL_DEVICE_NAME, name);
    cl_device_text(api, id, CL_DEVICE_VERSION, made.version);
    cl_device_text(api, id, CL_DRIVER_VERSION, made.driver);
    read_platform_text(api, platform, CL_PLATFORM_NAME, made.platform_name);
    read_platform_text(api, platform, CL_PLATFORM_VERSION, made.platform_version);
    snprintf(made.name, sizeof made.name, "%s (%s)", name, made.platform_name);
    find_fault(&made, api);
    read_limits(&made, api);
    *device = made;
    return NF_OK;
}

/* ---- All of them ------------------------------------------------------------------------------------------------- */

/* A driver that cannot say what it has is passed over, like one that has nothing; *fault keeps what it said. */
static nf_status add_platform(cl_device_list *list, const cl_api *api, cl_platform_id platform, cl_int *fault)
{
    static const cl_device_type all_types = 0xFFFFFFFF;
    cl_device_id ids[MOST_DEVICES];
    cl_uint found = 0;
    const cl_int error = api->clGetDeviceIDs(platform, all_types, MOST_DEVICES, ids, &found);
    if (error != CL_SUCCESS) {
        *fault = error == CL_DEVICE_NOT_FOUND ? *fault : error;
        return NF_OK;
    }
    for (cl_uint i = 0; i < found && i < MOST_DEVICES && list->count < MOST_DEVICES; i++) {
        const nf_status status = cl_device_read(&list->devices[list->count], api, platform, ids[i]);
        if (status != NF_OK)
            return status;
        list->count++;
    }
    return NF_OK;
}

static nf_status find_in(cl_device_list *list, const cl_api *api)
{
    cl_platform_id platforms[MOST_PLATFORMS];
    cl_uint found = 0;
    cl_int fault = CL_SUCCESS;
    const cl_int error = api->clGetPlatformIDs(MOST_PLATFORMS, platforms, &found);
    if (error != CL_SUCCESS || found == 0)
        return nf_fail(NF_ERR_UNAVAILABLE, "no OpenCL driver is installed: the loader knows no platform");
    for (cl_uint i = 0; i < found && i < MOST_PLATFORMS; i++) {
        const nf_status status = add_platform(list, api, platforms[i], &fault);
        if (status != NF_OK)
            return status;
    }
    return list->count
               ? NF_OK
               : nf_fail(NF_ERR_UNAVAILABLE, "no OpenCL device: %" PRIu32 " platform%s, all without devices%s%s", found,
                         found == 1 ? "" : "s", fault == CL_SUCCESS ? "" : "; one answers ",
                         fault == CL_SUCCESS ? "" : cl_error_name(fault));
}

nf_status cl_devices_find(cl_device_list *list, const nf_context *context, const cl_api *api)
{
    cl_device_list made = {.devices = nf_alloc_array(context, MOST_DEVICES, sizeof *made.devices)};
    if (!made.devices)
        return NF_ERR_MEMORY;
    const nf_status status = find_in(&made, api);
    if (status != NF_OK) {
        cl_devices_release(&made, context);
        return status;
    }
    *list = made;
    return NF_OK;
}

void cl_devices_release(cl_device_list *list, const nf_context *context)
{
    nf_release(context, list->devices);
    *list = (cl_device_list){0};
}

/* ---- The one that is used ---------------------------------------------------------------------------------------- */

static const char *name_of(const void *list, int index)
{
    return ((const cl_device_list *)list)->devices[index].name;
}

static int find_default(const cl_device_list *list)
{
    int first = 0;
    for (int i = list->count - 1; i >= 0; i--)
        if (!*list->devices[i].unusable)
            first = i;
    for (int i = 0; i < list->count; i++)
        if (!*list->devices[i].unusable && list->devices[i].type & (CL_DEVICE_TYPE_GPU | CL_DEVICE_TYPE_ACCELERATOR))
            return i;
    return first;
}

nf_status cl_devices_choose(const cl_device_list *list, const char *wanted, int *index)
{
    int found = wanted ? 0 : find_default(list);
    const nf_status status = wanted ? gpu_find_device(wanted, list, list->count, name_of, &found) : NF_OK;
    if (status != NF_OK)
        return status;
    const cl_device *device = &list->devices[found];
    if (*device->unusable)
        return nf_fail(NF_ERR_UNAVAILABLE, "%s cannot be used: %s", device->name, device->unusable);
    *index = found;
    return NF_OK;
}
