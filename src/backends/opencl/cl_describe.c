/* What nearfield info says of a device. */
#include <inttypes.h>
#include <string.h>

#include "backends/gpu/gpu_find.h"
#include "backends/opencl/cl_device.h"
#include "core/topo.h"

/* ---- Where it is ------------------------------------------------------------------------------------------------- */

/* Queries of extensions, and what they answer; devices without the extension refuse them. */
enum { DEVICE_PCI_BUS_INFO_KHR = 0x410F, DEVICE_PCI_BUS_ID_NV = 0x4008, DEVICE_PCI_SLOT_ID_NV = 0x4009 };
enum { DEVICE_TOPOLOGY_AMD = 0x4037, TOPOLOGY_TYPE_PCIE_AMD = 1 };

typedef struct topology_amd {
    cl_uint type;
    unsigned char unused[17], bus, device, function;
} topology_amd;

static bool read_address(const cl_api *api, cl_device_id id, nf_pci_address *address)
{
    cl_uint khr[4], bus, slot;
    topology_amd amd;
    if (api->clGetDeviceInfo(id, DEVICE_PCI_BUS_INFO_KHR, sizeof khr, khr, NULL) == CL_SUCCESS) {
        *address = (nf_pci_address){.domain = khr[0], .bus = khr[1], .device = khr[2], .function = khr[3]};
        return true;
    }
    if (api->clGetDeviceInfo(id, DEVICE_PCI_BUS_ID_NV, sizeof bus, &bus, NULL) == CL_SUCCESS &&
        api->clGetDeviceInfo(id, DEVICE_PCI_SLOT_ID_NV, sizeof slot, &slot, NULL) == CL_SUCCESS) {
        *address = (nf_pci_address){.bus = bus, .device = slot >> 3, .function = slot & 7};
        return true;
    }
    if (api->clGetDeviceInfo(id, DEVICE_TOPOLOGY_AMD, sizeof amd, &amd, NULL) == CL_SUCCESS &&
        amd.type == TOPOLOGY_TYPE_PCIE_AMD) {
        *address = (nf_pci_address){.bus = amd.bus, .device = amd.device, .function = amd.function};
        return true;
    }
    return false;
}

static void describe_place(const cl_device *device, const cl_api *api, nf_text *text)
{
    nf_pci_address address;
    if (read_address(api, device->id, &address))
        gpu_describe_place(&address, text);
}

/* ---- What it is -------------------------------------------------------------------------------------------------- */

static const char *kind_of(const cl_device *device)
{
    if (device->type & CL_DEVICE_TYPE_GPU)
        return "GPU";
    if (device->type & CL_DEVICE_TYPE_CPU)
        return "CPU";
    return device->type & CL_DEVICE_TYPE_ACCELERATOR ? "accelerator" : "device";
}

static void describe_extensions(const cl_device *device, const cl_api *api, nf_text *text)
{
    char names[8192];
    if (api->clGetDeviceInfo(device->id, CL_DEVICE_EXTENSIONS, sizeof names, names, NULL) == CL_SUCCESS && *names)
        nf_text_printf(text, "      extensions: %s\n", names + strspn(names, " "));
}

static void describe_vendor(const cl_device *device, const cl_api *api, nf_text *text)
{
    char vendor[CL_TEXT_CAPACITY];
    cl_device_text(api, device->id, CL_DEVICE_VENDOR, vendor);
    nf_text_printf(text, "      vendor %s, driver %s, %s\n", vendor, device->driver, device->version);
}

void cl_device_describe(const cl_device *device, const cl_api *api, int index, bool used, nf_text *text)
{
    const gpu_device *limits = &device->limits;
    nf_text_printf(text, "  [%d] %s%s%s%s\n", index, device->name, used ? ", used here" : "",
                   *device->unusable ? ", unusable: " : "", device->unusable);
    describe_vendor(device, api, text);
    nf_text_printf(text,
                   "      %s, %" PRId64 " compute unit%s, work-groups of %" PRId64 ", local memory %" PRId64
                   " KiB, buffers of %" PRId64 " MiB, %s\n",
                   kind_of(device), limits->units, limits->units == 1 ? "" : "s", limits->group_items,
                   limits->local_bytes >> 10, limits->buffer_bytes >> 20, limits->fp64 ? "fp64" : "no fp64");
    describe_place(device, api, text);
    describe_extensions(device, api, text);
}
