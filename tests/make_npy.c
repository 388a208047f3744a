/* make_npy FILE TYPE ORDER SEED EXTENT... - writes a .npy file of numbers in (-1, 1) that depend on the seed and on the
 * row-major index only. TYPE: f4, f8, f2, or u2 for bf16. ORDER: C or F, then in that order in the file, as version 1.0
 * or 2.0. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tools/elements.h"

enum { MAX_DIMS = 8, HEADER_SIZE = 256 };

typedef struct layout {
    int rank;
    int64_t extents[MAX_DIMS];
    int fortran;
} layout;

/* The row-major index of the element that the file holds at a position. */
static int64_t row_major_index(const layout *l, int64_t position)
{
    int64_t index[MAX_DIMS], number = 0;
    for (int i = 0; i < l->rank; i++) {
        const int d = l->fortran ? i : l->rank - 1 - i;
        index[d] = position % l->extents[d];
        position /= l->extents[d];
    }
    for (int d = 0; d < l->rank; d++)
        number = number * l->extents[d] + index[d];
    return number;
}

static double value_of(int64_t seed, int64_t index)
{
    uint64_t x = (uint64_t)index * 0x9e3779b97f4a7c15u + (uint64_t)seed * 0xd1342543de82ef95u;
    for (int i = 0; i < 3; i++)
        x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
    return (double)(int64_t)x * 0x1p-63;
}

static size_t make_header(char header[HEADER_SIZE], const char *type, const layout *l)
{
    int length = snprintf(header, HEADER_SIZE, "{'descr': '<%s', 'fortran_order': %s, 'shape': (", type,
                          l->fortran ? "True" : "False");
    for (int i = 0; i < l->rank; i++)
        length += snprintf(header + length, HEADER_SIZE - (size_t)length, "%lld, ", (long long)l->extents[i]);
    length += snprintf(header + length, HEADER_SIZE - (size_t)length, ")}\n");
    return (size_t)length;
}

static int write_array(FILE *file, const char *type, nf_dtype dtype, int64_t seed, const layout *l)
{
    char header[HEADER_SIZE];
    const size_t length = make_header(header, type, l);
    const unsigned char prefix[] = {0x93, 'N', 'U', 'M', 'P', 'Y', l->fortran ? 2 : 1, 0, (unsigned char)length,
                                    (unsigned char)(length >> 8), 0, 0};
    fwrite(prefix, 1, l->fortran ? 12 : 10, file);
    fwrite(header, 1, length, file);
    int64_t count = 1;
    for (int i = 0; i < l->rank; i++)
        count *= l->extents[i];
    for (int64_t i = 0; i < count; i++) {
        double element;
        nf_tool_store_element(&element, dtype, 0, value_of(seed, row_major_index(l, i)));
        fwrite(&element, nf_dtype_size(dtype), 1, file);
    }
    return ferror(file) ? 2 : 0;
}

int main(int argc, char **argv)
{
    static const char *const types[] = {[NF_F32] = "f4", [NF_F64] = "f8", [NF_BF16] = "u2", [NF_F16] = "f2"};
    int dtype = -1;
    for (int i = 0; argc > 2 && i < 4; i++)
        dtype = strcmp(argv[2], types[i]) == 0 ? i : dtype;
    if (argc < 5 || argc > 5 + MAX_DIMS || dtype < 0) {
        fprintf(stderr, "usage: make_npy FILE f4|f8|f2|u2 C|F SEED EXTENT...\n");
        return 2;
    }
    layout l = {.rank = argc - 5, .fortran = argv[3][0] == 'F'};
    for (int i = 0; i < l.rank; i++)
        l.extents[i] = atoll(argv[5 + i]);
    FILE *file = fopen(argv[1], "wb");
    if (!file) {
        perror(argv[1]);
        return 2;
    }
    const int status = write_array(file, argv[2], (nf_dtype)dtype, atoll(argv[4]), &l);
    return fclose(file) == 0 ? status : 2;
}
