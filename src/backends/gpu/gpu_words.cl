/* The words in which the kernel text is not plain C, for OpenCL. Another language defines the same words. */
#define KERNEL __kernel
#define GLOBAL __global
#define LOCAL __local
#define LOCAL_VARIABLE(type, name) __local type name
#define GROUP_INDEX ((long)get_group_id(0))
#define GROUP_COUNT ((long)get_num_groups(0))
#define GROUP_SIZE ((long)get_local_size(0))
#define GROUP_ITEMS(n) __attribute__((reqd_work_group_size(n, 1, 1)))
#define ITEM_INDEX ((int)get_local_id(0))
#define BARRIER() barrier(CLK_LOCAL_MEM_FENCE)
#define LOCAL_OR(p, bits) atomic_or(p, bits)
#define UNROLL _Pragma("unroll")

#if IN_TYPE == 1
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif

#define HALF_LOAD(p, i) vload_half(i, (__global const half *)(p))
#define HALF_STORE(p, i, x) vstore_half_rte(x, i, (__global half *)(p))
