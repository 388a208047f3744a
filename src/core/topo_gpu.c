/* Whether the machine has a GPU, from the device files that drivers make: a look at three folders, where asking the
 * drivers themselves takes tens of milliseconds. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "core/topo.h"

static bool holds(const char *root, const char *folder, const char *prefix)
{
    char path[4096];
    snprintf(path, sizeof path, "%s%s", root, folder);
    DIR *open = opendir(path);
    if (!open)
        return false;
    const struct dirent *entry;
    bool found = false;
    while (!found && (entry = readdir(open)))
        found = strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(open);
    return found;
}

bool nf_topology_read_gpu(const char *root)
{
    static const struct {
        const char *folder, *prefix;
    } files[] = {{"/dev/dri", "renderD"}, {"/dev", "kfd"}, {"/dev", "nvidiactl"}, {"/dev", "mali"}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (holds(root, files[i].folder, files[i].prefix))
            return true;
    return false;
}
