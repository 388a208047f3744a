/* Fuzz target: the reader of .npy files. Whatever it accepts lies inside the bytes it was given. */
#include <stdio.h>
#include <stdlib.h>

#include "../../tools/npy.h"
#include "fuzz.h"

const char nf_fuzz_corpus[] = "npy";

static void require(int condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "%s\n", what);
    abort();
}

/* The array is contiguous in C or Fortran order, so its last element is its end. */
static void check_bounds(const struct npy *array, const uint8_t *bytes, size_t length)
{
    int64_t count = 1, last = 0;
    require(array->rank >= 0 && array->rank <= NPY_MAX_RANK, "rank out of range");
    for (int i = 0; i < array->rank; i++) {
        require(array->extents[i] >= 0, "negative extent");
        count *= array->extents[i];
        last += (array->extents[i] - 1) * array->strides[i];
    }
    require(count == array->count, "count is not the product of the extents");
    if (count == 0)
        return;
    require(last == count - 1, "strides of no contiguous array");
    const uint8_t *data = array->data;
    require(data >= bytes && data <= bytes + length, "data outside the file");
    require((size_t)count <= (size_t)(bytes + length - data) / npy_type_size(array->type), "data past the end");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct npy array;
    if (npy_parse(bytes, length, &array) == 0)
        check_bounds(&array, bytes, length);
    else
        require(array.error[0] != '\0', "refused without a reason");
    npy_close(&array);
    return 0;
}
