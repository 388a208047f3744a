/* Topologies: this machine both ways, recorded machines, control groups in a scratch directory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <sched.h>

#include "core/topo.h"
#include "core/topo_read.h"
#include "harness.h"

static void check_sane(const nf_topology *t)
{
    ck_assert_int_ge(t->cores, 1);
    ck_assert_int_ge(t->pus, t->cores);
    ck_assert_int_ge(t->numa_nodes, 1);
    ck_assert_int_ge(nf_topology_default_threads(t), 1);
    ck_assert_int_le(nf_topology_default_threads(t), t->cores);
    ck_assert_int_gt((int)strlen(t->machine), 0);
}

START_TEST(this_machine)
{
    nf_topology t;
    nf_topology_detect(&t);
    check_sane(&t);
#ifdef HAVE_HWLOC
    ck_assert_str_eq(t.source, "hwloc");
#else
    ck_assert_str_eq(t.source, "system");
#endif
}
END_TEST

/* hwloc and the fallback must agree on what both can see. */
START_TEST(fallback_agrees)
{
    nf_topology system, hwloc;
    nf_topology_read_system(&system);
    check_sane(&system);
    ck_assert_str_eq(system.source, "system");
    if (!nf_topology_read_hwloc(&hwloc))
        NF_SKIP("this build has no hwloc");
    ck_assert_int_eq(system.pus, hwloc.pus);
    ck_assert_int_eq(system.cores, hwloc.cores);
    ck_assert_int_eq(system.numa_nodes, hwloc.numa_nodes);
    for (int i = 0; i < NF_CACHE_LEVELS; i++)
        if (system.cache[i].bytes) {
            ck_assert_int_eq(system.cache[i].bytes, hwloc.cache[i].bytes);
            ck_assert_int_eq(system.cache[i].line_bytes, hwloc.cache[i].line_bytes);
        }
}
END_TEST

START_TEST(affinity_limits_threads)
{
#ifdef HAVE_SCHED_GETAFFINITY
    nf_topology t;
    nf_topology_detect(&t);
    if (t.pus < 2)
        NF_SKIP("this process has one hardware thread");
    cpu_set_t set, one;
    ck_assert_int_eq(sched_getaffinity(0, sizeof set, &set), 0);
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &set))
            CPU_SET(i, &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
    nf_topology_detect(&t);
    ck_assert_int_eq(t.cores, 1);
    ck_assert_int_eq(t.pus, 1);
    nf_topology_read_system(&t);
    ck_assert_int_eq(t.cores, 1);
    ck_assert_int_eq(t.pus, 1);
    ck_assert_int_eq(sched_setaffinity(0, sizeof set, &set), 0);
#else
    NF_SKIP("this system has no sched_getaffinity");
#endif
}
END_TEST

static const char *saved_machine(const char *name)
{
    static char path[1024];
    const char *source = getenv("top_srcdir");
    snprintf(path, sizeof path, "%s/tests/topologies/%s", source ? source : ".", name);
    return path;
}

static nf_status load(nf_topology *t, const char *name)
{
    return nf_topology_load_xml(t, saved_machine(name));
}

START_TEST(node_of_a_device)
{
    nf_topology t;
    if (load(&t, "two-nodes.xml") == NF_ERR_UNSUPPORTED)
        NF_SKIP("this build has no hwloc");
    const char *path = saved_machine("two-nodes.xml");
    ck_assert_int_eq(nf_topology_pci_node_xml(path, &(nf_pci_address){.bus = 0x81}), 1);
    ck_assert_int_eq(nf_topology_pci_node_xml(path, &(nf_pci_address){.bus = 0x82}), -1);
    ck_assert_int_eq(nf_topology_pci_node_xml("absent", &(nf_pci_address){.bus = 0x81}), -1);
}
END_TEST

START_TEST(two_nodes)
{
    nf_topology t;
    const nf_status status = load(&t, "two-nodes.xml");
    if (status == NF_ERR_UNSUPPORTED)
        NF_SKIP("this build has no hwloc");
    ck_assert_msg(status == NF_OK, "%s", nf_last_error());
    ck_assert_int_eq(t.cores, 8);
    ck_assert_int_eq(t.pus, 16);
    ck_assert_int_eq(t.numa_nodes, 2);
    ck_assert_int_eq(t.cache[2].bytes, 16 << 20);
    ck_assert_int_eq(t.cache[2].cores, 4);
    ck_assert_int_eq(t.cache[0].bytes, 0);
    ck_assert_int_eq(t.memory_bytes, INT64_C(2) << 30);
    ck_assert_int_eq(nf_topology_default_threads(&t), 8);
}
END_TEST

START_TEST(shared_l2)
{
    nf_topology t;
    const nf_status status = load(&t, "shared-l2.xml");
    if (status == NF_ERR_UNSUPPORTED)
        NF_SKIP("this build has no hwloc");
    ck_assert_msg(status == NF_OK, "%s", nf_last_error());
    ck_assert_int_eq(t.cores, 4);
    ck_assert_int_eq(t.pus, 4);
    ck_assert_int_eq(t.numa_nodes, 1);
    ck_assert_int_eq(t.cache[1].cores, 2);
    ck_assert_int_eq(t.cache[0].cores, 1);
    ck_assert_int_eq(t.cache[2].bytes, 0);
    char text[512];
    nf_text writer;
    nf_text_init(&writer, text, sizeof text);
    nf_topology_describe(&t, &writer);
    ck_assert_ptr_nonnull(strstr(text, "cores: 4, hardware threads 4, memory nodes 1, 1.0 GiB\n"));
    ck_assert_ptr_nonnull(strstr(text, "caches: L1 32 KiB for 1 core, L2 4 MiB for 2 cores\n"));
}
END_TEST

