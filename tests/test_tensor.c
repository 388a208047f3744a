/* Tensors: descriptions, DLPack, and overlap against the bytes themselves. */
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/tensor.h"
#include "harness.h"

static uint64_t random_state = 12345;

static int64_t random_below(int64_t below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (int64_t)((random_state >> 33) % (uint64_t)below);
}

static nf_tensor strided(void *data, nf_dtype dtype, int32_t rank, const int64_t *extents, const int64_t *strides)
{
    nf_tensor t;
    ck_assert_int_eq(nf_tensor_init(&t, data, dtype, rank, extents), NF_OK);
    memcpy(t.strides, strides, (size_t)rank * sizeof strides[0]);
    ck_assert_int_eq(nf_tensor_check(&t, "t"), NF_OK);
    return t;
}

START_TEST(init_is_row_major)
{
    nf_tensor t;
    const int64_t extents[] = {2, 3, 5};
    int x;
    ck_assert_int_eq(nf_tensor_init(&t, &x, NF_BF16, 3, extents), NF_OK);
    ck_assert_uint_eq(t.size, sizeof t);
    ck_assert_ptr_eq(t.data, &x);
    ck_assert_int_eq(t.strides[0], 15);
    ck_assert_int_eq(t.strides[1], 5);
    ck_assert_int_eq(t.strides[2], 1);
    ck_assert_int_eq(t.memory, NF_HOST);
    ck_assert_double_eq(nf_tensor_bytes(&t), 60);
}
END_TEST

START_TEST(roles_of_a_problem)
{
    nf_problem p;
    nf_tensor t;
    ck_assert_int_eq(nf_problem_parse(&p, "na2d bf16 out=f32 b2 h6/3 d16/8 9x7 w3 q2:4x0:7 k1:0x2:3 x5 both"), NF_OK);
    static const struct {
        nf_role role;
        nf_dtype dtype;
        int32_t rank;
        int64_t extents[5];
    } expected[] = {
        {NF_Q, NF_BF16, 5, {2, 4, 7, 6, 16}},     {NF_K, NF_BF16, 5, {2, 8, 3, 3, 16}},
        {NF_V, NF_BF16, 5, {2, 8, 3, 3, 8}},      {NF_EXTRA_K, NF_BF16, 4, {2, 5, 3, 16}},
        {NF_EXTRA_V, NF_BF16, 4, {2, 5, 3, 8}},   {NF_OUT, NF_F32, 5, {2, 4, 7, 6, 8}},
        {NF_LSE, NF_F32, 4, {2, 4, 7, 6}},        {NF_DOUT, NF_F32, 5, {2, 4, 7, 6, 8}},
        {NF_DLSE, NF_F32, 4, {2, 4, 7, 6}},       {NF_DQ, NF_BF16, 5, {2, 4, 7, 6, 16}},
        {NF_DK, NF_BF16, 5, {2, 8, 3, 3, 16}},    {NF_DV, NF_BF16, 5, {2, 8, 3, 3, 8}},
        {NF_DEXTRA_K, NF_BF16, 4, {2, 5, 3, 16}}, {NF_DEXTRA_V, NF_BF16, 4, {2, 5, 3, 8}},
        {NF_SCORES, NF_F32, 5, {2, 6, 4, 7, 14}}, {NF_DSCORES, NF_F32, 5, {2, 6, 4, 7, 14}},
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        ck_assert_int_eq(nf_problem_tensor(&p, expected[i].role, &t), NF_OK);
        ck_assert_int_eq(t.dtype, expected[i].dtype);
        ck_assert_int_eq(t.rank, expected[i].rank);
        ck_assert(memcmp(t.extents, expected[i].extents, (size_t)t.rank * sizeof t.extents[0]) == 0);
        ck_assert_int_eq(t.strides[t.rank - 1], 1);
        ck_assert_ptr_null(t.data);
    }
    p.dtype = p.out_dtype = NF_F64;
    ck_assert_int_eq(nf_problem_tensor(&p, NF_LSE, &t), NF_OK);
    ck_assert_int_eq(t.dtype, NF_F64);
}
END_TEST

