/* Devices by the user's text. */
#include "backends/gpu/gpu_find.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"

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
