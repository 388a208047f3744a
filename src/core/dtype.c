/* Sizes and names of element types. */
#include "core/dtype.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [NF_F32] = {"f32", 4},
    [NF_F64] = {"f64", 8},
    [NF_BF16] = {"bf16", 2},
    [NF_F16] = {"f16", 2},
};

size_t nf_dtype_size(nf_dtype dtype)
{
    return nf_dtype_is_valid(dtype) ? dtypes[dtype].size : 0;
}

const char *nf_dtype_name(nf_dtype dtype)
{
    return nf_dtype_is_valid(dtype) ? dtypes[dtype].name : NULL;
}
