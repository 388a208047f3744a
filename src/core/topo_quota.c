/* The processor time that Linux control groups, version 1 and 2, grant this process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/topo.h"

enum { LINE = 1024, PATH = 4096 };

static int read_line(const char *path, char line[LINE])
{
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    const int ok = fgets(line, LINE, file) != NULL;
    fclose(file);
    return ok;
}

static double tighter(double a, double b)
{
    return a > 0 && (b <= 0 || a < b) ? a : b;
}

/* "QUOTA PERIOD" or "max PERIOD" in microseconds; 0: no limit. */
static double read_v2(const char *group)
{
    char path[PATH + 32], line[LINE];
    double quota, period;
    snprintf(path, sizeof path, "%s/cpu.max", group);
    if (!read_line(path, line) || sscanf(line, "%lf %lf", &quota, &period) != 2 || quota <= 0 || period <= 0)
        return 0;
    return quota / period;
}

static double read_v1(const char *group)
{
    char path[PATH + 32], quota[LINE], period[LINE];
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", group);
    if (!read_line(path, quota))
        return 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", group);
    if (!read_line(path, period) || atof(quota) <= 0 || atof(period) <= 0)
        return 0;
    return atof(quota) / atof(period);
}

/* The tightest limit of a group and of all groups around it. Inside a container the path may name groups that only the
 * host can see; those that are missing do not limit. */
static double read_upwards(const char *mount, const char *group, double (*read_group)(const char *))
{
    char path[PATH];
    const int length = snprintf(path, sizeof path, "%s%s", mount, group);
    const size_t shortest = strlen(mount);
    double quota = 0;
    if (length < 0 || (size_t)length >= sizeof path)
        return read_group(mount);
    while (1) {
        quota = tighter(read_group(path), quota);
        char *slash = strrchr(path, '/');
        if (!slash || (size_t)(slash - path) < shortest)
            return quota;
        *slash = '\0';
    }
}

static int names_cpu(const char *controllers)
{
    for (const char *c = controllers; *c; c += strcspn(c, ","), c += *c == ',')
        if (strcspn(c, ",") == 3 && strncmp(c, "cpu", 3) == 0)
            return 1;
    return 0;
}

/* One line of /proc/self/cgroup: "ID:CONTROLLERS:PATH", controllers empty for version 2. */
static double read_entry(const char *root, char *entry)
{
    static const char *const v1[] = {"cpu", "cpu,cpuacct"}, *const v2[] = {"", "/unified"};
    char *controllers = strchr(entry, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
        return 0;
    *group++ = '\0';
    controllers++;
    group[strcspn(group, "\n")] = '\0';
    double quota = 0;
    for (int i = 0; i < 2; i++) {
        char mount[PATH];
        if (*controllers == '\0') {
            snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s", root, v2[i]);
            quota = tighter(read_upwards(mount, group, read_v2), quota);
        } else if (names_cpu(controllers)) {
            snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/%s", root, v1[i]);
            quota = tighter(read_upwards(mount, group, read_v1), quota);
        }
    }
    return quota;
}

double nf_topology_read_quota(const char *root)
{
    char path[PATH], entry[LINE];
    double quota = 0;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(entry, sizeof entry, file))
        quota = tighter(read_entry(root, entry), quota);
    if (file)
        fclose(file);
    return quota;
}