START_TEST(role_names)
{
    const char *const names[NF_ROLES] = {"q",   "k",        "v",        "extra_k", "extra_v", "bias",
                                         "out", "lse",      "dout",     "dlse",    "dq",      "dk",
                                         "dv",  "dextra_k", "dextra_v", "scores",  "dscores"};
    for (int role = 0; role < NF_ROLES; role++)
        ck_assert_str_eq(nf_role_name((nf_role)role), names[role]);
    ck_assert_ptr_null(nf_role_name(NF_ROLES));
    ck_assert_ptr_null(nf_role_name((nf_role)-1));
}
END_TEST

/* ---- DLPack --------------------------------------------------------------------------------------------------------
 */

/* The struct as DLPack 1.0 lays it out. */
typedef struct dlpack {
    void *data;
    struct {
        int32_t type, id;
    } device;
    int32_t ndim;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} dlpack;

START_TEST(dlpack_types_and_devices)
{
    int64_t shape[] = {2, 3}, strides[] = {-7, 2};
    float memory[32];
    dlpack source = {
        .data = memory, .device = {1, 0}, .ndim = 2, .dtype = {2, 32, 1}, .shape = shape, .byte_offset = 64};
    nf_tensor t;
    ck_assert_int_eq(nf_tensor_from_dlpack(&t, &source), NF_OK);
    ck_assert_ptr_eq(t.data, memory + 16);
    ck_assert_int_eq(t.dtype, NF_F32);
    ck_assert_int_eq(t.strides[0], 3);
    source.strides = strides;
    ck_assert_int_eq(nf_tensor_from_dlpack(&t, &source), NF_OK);
    ck_assert_int_eq(t.strides[0], -7);
    static const struct {
        uint8_t code, bits;
        nf_dtype dtype;
    } types[] = {{2, 64, NF_F64}, {2, 16, NF_F16}, {4, 16, NF_BF16}};
    for (int i = 0; i < 3; i++) {
        source.dtype.code = types[i].code;
        source.dtype.bits = types[i].bits;
        ck_assert_int_eq(nf_tensor_from_dlpack(&t, &source), NF_OK);
        ck_assert_int_eq(t.dtype, types[i].dtype);
    }
    static const struct {
        int32_t device;
        nf_memory memory;
    } devices[] = {{1, NF_HOST}, {2, NF_CUDA}, {3, NF_HOST}, {13, NF_CUDA}};
    for (int i = 0; i < 4; i++) {
        source.device.type = devices[i].device;
        ck_assert_int_eq(nf_tensor_from_dlpack(&t, &source), NF_OK);
        ck_assert_int_eq(t.memory, devices[i].memory);
    }
    ck_assert_int_eq(t.offset, 0);
    source.device.type = 4;
    ck_assert_int_eq(nf_tensor_from_dlpack(&t, &source), NF_OK);
    ck_assert_int_eq(t.memory, NF_OPENCL);
    ck_assert_ptr_eq(t.data, memory);
    ck_assert_int_eq(t.offset, 32);
    source.byte_offset = 3;
    ck_assert_int_eq(nf_tensor_from_dlpack(&t, &source), NF_ERR_TENSOR);
    ck_assert_str_eq(nf_last_error(), "dltensor: byte_offset 3 into an OpenCL buffer is no multiple of 2");
}
END_TEST

/* ---- Overlap -------------------------------------------------------------------------------------------------------
 */

enum { ARENA = 4096 };

