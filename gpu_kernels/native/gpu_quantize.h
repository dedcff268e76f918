// Codes clip(rint(x * inverse) + zero) with given scales, packed.
#pragma once
#include "gpu.h"

// Codes below 2^B, four of them, in 4 B bits; each comes less a number that is the same for all. Taken modulo 2^32, as any sum
// of terms that are, it ends below 2^(4 B).
template <int B> BW_HD bw_u32 bw_four(const bw_u32 *code, bw_u32 less) {
    const bw_u32 ones = 1u | 1u << B | 1u << 2 * B | 1u << 3 * B;
    return less * ones + code[0] + (code[1] << B) + (code[2] << 2 * B) + (code[3] << 3 * B);
}

// Fours of 4 B bits, eight of them, to B words.
template <int B> BW_HD void bw_join(bw_u32 *words, int four, bw_u32 bits) {
    const int at = four * 4 * B, k = at / 32, shift = at % 32;
    if (shift == 0) words[k] = bits;
    else words[k] |= bits << shift;
    if (shift + 4 * B > 32) words[k + 1] = bits >> (32 - shift);
}

// 32 codes less `less`, of the places of a unit, to B words in shared memory.
template <int B, class F> BW_HD void bw_pack_unit(bw_u32 *to, bw_u32 less, const F &code) {
    bw_u32 words[B];
    BW_UNROLLED for (int f = 0; f < 8; ++f) {
        bw_u32 codes[4];
        BW_UNROLLED for (int i = 0; i < 4; ++i) codes[i] = code(f * 4 + i);
        bw_join<B>(words, f, bw_four<B>(codes, less));
    }
    BW_UNROLLED for (int k = 0; k < B; ++k) to[k] = words[k];
}

// Floats come by way of shared memory, two-byte values straight from memory: on an H200 1.04 against 0.90 of a copy's speed.
template <class T, int B> struct bw_quantize {
    static const bool staged = T::chunks == 8;
    struct shared {
        bw_staging<T, staged> staging;
        bw_u32 words[BW_THREADS * B];
    };
    struct mine {};
    static const int phases = 3;
    BW_METHOD bw_wait wait(int p, const bw_args &) { return p == 1 || (p == 0 && staged) ? BW_FOR_WARP : BW_NONE; }

    BW_METHOD void phase(int p, const bw_args &a, bw_u32 thread, bw_u32 block, shared &s, mine &) {
        if (p == 0 && staged) bw_stage<T>(a, thread, block, s.staging.x);
        if (p == 1 && thread < bw_held(a, block)) {
            bw_unit<T> unit;
            if (staged) bw_read<T>(thread, s.staging.x, unit);
            else bw_read_memory<T>(a, thread, block, unit);
            const bw_u32 group = (block * BW_THREADS + thread) / bw_span(a);
            codes(a.inverse[group], a.zero[group], unit, s.words + thread * B);
        }
        if (p == 2) bw_store_words<B>(a, thread, block, s.words);
    }

    // For a whole zero in [0, top] rounding is the addition of BW_MAGIC, once the position is clipped at whole numbers: that may
    // come first, as rounding keeps order. NaN gives the top code, as in bw_code.
    BW_METHOD void codes(float inverse, float zero, const bw_unit<T> &unit, bw_u32 *words) {
        const float top = (float)((1 << B) - 1), low = -zero, high = top - zero;
        if (zero >= 0.0f && zero <= top && bw_rint(zero) == zero) {
            const bw_u32 base = bw_magic(zero) - BW_MAGIC_BITS - BW_MAGIC_BITS;
            bw_pack_unit<B>(words, base, [&](int i) {
                return bw_magic(bw_max(bw_min(bw_mul(bw_at<T>(unit, i), inverse), high), low));
            });
        } else bw_pack_unit<B>(words, 0, [&](int i) { return bw_code(bw_at<T>(unit, i), inverse, zero, top); });
    }
};

// Any shape and alignment: a thread reads the values of its unit and writes its words, of which the last of a row may have fewer.
template <class T, int B> struct bw_quantize_any {
    struct shared {};
    struct mine {};
    static const int phases = 1;
    BW_METHOD bw_wait wait(int, const bw_args &) { return BW_NONE; }
    BW_METHOD void phase(int, const bw_args &a, bw_u32 thread, bw_u32 block, shared &, mine &) {
        const bw_i64 unit = (bw_i64)block * BW_THREADS + thread, each = bw_ceil(a.columns, 32), groups = bw_ceil(a.columns, a.group);
        if (unit >= bw_units(a)) return;
        const bw_i64 row = unit / each, start = (unit - row * each) * 32, nwords = bw_ceil(a.columns * B, 32);
        const typename T::type *x = (const typename T::type *)a.x + row * a.columns;
        bw_u32 *words = a.words + row * nwords;
        bw_u64 bits = 0;
        int held = 0;
        bw_i64 g = start / a.group, end = g * a.group, at = start / 32 * B;
        float inverse = 0.0f, zero = 0.0f;
        BW_ROLLED for (bw_i64 column = start; column < start + 32 && column < a.columns; ++column) {
            if (column == end || column == start) {
                g = column / a.group, end = (g + 1) * a.group;
                inverse = a.inverse[row * groups + g], zero = a.zero[row * groups + g];
            }
            bits |= (bw_u64)bw_code(T::load(x + column), inverse, zero, (float)((1 << B) - 1)) << held;
            held += B;
            if (held >= 32) words[at++] = (bw_u32)bits, bits >>= 32, held -= 32;
        }
        if (held) words[at] = (bw_u32)bits;
    }
};
