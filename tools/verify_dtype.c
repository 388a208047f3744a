/* Element types of `nearfield verify`: its own conversions, by arithmetic rather than by shifting bits. */
#include "verify.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* A 16-bit binary format: mantissa bits and the exponent of the smallest normal number. */
typedef struct small_format {
    int mantissa, min_exponent;
} small_format;

static small_format format_of(nf_dtype dtype)
{
    return dtype == NF_BF16 ? (small_format){7, -126} : (small_format){10, -14};
}

/* Exponents run symmetrically from min_exponent to 1 - min_exponent. */
static int exponent_field_of_infinity(small_format f)
{
    return 3 - 2 * f.min_exponent;
}

static uint16_t encode_small(small_format f, double value)
{
    const int exponent_ones = exponent_field_of_infinity(f) << f.mantissa;
    const int sign = signbit(value) ? 0x8000 : 0;
    if (isnan(value))
        return (uint16_t)(sign | exponent_ones | 1 << (f.mantissa - 1));
    const double size = fabs(value);
    int exponent = size > 0 && isfinite(size) ? ilogb(size) : f.min_exponent;
    if (exponent < f.min_exponent)
        exponent = f.min_exponent;
    if (isinf(size) || exponent > 1 - f.min_exponent)
        return (uint16_t)(sign | exponent_ones);
    /* The hidden bit carries into the exponent field; so does a mantissa that rounds up to a power of two. */
    const int mantissa = (int)nearbyint(ldexp(size, f.mantissa - exponent));
    return (uint16_t)(sign | (((exponent - f.min_exponent) << f.mantissa) + mantissa));
}

static double decode_small(small_format f, uint16_t bits)
{
    const int field = (bits & 0x7fff) >> f.mantissa, fraction = bits & ((1 << f.mantissa) - 1);
    double size;
    if (field == exponent_field_of_infinity(f))
        size = fraction ? NAN : INFINITY;
    else if (field == 0)
        size = ldexp(fraction, f.min_exponent - f.mantissa);
    else
        size = ldexp(fraction + (1 << f.mantissa), f.min_exponent - f.mantissa + field - 1);
    return bits & 0x8000 ? -size : size;
}

double verify_read(nf_dtype dtype, const void *element)
{
    uint16_t small;
    float single;
    double wide;
    switch (dtype) {
    case NF_F32:
        memcpy(&single, element, sizeof single);
        return single;
    case NF_F64:
        memcpy(&wide, element, sizeof wide);
        return wide;
    default:
        memcpy(&small, element, sizeof small);
        return decode_small(format_of(dtype), small);
    }
}

void verify_write(nf_dtype dtype, void *element, double value)
{
    const float single = (float)value;
    switch (dtype) {
    case NF_F32:
        memcpy(element, &single, sizeof single);
        break;
    case NF_F64:
        memcpy(element, &value, sizeof value);
        break;
    default: {
        const uint16_t small = encode_small(format_of(dtype), value);
        memcpy(element, &small, sizeof small);
    }
    }
}

double verify_round(nf_dtype dtype, double value)
{
    if (dtype == NF_F64)
        return value;
    if (dtype == NF_F32)
        return (float)value;
    return decode_small(format_of(dtype), encode_small(format_of(dtype), value));
}

double verify_epsilon(nf_dtype dtype)
{
    switch (dtype) {
    case NF_F64: return DBL_EPSILON;
    case NF_BF16: return 0x1p-7;
    case NF_F16: return 0x1p-10;
    default: return FLT_EPSILON;
    }
}

double verify_largest(nf_dtype dtype)
{
    switch (dtype) {
    case NF_F64: return DBL_MAX;
    case NF_BF16: return 0x1.fep127;
    case NF_F16: return 65504;
    default: return FLT_MAX;
    }
}

nf_dtype verify_working(nf_dtype dtype)
{
    return dtype == NF_F64 ? NF_F64 : NF_F32;
}

uint64_t verify_poison(nf_dtype dtype)
{
    switch (dtype) {
    case NF_F64: return 0x7ffd5a5a5a5a5a5au;
    case NF_BF16: return 0x7fd5u;
    case NF_F16: return 0x7ed5u;
    default: return 0x7fd5a5a5u;
    }
}
