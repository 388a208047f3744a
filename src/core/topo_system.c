/* The topology from the operating system: affinity, /sys, /proc, and the processor time a control group grants. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/topo_read.h"

enum { MOST_CPUS = 4096, LINE = 512, PATH = 768 };

typedef struct cpu_list {
    unsigned char has[MOST_CPUS];
} cpu_list;

/* The first line of a file, without its newline; false if there is none. */
static bool read_line(const char *path, char line[LINE])
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    const bool ok = fgets(line, LINE, file) != NULL;
    fclose(file);
    if (ok)
        line[strcspn(line, "\n")] = '\0';
    return ok;
}

static bool read_cpu_file(int cpu, const char *name, char line[LINE])
{
    char path[PATH];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", cpu, name);
    return read_line(path, line);
}

/* "0-3,8,10-11" */
static void parse_cpus(const char *text, cpu_list *list)
{
    memset(list, 0, sizeof *list);
    while (*text >= '0' && *text <= '9') {
        char *end;
        const long first = strtol(text, &end, 10);
        const long last = *end == '-' ? strtol(end + 1, &end, 10) : first;
        for (long i = first; i <= last && i < MOST_CPUS; i++)
            list->has[i] = 1;
        text = *end == ',' ? end + 1 : end;
    }
}

static int64_t count_cpus(const cpu_list *list)
{
    int64_t count = 0;
    for (int i = 0; i < MOST_CPUS; i++)
        count += list->has[i];
    return count;
}

static void read_allowed(cpu_list *allowed)
{
    memset(allowed, 0, sizeof *allowed);
#ifdef HAVE_SCHED_GETAFFINITY
    cpu_set_t *set = CPU_ALLOC(MOST_CPUS);
    const size_t size = CPU_ALLOC_SIZE(MOST_CPUS);
    if (set && sched_getaffinity(0, size, set) == 0)
        for (int i = 0; i < MOST_CPUS; i++)
            allowed->has[i] = CPU_ISSET_S((size_t)i, size, set) != 0;
    if (set)
        CPU_FREE(set);
#endif
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    if (count_cpus(allowed) == 0)
        for (long i = 0; i == 0 || (i < online && i < MOST_CPUS); i++)
            allowed->has[i] = 1;
}

/* A core counts once, for its first allowed hardware thread. */
static int64_t count_cores(const cpu_list *allowed)
{
    int64_t cores = 0;
    for (int cpu = 0; cpu < MOST_CPUS; cpu++) {
        if (!allowed->has[cpu])
            continue;
        char line[LINE];
        cpu_list siblings;
        bool first = true;
        if (read_cpu_file(cpu, "topology/thread_siblings_list", line)) {
            parse_cpus(line, &siblings);
            for (int other = 0; other < cpu; other++)
                first = first && !(siblings.has[other] && allowed->has[other]);
        }
        cores += first;
    }
    return cores;
}

static int64_t read_size(const char *text)
{
    char *unit;
    const long value = strtol(text, &unit, 10);
    const int64_t factor = *unit == 'K' ? INT64_C(1) << 10 : *unit == 'M' ? INT64_C(1) << 20 : 1;
    return value > 0 ? value * factor : 0;
}

static void read_caches(const cpu_list *allowed, nf_topology *topology)
{
    int cpu = 0;
    while (cpu < MOST_CPUS - 1 && !allowed->has[cpu])
        cpu++;
    for (int index = 0;; index++) {
        char name[64], line[LINE];
        snprintf(name, sizeof name, "cache/index%d/level", index);
        if (!read_cpu_file(cpu, name, line))
            return;
        const int level = atoi(line);
        snprintf(name, sizeof name, "cache/index%d/type", index);
        if (level < 1 || level > NF_CACHE_LEVELS || !read_cpu_file(cpu, name, line) || strcmp(line, "Instruction") == 0)
            continue;
        nf_cache *cache = &topology->cache[level - 1];
        snprintf(name, sizeof name, "cache/index%d/size", index);
        cache->bytes = read_cpu_file(cpu, name, line) ? read_size(line) : 0;
        snprintf(name, sizeof name, "cache/index%d/coherency_line_size", index);
        cache->line_bytes = read_cpu_file(cpu, name, line) ? read_size(line) : 0;
        cpu_list sharing = {{0}};
        snprintf(name, sizeof name, "cache/index%d/shared_cpu_list", index);
        if (read_cpu_file(cpu, name, line))
            parse_cpus(line, &sharing);
        const int64_t shared = count_cores(&sharing);
        cache->cores = shared ? shared : 1;
    }
}

static void read_machine(char machine[128])
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[LINE];
    struct utsname system;
    snprintf(machine, 128, "%s", uname(&system) == 0 ? system.machine : "unknown");
    while (file && fgets(line, sizeof line, file)) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !value)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(machine, 128, "%s", value + 1 + strspn(value + 1, " "));
        break;
    }
    if (file)
        fclose(file);
}

static int64_t count_nodes(void)
{
    char line[LINE];
    cpu_list nodes;
    if (!read_line("/sys/devices/system/node/online", line))
        return 1;
    parse_cpus(line, &nodes);
    const int64_t count = count_cpus(&nodes);
    return count ? count : 1;
}

void nf_topology_read_system(nf_topology *topology)
{
    cpu_list allowed;
    read_allowed(&allowed);
    *topology = (nf_topology){
        .source = "system",
        .cores = count_cores(&allowed),
        .pus = count_cpus(&allowed),
        .numa_nodes = count_nodes(),
    };
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    topology->memory_bytes = pages > 0 && page > 0 ? (int64_t)pages * page : 0;
    read_machine(topology->machine);
    read_caches(&allowed, topology);
}
