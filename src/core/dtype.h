/* Element types and exact conversions between them. Compilers of our range have no bf16 or f16 type in C, so both are
 * uint16_t here. All conversions round to nearest even, keep NaN a NaN, and handle denormals. */
#ifndef NF_CORE_DTYPE_H
#define NF_CORE_DTYPE_H

#include <stdbool.h>
#include <string.h>

#include "nearfield.h"

static inline bool nf_dtype_is_valid(nf_dtype dtype)
{
    return (unsigned)dtype <= NF_F16;
}

static inline uint32_t nf_float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float nf_float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float nf_bf16_to_f32(uint16_t bits)
{
    return nf_float_from_bits((uint32_t)bits << 16);
}

static inline uint16_t nf_f32_to_bf16(float value)
{
    const uint32_t bits = nf_float_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u); /* quiet, lest the payload vanish and leave infinity */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline float nf_f16_to_f32(uint16_t bits)
{
    const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, exponent = bits >> 10 & 0x1fu, fraction = bits & 0x3ffu;
    if (exponent == 0x1fu)
        return nf_float_from_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent)
        return nf_float_from_bits(sign | (exponent + 112u) << 23 | fraction << 13);
    const float magnitude = (float)fraction * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

static inline uint16_t nf_f32_to_f16(float value)
{
    const uint32_t bits = nf_float_bits(value), magnitude = bits & 0x7fffffffu;
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    if (magnitude >= 0x477ff000u) /* 65520, halfway between the greatest number and the next */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude >= 0x38800000u) { /* 2^-14, the least normal number */
        const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
        return (uint16_t)(sign | (rounded - (112u << 23)) >> 13);
    }
    if (magnitude <= 0x33000000u) /* 2^-25, halfway between zero and the least number */
        return sign;
    const uint32_t significand = (magnitude & 0x7fffffu) | 0x800000u, shift = 126u - (magnitude >> 23);
    const uint32_t kept = significand >> shift, half = 1u << (shift - 1), rest = significand & ((half << 1) - 1);
    return (uint16_t)(sign | (kept + (rest > half || (rest == half && (kept & 1u)))));
}

/* Rounds to odd: rounding that to a type of at most 22 significant bits is then as good as rounding the double. */
static inline float nf_f64_to_f32_odd(double value)
{
    const float nearest = (float)value;
    const uint32_t bits = nf_float_bits(nearest);
    if ((double)nearest == value || value != value || (bits & 0x7fffffffu) == 0x7f800000u || (bits & 1u))
        return nearest;
    const bool grow = (double)nearest < value ? value > 0 : value < 0;
    if ((bits & 0x7fffffffu) == 0)
        return nf_float_from_bits((value < 0 ? 0x80000000u : 0u) | 1u);
    return nf_float_from_bits(grow ? bits + 1u : bits - 1u);
}

static inline uint16_t nf_f64_to_bf16(double value)
{
    return nf_f32_to_bf16(nf_f64_to_f32_odd(value));
}

static inline uint16_t nf_f64_to_f16(double value)
{
    return nf_f32_to_f16(nf_f64_to_f32_odd(value));
}

#endif
