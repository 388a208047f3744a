/* Conversions: every value of the 16-bit types, every midpoint between them, and doubles that round twice wrongly. */
#include <math.h>

#include "core/dtype.h"
#include "harness.h"

/* One 16-bit type, for tests that run on both. */
typedef struct format {
    float (*widen)(uint16_t bits);
    uint16_t (*narrow)(float value);
    uint16_t (*narrow_double)(double value);
    uint16_t infinity;
} format;

static const format formats[] = {
    {nf_bf16_to_f32, nf_f32_to_bf16, nf_f64_to_bf16, 0x7f80},
    {nf_f16_to_f32, nf_f32_to_f16, nf_f64_to_f16, 0x7c00},
};

START_TEST(sizes_and_names)
{
    ck_assert_uint_eq(nf_dtype_size(NF_F32), 4);
    ck_assert_uint_eq(nf_dtype_size(NF_F64), 8);
    ck_assert_uint_eq(nf_dtype_size(NF_BF16), 2);
    ck_assert_uint_eq(nf_dtype_size(NF_F16), 2);
    ck_assert_str_eq(nf_dtype_name(NF_F16), "f16");
    ck_assert_str_eq(nf_dtype_name(NF_BF16), "bf16");
    ck_assert_uint_eq(nf_dtype_size((nf_dtype)4), 0);
    ck_assert_ptr_null(nf_dtype_name((nf_dtype)-1));
}
END_TEST

START_TEST(every_value_survives)
{
    const format *f = &formats[_i];
    for (unsigned bits = 0; bits < 0x10000; bits++) {
        const float value = f->widen((uint16_t)bits);
        if ((bits & 0x7fffu) > f->infinity) {
            ck_assert(isnan(value));
            ck_assert(isnan(f->widen(f->narrow(value))));
            ck_assert(isnan(f->widen(f->narrow_double(value))));
            continue;
        }
        ck_assert_uint_eq(f->narrow(value), bits);
        ck_assert_uint_eq(f->narrow_double(value), bits);
    }
}
END_TEST

/* Between each two neighbours: just below the middle rounds down, the middle to even, just above up. */
START_TEST(midpoints_round_to_even)
{
    const format *f = &formats[_i];
    for (unsigned bits = 0; bits < f->infinity; bits++) {
        const double low = f->widen((uint16_t)bits);
        const double high = bits + 1u == f->infinity ? 2 * low - (double)f->widen((uint16_t)(bits - 1))
                                                     : (double)f->widen((uint16_t)(bits + 1));
        const double middle = (low + high) / 2;
        const unsigned even = bits + (bits & 1u);
        ck_assert_uint_eq(f->narrow_double(middle), even);
        ck_assert_uint_eq(f->narrow_double(-middle), even | 0x8000u);
        ck_assert_uint_eq(f->narrow_double(nextafter(middle, 0)), bits);
        ck_assert_uint_eq(f->narrow_double(nextafter(middle, INFINITY)), bits + 1);
        const float exact = (float)middle; /* bf16 denormals have midpoints that f32 holds as well */
        ck_assert_double_eq((double)exact, middle);
        ck_assert_uint_eq(f->narrow(exact), even);
        ck_assert_uint_eq(f->narrow(nextafterf(exact, 0)), bits);
        ck_assert_uint_eq(f->narrow(nextafterf(exact, INFINITY)), bits + 1);
    }
}
END_TEST

START_TEST(beyond_the_greatest)
{
    const format *f = &formats[_i];
    ck_assert_uint_eq(f->narrow(INFINITY), f->infinity);
    ck_assert_uint_eq(f->narrow(-INFINITY), f->infinity | 0x8000u);
    ck_assert_uint_eq(f->narrow_double(1e300), f->infinity);
    ck_assert_uint_eq(f->narrow_double(-1e300), f->infinity | 0x8000u);
    ck_assert_uint_eq(f->narrow_double(1e-300), 0);
    ck_assert_uint_eq(f->narrow_double(-1e-300), 0x8000u);
    ck_assert_uint_eq(f->narrow_double(-0.0), 0x8000u);
    ck_assert(isnan(f->widen(f->narrow(nf_float_from_bits(0x7f800001u)))));
    ck_assert(isnan(f->widen(f->narrow(nf_float_from_bits(0xffffffffu)))));
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("dtype");
    tcase_add_test(cases, sizes_and_names);
    tcase_add_loop_test(cases, every_value_survives, 0, 2);
    tcase_add_loop_test(cases, midpoints_round_to_even, 0, 2);
    tcase_add_loop_test(cases, beyond_the_greatest, 0, 2);
    Suite *suite = suite_create("dtype");
    suite_add_tcase(suite, cases);
    return nf_test_main(suite);
}
