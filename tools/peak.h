/* The machine's limits, measured: multiply-adds per second of each instruction set, and bytes per second from memory. */
#ifndef NF_TOOLS_PEAK_H
#define NF_TOOLS_PEAK_H

#include "nearfield.h"

/* Flops per second of multiply-adds on this many threads (no more than there are processors), with the widest vectors
 * that the instruction set called kernel has (as nf_plan_info names it) and that this machine runs; an unknown name stands for the best set. bf16 counts
 * the dot-product instruction where there is one; bf16 without it and f16 compute in f32. *set, if not NULL, names what
 * was measured. Each combination is measured once per process. */
double nf_tool_peak_flops(const char *kernel, nf_dtype dtype, int threads, const char **set);

/* Seconds that this many threads take to read some bytes and write others, each once, a part of their own each: the least
 * of several passes, so small sizes are in the caches. 0 if there is no memory for it. */
double nf_tool_stream_seconds(size_t read_bytes, size_t written_bytes, int threads);

/* Bytes per second of reading, by this many threads, four times what the last-level cache holds; measured anew when the
 * number of threads changes. */
double nf_tool_peak_bandwidth(int threads);

#endif
