/* Elements of any type as double, and seeded random ones. */
#include "elements.h"

#include <math.h>
#include <string.h>

/* A 16-bit format: sign, exponent, mantissa. */
typedef struct half_format {
    int mantissa_bits, bias;
} half_format;

static const half_format bf16 = {7, 127}, f16 = {10, 15};

static double decode(uint16_t bits, half_format f)
{
    const int largest = 2 * f.bias + 1, exponent = bits >> f.mantissa_bits & largest;
    const int mantissa = bits & ((1 << f.mantissa_bits) - 1);
    double magnitude;
    if (exponent == largest)
        magnitude = mantissa ? NAN : HUGE_VAL;
    else if (exponent == 0)
        magnitude = ldexp(mantissa, 1 - f.bias - f.mantissa_bits);
    else
        magnitude = ldexp(mantissa + (1 << f.mantissa_bits), exponent - f.bias - f.mantissa_bits);
    return bits >> 15 ? -magnitude : magnitude;
}

/* The mantissa is rounded as a whole number; if it becomes the next power of two, it carries into the exponent. */
static uint16_t encode(double value, half_format f)
{
    const int infinity = (2 * f.bias + 1) << f.mantissa_bits, sign = signbit(value) ? 0x8000 : 0;
    if (isnan(value))
        return (uint16_t)(sign | infinity | 1 << (f.mantissa_bits - 1));
    const double magnitude = fabs(value);
    int bits = infinity;
    if (magnitude < ldexp(1, f.bias + 1)) {
        const int lowest = 1 - f.bias, natural = magnitude > 0 ? ilogb(magnitude) : lowest;
        const int exponent = natural > lowest ? natural : lowest;
        const int mantissa = (int)lrint(ldexp(magnitude, f.mantissa_bits - exponent));
        bits = mantissa + ((exponent - lowest) << f.mantissa_bits);
    }
    return (uint16_t)(sign | bits);
}

double nf_tool_load_element(const void *data, nf_dtype dtype, int64_t index)
{
    switch (dtype) {
    case NF_F64:
        return ((const double *)data)[index];
    case NF_BF16:
        return decode(((const uint16_t *)data)[index], bf16);
    case NF_F16:
        return decode(((const uint16_t *)data)[index], f16);
    case NF_F32:
    default:
        return (double)((const float *)data)[index];
    }
}

void nf_tool_store_element(void *data, nf_dtype dtype, int64_t index, double value)
{
    switch (dtype) {
    case NF_F64:
        ((double *)data)[index] = value;
        break;
    case NF_BF16:
        ((uint16_t *)data)[index] = encode(value, bf16);
        break;
    case NF_F16:
        ((uint16_t *)data)[index] = encode(value, f16);
        break;
    case NF_F32:
    default:
        ((float *)data)[index] = (float)value;
    }
}

int64_t nf_tool_tensor_count(const nf_tensor *tensor)
{
    int64_t count = 1;
    for (int i = 0; i < tensor->rank; i++)
        count *= tensor->extents[i];
    return count;
}

size_t nf_tool_tensor_bytes(const nf_tensor *tensor)
{
    return (size_t)nf_tool_tensor_count(tensor) * nf_dtype_size(tensor->dtype);
}

/* SplitMix64 (Steele, Lea, Flood 2014); uniform in (0, 1). */
static double uniform(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return ((double)(z >> 11) + 0.5) * 0x1p-53;
}

void nf_tool_fill_normal(const nf_tensor *tensor, uint64_t seed)
{
    static const double pi = 3.14159265358979323846;
    const int64_t count = nf_tool_tensor_count(tensor);
    uint64_t state = seed;
    for (int64_t i = 0; i < count; i += 2) {
        const double radius = sqrt(-2 * log(uniform(&state))), angle = 2 * pi * uniform(&state);
        nf_tool_store_element(tensor->data, tensor->dtype, i, radius * cos(angle));
        if (i + 1 < count)
            nf_tool_store_element(tensor->data, tensor->dtype, i + 1, radius * sin(angle));
    }
}
