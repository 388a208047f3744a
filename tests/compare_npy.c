/* compare_npy A B LIMIT - exits 0 iff two .npy files have equal extents (leading ones may be missing) and their elements
 * differ by at most LIMIT * (1 + |b|). '<u2' is read as bf16. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "../tools/elements.h"
#include "../tools/npy.h"

static nf_dtype dtype_of(npy_type type)
{
    return type == NPY_F4 ? NF_F32 : type == NPY_F8 ? NF_F64 : type == NPY_F2 ? NF_F16 : NF_BF16;
}

static int64_t extent_from_end(const struct npy *array, int d)
{
    return d < array->rank ? array->extents[array->rank - 1 - d] : 1;
}

/* Where the element with a row-major index lies. */
static int64_t offset_of(const struct npy *array, int64_t index)
{
    int64_t offset = 0;
    for (int d = array->rank - 1; d >= 0; d--) {
        offset += index % array->extents[d] * array->strides[d];
        index /= array->extents[d];
    }
    return offset;
}

static int differ(const struct npy *a, const struct npy *b, double limit)
{
    for (int d = 0; d < NPY_MAX_RANK; d++) {
        if (extent_from_end(a, d) != extent_from_end(b, d)) {
            printf("the extents differ\n");
            return 1;
        }
    }
    double worst = 0;
    for (int64_t i = 0; i < a->count; i++) {
        const double x = nf_tool_load_element(a->data, dtype_of(a->type), offset_of(a, i));
        const double y = nf_tool_load_element(b->data, dtype_of(b->type), offset_of(b, i));
        const double error = x == y ? 0 : fabs(x - y) / (1 + fabs(y));
        worst = isnan(error) || error > worst ? error : worst;
        if (isnan(worst))
            break;
    }
    printf("largest difference %g, limit %g\n", worst, limit);
    return worst <= limit ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct npy arrays[2];
    if (argc != 4) {
        fprintf(stderr, "usage: compare_npy A B LIMIT\n");
        return 2;
    }
    for (int i = 0; i < 2; i++) {
        if (npy_open(argv[1 + i], &arrays[i])) {
            fprintf(stderr, "%s: %s\n", argv[1 + i], arrays[i].error);
            return 2;
        }
    }
    const int status = differ(&arrays[0], &arrays[1], atof(argv[3]));
    npy_close(&arrays[0]);
    npy_close(&arrays[1]);
    return status;
}
