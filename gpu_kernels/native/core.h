// The arithmetic of quantizing and packing: device-neutral inline functions, one truth for CPU and CUDA.
//
// No standard headers and no fused multiply-add: every float operation is one correctly rounded IEEE operation in the
// order of gpu_kernels/reference.py, so that all builds give the same bytes (compile with -ffp-contract=off, -fmad=false).
#pragma once

#if defined(__CUDACC__)
#define BW_HD __host__ __device__ __forceinline__
#else
#define BW_HD static inline __attribute__((always_inline))
#endif

typedef unsigned char bw_u8;
typedef unsigned short bw_u16;
typedef unsigned int bw_u32;
typedef unsigned long long bw_u64;
typedef long long bw_i64;

BW_HD float bw_rint(float x) { // half to even
#if defined(__CUDA_ARCH__)
    return rintf(x);
#else
    return __builtin_rintf(x);
#endif
}

BW_HD float bw_mul(float a, float b) {
#if defined(__CUDA_ARCH__)
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

// clip(rint(x * inverse) + zero, 0, top) with top = 2^bits - 1. NaN gives the top code.
BW_HD bw_u32 bw_code(float x, float inverse, float zero, float top) {
    float q = bw_rint(bw_mul(x, inverse)) + zero;
    q = q < 0.0f ? 0.0f : q; // NaN passes on
    q = q < top ? q : top;   // and ends here
    return (bw_u32)(int)q;
}

BW_HD float bw_add(float a, float b) {
#if defined(__CUDA_ARCH__)
    return __fadd_rn(a, b);
#else
    return a + b;
#endif
}
// The second where the first is NaN.
BW_HD float bw_min(float a, float b) {
#if defined(__CUDA_ARCH__)
    return fminf(a, b);
#else
    return a < b ? a : b;
#endif
}
BW_HD float bw_max(float a, float b) {
#if defined(__CUDA_ARCH__)
    return fmaxf(a, b);
#else
    return a > b ? a : b;
#endif
}

// 32 codes -> B words, dense, least significant bit first; all shifts are compile-time constants once unrolled.
template <int B> BW_HD void bw_pack32(const bw_u8 *codes, bw_u32 *words) {
    for (int k = 0; k < B; ++k) words[k] = 0;
    for (int i = 0; i < 32; ++i) {
        const int at = i * B, k = at >> 5, shift = at & 31;
        words[k] |= (bw_u32)codes[i] << shift;
        if (shift + B > 32) words[k + 1] |= (bw_u32)codes[i] >> (32 - shift);
    }
}

template <int B> BW_HD void bw_unpack32(const bw_u32 *words, bw_u8 *codes) {
    const bw_u32 mask = (1u << B) - 1;
    for (int i = 0; i < 32; ++i) {
        const int at = i * B, k = at >> 5, shift = at & 31;
        bw_u32 code = words[k] >> shift;
        if (shift + B > 32) code |= words[k + 1] << (32 - shift);
        codes[i] = (bw_u8)(code & mask);
    }
}

union bw_float_bits {
    float f;
    bw_u32 u;
};
union bw_double_bits {
    double f;
    bw_u64 u;
};

BW_HD float bw_from_bf16(bw_u16 bits) {
    bw_float_bits v;
    v.u = (bw_u32)bits << 16;
    return v.f;
}

// Where 1.5 * 2^23 was added to a small number, the bits are BW_MAGIC_BITS + its nearest whole number, ties to even.
#define BW_MAGIC 12582912.0f
#define BW_MAGIC_BITS 0x4b400000u
BW_HD bw_u32 bw_magic(float x) {
    bw_float_bits v;
    v.f = bw_add(x, BW_MAGIC);
    return v.u;
}

// Of NaN the GPU's conversion keeps no payload; none of it reaches a code.
BW_HD float bw_from_half(bw_u16 bits) {
#if defined(__CUDA_ARCH__)
    float out;
    asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(bits));
    return out;
#else
    bw_float_bits v, magic;
    const bw_u32 sign = (bw_u32)(bits & 0x8000u) << 16, rest = bits & 0x7fffu;
    if (rest >= 0x7c00u) { // infinity and NaN
        v.u = sign | 0x7f800000u | ((rest & 0x3ffu) << 13);
        if (rest > 0x7c00u) v.u |= 0x400000u; // quiet, as the hardware conversion does
        return v.f;
    }
    v.u = rest << 13; // value * 2^-112
    magic.u = (254u - 15u) << 23; // 2^112
    v.f *= magic.f;               // exact, subnormals too
    v.u |= sign;
    return v.f;
#endif
}

