/* The topology through hwloc, of this machine or of a saved one. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "core/status.h"
#include "core/topo_read.h"

#ifdef HAVE_HWLOC

#include <hwloc.h>
#include <stdio.h>
#include <string.h>

static int64_t count_covering(hwloc_topology_t tree, hwloc_const_cpuset_t set, hwloc_obj_type_t type)
{
    int64_t count = 0;
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_obj_covering_cpuset_by_type(tree, set, type, o));)
        count++;
    return count;
}

static void read_caches(hwloc_topology_t tree, hwloc_const_cpuset_t set, nf_topology *topology)
{
    static const hwloc_obj_type_t types[NF_CACHE_LEVELS] = {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE};
    for (int i = 0; i < NF_CACHE_LEVELS; i++) {
        const hwloc_obj_t cache = hwloc_get_next_obj_covering_cpuset_by_type(tree, set, types[i], NULL);
        if (!cache)
            continue;
        topology->cache[i] = (nf_cache){
            .bytes = (int64_t)cache->attr->cache.size,
            .line_bytes = (int64_t)cache->attr->cache.linesize,
            .cores = count_covering(tree, cache->cpuset, HWLOC_OBJ_CORE),
        };
    }
}

static const char *machine_name(hwloc_topology_t tree)
{
    const hwloc_obj_t package = hwloc_get_obj_by_type(tree, HWLOC_OBJ_PACKAGE, 0);
    const char *name = package ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
    return name ? name : "unknown";
}

static void read_tree(hwloc_topology_t tree, hwloc_const_cpuset_t set, nf_topology *topology)
{
    const int64_t cores = count_covering(tree, set, HWLOC_OBJ_CORE), pus = hwloc_bitmap_weight(set);
    const int nodes = hwloc_get_nbobjs_by_type(tree, HWLOC_OBJ_NUMANODE);
    *topology = (nf_topology){
        .source = "hwloc",
        .cores = cores > 0 ? cores
                 : pus > 0 ? pus
                           : 1,
        .pus = pus > 0 ? pus : 1,
        .numa_nodes = nodes > 0 ? nodes : 1,
        .memory_bytes = (int64_t)hwloc_get_root_obj(tree)->total_memory,
    };
    snprintf(topology->machine, sizeof topology->machine, "%s", machine_name(tree));
    read_caches(tree, set, topology);
}

/* Reads the file, or this machine if path is NULL. */
static bool read_path(const char *path, nf_topology *topology)
{
    hwloc_topology_t tree;
    if (hwloc_topology_init(&tree) != 0)
        return false;
    const hwloc_bitmap_t set = hwloc_bitmap_alloc();
    bool loaded = set && (!path || hwloc_topology_set_xml(tree, path) == 0) && hwloc_topology_load(tree) == 0;
    if (loaded) {
        const hwloc_const_cpuset_t all = hwloc_topology_get_allowed_cpuset(tree);
        if (path || hwloc_get_cpubind(tree, set, HWLOC_CPUBIND_PROCESS) != 0 || !hwloc_bitmap_intersects(set, all))
            hwloc_bitmap_copy(set, all);
        hwloc_bitmap_and(set, set, all);
        read_tree(tree, set, topology);
    }
    hwloc_bitmap_free(set);
    hwloc_topology_destroy(tree);
    return loaded;
}

bool nf_topology_read_hwloc(nf_topology *topology)
{
    return read_path(NULL, topology);
}

nf_status nf_topology_load_xml(nf_topology *topology, const char *path)
{
    if (!read_path(path, topology))
        return nf_fail(NF_ERR_ARGUMENT, "topology: '%s' is not a file written by lstopo", path);
    return NF_OK;
}

static int64_t find_node(hwloc_topology_t tree, const nf_pci_address *address)
{
    const hwloc_obj_t device =
        hwloc_get_pcidev_by_busid(tree, address->domain, address->bus, address->device, address->function);
    const hwloc_obj_t near = device ? hwloc_get_non_io_ancestor_obj(tree, device) : NULL;
    if (!near || !near->nodeset || hwloc_bitmap_weight(near->nodeset) != 1)
        return -1;
    return hwloc_bitmap_first(near->nodeset);
}

int64_t nf_topology_pci_node_xml(const char *path, const nf_pci_address *address)
{
    hwloc_topology_t tree;
    if (hwloc_topology_init(&tree) != 0)
        return -1;
    int64_t node = -1;
    if ((!path || hwloc_topology_set_xml(tree, path) == 0) &&
        hwloc_topology_set_io_types_filter(tree, HWLOC_TYPE_FILTER_KEEP_ALL) == 0 && hwloc_topology_load(tree) == 0)
        node = find_node(tree, address);
    hwloc_topology_destroy(tree);
    return node;
}

int64_t nf_topology_pci_node(const nf_pci_address *address)
{
    return nf_topology_pci_node_xml(NULL, address);
}

#else

int64_t nf_topology_pci_node_xml(const char *path, const nf_pci_address *address)
{
    (void)path;
    (void)address;
    return -1;
}

int64_t nf_topology_pci_node(const nf_pci_address *address)
{
    return nf_topology_pci_node_xml(NULL, address);
}

bool nf_topology_read_hwloc(nf_topology *topology)
{
    (void)topology;
    return false;
}

nf_status nf_topology_load_xml(nf_topology *topology, const char *path)
{
    (void)topology;
    return nf_fail(NF_ERR_UNSUPPORTED, "topology: '%s' cannot be read, this build has no hwloc", path);
}

#endif