/* Adds one to every byte of every element; returns whether a byte was at limit already. */
static bool mark(unsigned char *bytes, const nf_tensor *t, unsigned char limit)
{
    const size_t size = nf_dtype_size(t->dtype);
    int64_t count = 1;
    for (int32_t i = 0; i < t->rank; i++)
        count *= t->extents[i];
    bool hit = false;
    for (int64_t number = 0; number < count; number++) {
        int64_t offset = 0, rest = number;
        for (int32_t i = t->rank - 1; i >= 0; i--) {
            offset += rest % t->extents[i] * t->strides[i];
            rest /= t->extents[i];
        }
        unsigned char *element = bytes + (int64_t)(uintptr_t)t->data + offset * (int64_t)size;
        for (size_t b = 0; b < size; b++) {
            hit = hit || element[b] >= limit;
            element[b]++;
        }
    }
    return hit;
}

/* Data counts from NULL: only differences of addresses matter. */
static nf_tensor random_tensor(void)
{
    int64_t extents[3], strides[3];
    const int32_t rank = (int32_t)(1 + random_below(3));
    const nf_dtype dtype = (nf_dtype)random_below(4);
    for (int32_t i = 0; i < rank; i++) {
        extents[i] = 1 + random_below(4);
        strides[i] = random_below(25) - 12;
    }
    const int64_t place = 1024 + random_below(64) * (int64_t)nf_dtype_size(dtype);
    return strided((void *)(uintptr_t)place, dtype, rank, extents, strides);
}

START_TEST(overlap_is_exact_on_random_tensors)
{
    static unsigned char bytes[ARENA];
    int itself = 0, pairs = 0;
    for (int i = 0; i < 200000; i++) {
        const nf_tensor a = random_tensor(), b = random_tensor();
        memset(bytes, 0, sizeof bytes);
        const bool a_itself = mark(bytes, &a, 1);
        ck_assert_int_eq(nf_tensor_overlaps_itself(&a), a_itself);
        for (size_t j = 0; j < sizeof bytes; j++)
            bytes[j] = bytes[j] ? 100 : 0;
        const bool both = mark(bytes, &b, 100);
        ck_assert_int_eq(nf_tensors_overlap(&a, &b), both);
        ck_assert_int_eq(nf_tensors_overlap(&b, &a), both);
        itself += a_itself;
        pairs += both;
    }
    ck_assert_int_gt(itself, 1000);
    ck_assert_int_gt(pairs, 1000);
    ck_assert_int_lt(pairs, 199000);
}
END_TEST

/* [batch, tokens, 3, heads, dim] holds q, k and v of one projection; with grouped heads [batch, tokens, h + 2 g, dim].
 */
START_TEST(packed_qkv_is_disjoint)
{
    enum { BATCH = 3, TOKENS = 50, HEADS = 8, GROUPS = 2, DIM = 16, SLOTS = HEADS + 2 * GROUPS };
    static float buffer[BATCH * TOKENS * SLOTS * DIM];
    const int64_t q_extents[] = {BATCH, TOKENS, HEADS, DIM}, k_extents[] = {BATCH, TOKENS, GROUPS, DIM};
    const int64_t strides[] = {TOKENS * SLOTS * DIM, SLOTS * DIM, DIM, 1};
    const nf_tensor q = strided(buffer, NF_F32, 4, q_extents, strides);
    const nf_tensor k = strided(buffer + HEADS * DIM, NF_F32, 4, k_extents, strides);
    const nf_tensor v = strided(buffer + (HEADS + GROUPS) * DIM, NF_F32, 4, k_extents, strides);
    const nf_tensor late = strided(buffer + HEADS * DIM - 1, NF_F32, 4, k_extents, strides);
    ck_assert(!nf_tensor_overlaps_itself(&q));
    ck_assert(!nf_tensors_overlap(&q, &k));
    ck_assert(!nf_tensors_overlap(&q, &v));
    ck_assert(!nf_tensors_overlap(&k, &v));
    ck_assert(nf_tensors_overlap(&q, &late));
    ck_assert(nf_tensors_overlap(&late, &q));
    ck_assert(nf_tensors_overlap(&q, &q));
}
END_TEST