// Nearest half, ties to even; finite values whose magnitude is at most 65504.
BW_HD bw_u16 bw_to_half(double x) {
    bw_double_bits v;
    v.f = x;
    const bw_u32 sign = (bw_u32)(v.u >> 48) & 0x8000u;
    v.u &= 0x7fffffffffffffffull;
    const int exponent = (int)(v.u >> 52) - 1023;
    if (exponent < -25) return (bw_u16)sign;
    const int shift = exponent < -14 ? 42 + (-14 - exponent) : 42; // bits that half has not
    const bw_u64 mantissa = (v.u & 0xfffffffffffffull) | (1ull << 52);
    const bw_u64 half = 1ull << (shift - 1), rest = mantissa & ((1ull << shift) - 1);
    bw_u64 kept = mantissa >> shift;
    if (rest > half || (rest == half && (kept & 1))) ++kept;
    // The hidden bit of a normal number adds 1 to the exponent field; a carry does the right thing.
    const bw_u64 base = exponent < -14 ? 0 : (bw_u64)(exponent + 14) << 10;
    return (bw_u16)(sign | (bw_u32)(base + kept));
}
BW_HD bw_u16 bw_float_to_half(float x) {
#if defined(__CUDA_ARCH__)
    bw_u16 out;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(x));
    return out;
#else
    return bw_to_half((double)x);
#endif
}

// Scales of round to nearest (quantizers/rtn.py). Smallest positive and largest half.
#define BW_TINY 5.9604644775390625e-08f
#define BW_MAX_HALF 65504.0f

BW_HD float bw_div(float a, float b) {
#if defined(__CUDA_ARCH__)
    return __fdiv_rn(a, b);
#else
    return a / b;
#endif
}

// A scale rounded to half, its magnitude held to BW_TINY; false: it does not fit.
BW_HD bool bw_half_scale(float scale, bw_u16 *out) {
    float magnitude = scale < 0 ? -scale : scale;
    magnitude = magnitude > BW_TINY ? magnitude : BW_TINY;
    if (magnitude > BW_MAX_HALF) return false;
    *out = bw_float_to_half(scale < 0 ? -magnitude : magnitude);
    return true;
}

// Scale and zero point of a group with range [low, high] and top = 2^bits - 1 (see quantizers/rtn.py).
BW_HD bool bw_group_parameters(float low, float high, int bits, bool symmetric, bw_u16 *scale, float *zero) {
    const float top = (float)((1 << bits) - 1), half = (float)(1 << (bits - 1));
    if (symmetric) {
        *zero = half;
        const float extreme = high > -low ? high : low;
        return bw_half_scale(bw_div(extreme, -half) + 0.0f, scale);
    }
    low = low < 0 ? low : 0.0f;
    high = high > 0 ? high : 0.0f;
    if (!bw_half_scale(bw_div(high, top) - bw_div(low, top), scale)) return false;
    const float z = bw_rint(bw_mul(-low, bw_div(1.0f, bw_from_half(*scale))));
    *zero = z < 0 ? 0 : (z < top ? z : top);
    return true;
}

// The scale that keeps w'q = w'w (quantizers/rtn.py, unshrunk_scale), from exact sums over positions p = w / scale, in
// 1/BW_FINE of a step, times their step, and over their squares.
#define BW_FINE 256.0f
BW_HD int bw_fine(float x, float inverse) { return (int)bw_rint(bw_mul(x, bw_mul(inverse, BW_FINE))); }
BW_HD bw_u16 bw_corrected(bw_i64 along, bw_i64 norm, bw_u16 scale) {
    float gain = along != 0 ? bw_mul(bw_div((float)norm, (float)along), 1.0f / BW_FINE) : 1.0f;
    gain = gain < 0.7f ? 0.7f : gain;
    gain = gain > 1.5f ? 1.5f : gain;
    float held = bw_mul(gain, bw_from_half(scale));
    held = held < -BW_MAX_HALF ? -BW_MAX_HALF : held;
    held = held > BW_MAX_HALF ? BW_MAX_HALF : held;
    return (held < 0 ? -held : held) >= BW_TINY ? bw_float_to_half(held) : scale;
}

// One bit, levels {0, s} (quantizers/one_bit.py): positions in 1/BW_REACH of the group's largest magnitude, and in bytes,
// BW_STEPS of them in its root mean square.
#define BW_REACH 4095.0f
#define BW_STEPS 16
#define BW_FIRST_START 10
#define BW_SECOND_START 24
#define BW_LEAST_TOP 7.888609052210118e-31f // 2^-100
BW_HD int bw_position(float x, float inverse) { return (int)bw_rint(bw_mul(x, inverse)); }
BW_HD int bw_byte(int position, int factor) {
    const int rounded = (position * factor + (1 << 14)) >> 15;
    return rounded < -127 ? -127 : rounded > 127 ? 127 : rounded;
}
BW_HD float bw_sqrt(float x) {
#if defined(__CUDA_ARCH__)
    return __fsqrt_rn(x);
#else
    return __builtin_sqrtf(x);
#endif
}
BW_HD int bw_factor(float norm, float count) {
    float spread = bw_sqrt(bw_div(norm, count));
    spread = spread > 1.0f ? spread : 1.0f;
    const float factor = bw_div((float)(BW_STEPS << 15), spread);
    return (int)(factor < 32767.0f ? factor : 32767.0f);
}
