/* The kernel text, embedded at build time: NULL-terminated lists of strings that make a program each. */
#ifndef NF_GPU_TEXT_H
#define NF_GPU_TEXT_H

#include <stddef.h>

extern const char *const gpu_lanes_source[];
extern const char *const gpu_tile_source[];
extern const char *const gpu_unfused_source[];
extern const char *const gpu_naive_source[];
extern const char *const gpu_merge_source[];

#endif