/* Heads-first strides, a reversed axis, and a 4-D grid: still proven, within the search's budget. */
START_TEST(unusual_slices_are_disjoint)
{
    enum { A = 5, B = 6, C = 7, D = 8, HEADS = 4, DIM = 32 };
    static float buffer[2 * A * B * C * D * HEADS * DIM];
    const int64_t extents[] = {A, B, C, D, HEADS, DIM};
    const int64_t strides[] = {2 * B * C * D * DIM, 2 * C * D * DIM, -2 * D * DIM, 2 * DIM, 2 * A * B * C * D * DIM, 1};
    float *end = buffer + 2 * D * DIM * (C - 1);
    const nf_tensor even = strided(end, NF_F32, 6, extents, strides);
    const nf_tensor odd = strided(end + DIM, NF_F32, 6, extents, strides);
    ck_assert(!nf_tensor_overlaps_itself(&even));
    ck_assert(!nf_tensors_overlap(&even, &odd));
    const nf_tensor between = strided(end + DIM / 2, NF_F32, 6, extents, strides);
    ck_assert(nf_tensors_overlap(&even, &between));
}
END_TEST

START_TEST(memories_do_not_overlap)
{
    const int64_t extents[] = {4}, strides[] = {1};
    float x[8];
    nf_tensor a = strided(x, NF_F32, 1, extents, strides), b = a;
    ck_assert(nf_tensors_overlap(&a, &b));
    b.memory = NF_CUDA;
    ck_assert(!nf_tensors_overlap(&a, &b));
    a.memory = b.memory = NF_OPENCL;
    ck_assert(nf_tensors_overlap(&a, &b));
    b.data = x + 2;
    ck_assert(!nf_tensors_overlap(&a, &b));
    b.data = x;
    b.offset = 3;
    ck_assert(nf_tensors_overlap(&a, &b));
    b.offset = 4;
    ck_assert(!nf_tensors_overlap(&a, &b));
    ck_assert(!nf_tensors_overlap(&b, &a));
}
END_TEST

/* Strides that fool a test of byte ranges in both directions, and addresses at the ends of the address space. */
START_TEST(far_and_extreme)
{
    const int64_t extents[] = {2, 2}, strides[] = {INT64_C(1) << 40, 1};
    const nf_tensor a = strided((void *)(uintptr_t)64, NF_F32, 2, extents, strides);
    const nf_tensor b = strided((void *)(uintptr_t)(64 + 8), NF_F32, 2, extents, strides);
    const nf_tensor c = strided((void *)(UINTPTR_MAX - 1023), NF_F32, 1, extents, strides + 1);
    ck_assert(!nf_tensors_overlap(&a, &b));
    ck_assert(!nf_tensors_overlap(&a, &c));
    ck_assert(!nf_tensors_overlap(&c, &a));
    const int64_t one[] = {1, 4}, wild[] = {INT64_MIN, 1};
    const nf_tensor d = strided((void *)(uintptr_t)64, NF_F32, 2, one, wild);
    ck_assert(!nf_tensor_overlaps_itself(&d));
    ck_assert(nf_tensors_overlap(&a, &d));
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("tensor");
    tcase_add_test(cases, init_is_row_major);
    tcase_add_test(cases, roles_of_a_problem);
    tcase_add_test(cases, role_names);
    tcase_add_test(cases, dlpack_types_and_devices);
    tcase_add_test(cases, overlap_is_exact_on_random_tensors);
    tcase_add_test(cases, packed_qkv_is_disjoint);
    tcase_add_test(cases, unusual_slices_are_disjoint);
    tcase_add_test(cases, memories_do_not_overlap);
    tcase_add_test(cases, far_and_extreme);
    Suite *suite = suite_create("tensor");
    suite_add_tcase(suite, cases);
    return nf_test_main(suite);
}
