// What a GPU does in one instruction, as functions that a CPU has too: chunks of 16 bytes, words of two halves or four bytes.
#pragma once
#include "core.h"

#if defined(__CUDACC__)
#define BW_METHOD static __host__ __device__ __forceinline__
#define BW_ALIGNED __align__(16)
#define BW_UNROLLED _Pragma("unroll")
#define BW_ROLLED _Pragma("unroll 1")
#else
#define BW_METHOD static inline
#define BW_ALIGNED
#define BW_UNROLLED
#define BW_ROLLED
#endif
// 16 bytes, moved by one instruction.
struct BW_ALIGNED bw_chunk {
    bw_u32 word[4];
#if !defined(__CUDACC__)
} __attribute__((may_alias, packed));
#else
};
#endif

BW_HD bw_u32 bw_bits(float x) {
    bw_float_bits v;
    v.f = x;
    return v.u;
}
BW_HD float bw_float(bw_u32 bits) {
    bw_float_bits v;
    v.u = bits;
    return v.f;
}
BW_HD int bw_more(int a, int b) { return a > b ? a : b; }
BW_HD bw_u32 bw_above(bw_u32 a, bw_u32 b) { return a > b ? a : b; }

// The same for both halves of a word, as signed and as unsigned numbers.
BW_HD bw_u32 bw_more_of_two(bw_u32 a, bw_u32 b) {
#if defined(__CUDA_ARCH__)
    return __vmaxs2(a, b);
#else
    const bw_u32 high = (int)a >> 16 > (int)b >> 16 ? a : b, low = (int)(a << 16) > (int)(b << 16) ? a : b;
    return (high & 0xffff0000u) | (low & 0xffffu);
#endif
}
BW_HD bw_u32 bw_above_of_two(bw_u32 a, bw_u32 b) {
#if defined(__CUDA_ARCH__)
    return __vmaxu2(a, b);
#else
    const bw_u32 high = a >> 16 > b >> 16 ? a : b, low = a << 16 > b << 16 ? a : b;
    return (high & 0xffff0000u) | (low & 0xffffu);
#endif
}
// a + b, no more than c and no less than zero.
BW_HD bw_u32 bw_held_sum(bw_u32 a, bw_u32 b, bw_u32 c) {
#if defined(__CUDA_ARCH__)
    return (bw_u32)__viaddmin_s32_relu((int)a, (int)b, (int)c);
#else
    const int sum = (int)(a + b), less = sum < (int)c ? sum : (int)c;
    return (bw_u32)(less > 0 ? less : 0);
#endif
}
// The same of both halves.
BW_HD bw_u32 bw_held_sum_of_two(bw_u32 a, bw_u32 b, bw_u32 c) {
#if defined(__CUDA_ARCH__)
    return __viaddmin_s16x2_relu(a, b, c);
#else
    const bw_u32 sum = (a & 0xffff0000u) + (b & 0xffff0000u), low = (a << 16) + (b << 16);
    const int x = (int)sum >> 16, y = (int)low >> 16, cx = (int)c >> 16, cy = (int)(c << 16) >> 16;
    const int high = x < cx ? x : cx, less = y < cy ? y : cy;
    return (bw_u32)(high > 0 ? high : 0) << 16 | (bw_u32)(less > 0 ? less : 0);
#endif
}

// a + b of both halves, or zero where that is less; min(a, b) of halves that are not negative.
BW_HD bw_u32 bw_rise_of_two(bw_u32 a, bw_u32 b) {
#if defined(__CUDA_ARCH__)
    return __viaddmax_s16x2_relu(a, b, 0);
#else
    const int high = ((int)a >> 16) + ((int)b >> 16), low = ((int)(a << 16) >> 16) + ((int)(b << 16) >> 16);
    return (bw_u32)(high > 0 ? high : 0) << 16 | (bw_u32)(low > 0 ? low : 0);
#endif
}
BW_HD bw_u32 bw_less_of_two(bw_u32 a, bw_u32 b) {
#if defined(__CUDA_ARCH__)
    return __vmins2(a, b);
#else
    const bw_u32 high = (int)a >> 16 < (int)b >> 16 ? a : b, low = (int)(a << 16) < (int)(b << 16) ? a : b;
    return (high & 0xffff0000u) | (low & 0xffffu);
#endif
}
// The upper, the lower halves of two words as one.
BW_HD bw_u32 bw_upper_of_two(bw_u32 high, bw_u32 low) {
#if defined(__CUDA_ARCH__)
    return __byte_perm(low, high, 0x7632);
#else
    return (high & 0xffff0000u) | low >> 16;
#endif
}
BW_HD bw_u32 bw_lower_of_two(bw_u32 high, bw_u32 low) {
#if defined(__CUDA_ARCH__)
    return __byte_perm(low, high, 0x5410);
#else
    return high << 16 | (low & 0xffffu);
#endif
}
// The lower bytes of the halves of two words, as the bytes of one.
BW_HD bw_u32 bw_bytes_of_two(bw_u32 high, bw_u32 low) {
#if defined(__CUDA_ARCH__)
    return __byte_perm(low, high, 0x6420);
#else
    return (low & 0xffu) | (low >> 8 & 0xff00u) | (high & 0xffu) << 16 | (high & 0xff0000u) << 8;
#endif
}
// How far apart the bytes of two words are, all four together, and c.
BW_HD bw_u32 bw_apart(bw_u32 a, bw_u32 b, bw_u32 c) {
#if defined(__CUDA_ARCH__)
    bw_u32 sum;
    asm("vabsdiff4.u32.u32.u32.add %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
#else
    for (int i = 0; i < 32; i += 8) {
        const int apart = (int)(a >> i & 0xffu) - (int)(b >> i & 0xffu);
        c += (bw_u32)(apart < 0 ? -apart : apart);
    }
    return c;
#endif
}
BW_HD bw_u32 bw_both(int x) { return (bw_u32)x << 16 | ((bw_u32)x & 0xffffu); }

BW_HD int bw_ones(bw_u32 bits) {
#if defined(__CUDA_ARCH__)
    return __popc(bits);
#else
    return __builtin_popcount(bits);
#endif
}
// Of a power of two.
BW_HD bw_u32 bw_log2(bw_u32 x) {
#if defined(__CUDA_ARCH__)
    return 31 - __clz((int)x);
#else
    return 31 - __builtin_clz(x);
#endif
}
