/* Elements of any type as double, and seeded random ones. */
#ifndef NF_TOOLS_ELEMENTS_H
#define NF_TOOLS_ELEMENTS_H

#include "nearfield.h"

/* Element number index of an array. Storing rounds to nearest, ties to even. */
double nf_tool_load_element(const void *data, nf_dtype dtype, int64_t index);
void nf_tool_store_element(void *data, nf_dtype dtype, int64_t index, double value);

/* Elements of a tensor, and bytes that many take. */
int64_t nf_tool_tensor_count(const nf_tensor *tensor);
size_t nf_tool_tensor_bytes(const nf_tensor *tensor);

/* Fills a contiguous tensor with numbers of the standard normal distribution; equal seeds, equal numbers. */
void nf_tool_fill_normal(const nf_tensor *tensor, uint64_t seed);

#endif