START_TEST(no_topology_file)
{
    nf_topology t;
    const nf_status status = load(&t, "absent.xml");
    if (status == NF_ERR_UNSUPPORTED)
        NF_SKIP("this build has no hwloc");
    ck_assert_int_eq(status, NF_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(nf_last_error(), "absent.xml' is not a file written by lstopo"));
}
END_TEST

/* ---- Control groups ------------------------------------------------------------------------------------------------
 */

static char root[] = "/tmp/nearfield-cgroup-XXXXXX";

static void make_root(void)
{
    strcpy(root + sizeof root - 7, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
}

static void remove_root(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    ck_assert_int_eq(system(command), 0);
}

/* Writes a file under root and the directories above it. */
static void put(const char *path, const char *content)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(full, 0700);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    ck_assert_ptr_nonnull(file);
    fputs(content, file);
    fclose(file);
}

START_TEST(no_groups_no_limit)
{
    ck_assert_double_eq(nf_topology_read_quota(root), 0);
    put("/proc/self/cgroup", "0::/\n");
    ck_assert_double_eq(nf_topology_read_quota(root), 0);
}
END_TEST

START_TEST(device_files_of_a_gpu)
{
    ck_assert(!nf_topology_read_gpu(root));
    put("/dev/dri/card0", "");
    put("/dev/null", "");
    ck_assert(!nf_topology_read_gpu(root));
    put("/dev/dri/renderD128", "");
    ck_assert(nf_topology_read_gpu(root));
}
END_TEST

START_TEST(version_2)
{
    put("/proc/self/cgroup", "0::/outer/inner\n");
    put("/sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n");
    ck_assert_double_eq(nf_topology_read_quota(root), 0);
    put("/sys/fs/cgroup/outer/cpu.max", "250000 100000\n");
    ck_assert_double_eq(nf_topology_read_quota(root), 2.5);
    put("/sys/fs/cgroup/outer/inner/cpu.max", "400000 100000\n");
    ck_assert_double_eq(nf_topology_read_quota(root), 2.5);
    put("/sys/fs/cgroup/cpu.max", "50000 100000\n");
    ck_assert_double_eq(nf_topology_read_quota(root), 0.5);
}
END_TEST

START_TEST(version_1)
{
    put("/proc/self/cgroup", "7:cpuset:/job\n4:cpu,cpuacct:/job\n0::/\n");
    put("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    ck_assert_double_eq(nf_topology_read_quota(root), 0);
    put("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "300000\n");
    ck_assert_double_eq(nf_topology_read_quota(root), 3);
}
END_TEST

/* Inside a container the group is the mount's root, whatever the host calls it. */
START_TEST(container)
{
    put("/proc/self/cgroup", "3:cpu:/docker/0123456789abcdef\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    ck_assert_double_eq(nf_topology_read_quota(root), 1.5);
}
END_TEST

START_TEST(nonsense_is_no_limit)
{
    put("/proc/self/cgroup", "\n::::\nno colons\n0::\n5:cpu:/\n");
    put("/sys/fs/cgroup/cpu.max", "many few\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "abc\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "0\n");
    ck_assert_double_eq(nf_topology_read_quota(root), 0);
}
END_TEST

START_TEST(quota_bounds_threads)
{
    nf_topology t = {.cores = 8, .pus = 16};
    ck_assert_int_eq(nf_topology_default_threads(&t), 8);
    t.quota = 2.5;
    ck_assert_int_eq(nf_topology_default_threads(&t), 3);
    t.quota = 0.1;
    ck_assert_int_eq(nf_topology_default_threads(&t), 1);
    t.quota = 64;
    ck_assert_int_eq(nf_topology_default_threads(&t), 8);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("topo");
    TCase *machines = tcase_create("machines");
    tcase_add_test(machines, this_machine);
    tcase_add_test(machines, fallback_agrees);
    tcase_add_test(machines, affinity_limits_threads);
    tcase_add_test(machines, two_nodes);
    tcase_add_test(machines, node_of_a_device);
    tcase_add_test(machines, shared_l2);
    tcase_add_test(machines, no_topology_file);
    suite_add_tcase(suite, machines);
    TCase *groups = tcase_create("groups");
    tcase_add_checked_fixture(groups, make_root, remove_root);
    tcase_add_test(groups, no_groups_no_limit);
    tcase_add_test(groups, version_2);
    tcase_add_test(groups, device_files_of_a_gpu);
    tcase_add_test(groups, version_1);
    tcase_add_test(groups, container);
    tcase_add_test(groups, nonsense_is_no_limit);
    tcase_add_test(groups, quota_bounds_threads);
    suite_add_tcase(suite, groups);
    return nf_test_main(suite);
}
