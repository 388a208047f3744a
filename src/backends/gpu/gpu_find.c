/* What backends say of devices, and how users name them. */
#include "backends/gpu/gpu_find.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"

static int find(const char *wanted, const void *list, int count, const char *(*name)(const void *, int))
{
    if (wanted[strspn(wanted, "0123456789")] == '\0') {
        const long index = strtol(wanted, NULL, 10);
        return index < count ? (int)index : -1;
    }
    for (int i = 0; i < count; i++)
        if (strcasestr(name(list, i), wanted))
            return i;
    return -1;
}

nf_status gpu_find_device(const char *wanted, const void *list, int count, const char *(*name)(const void *, int),
                          int *index)
{
    char names[800];
    nf_text text;
    const int found = find(wanted, list, count, name);
    if (found >= 0) {
        *index = found;
        return NF_OK;
    }
    nf_text_init(&text, names, sizeof names);
    for (int i = 0; i < count; i++)
        nf_text_printf(&text, "%s%d %s", i ? ", " : "", i, name(list, i));
    return nf_fail(NF_ERR_UNAVAILABLE, "device '%s' is none of: %s", wanted, names);
}

void gpu_describe_place(const nf_pci_address *address, nf_text *text)
{
    const int64_t node = nf_topology_pci_node(address);
    nf_text_printf(text, "      PCI %04x:%02x:%02x.%x", address->domain, address->bus, address->device,
                   address->function);
    if (node >= 0)
        nf_text_printf(text, ", nearest memory node %" PRId64, node);
    nf_text_printf(text, "\n");
}
