// Range, scale, codes and words of round to nearest in one pass over the values.
#pragma once
#include "gpu_quantize.h"

// A thread sums up the squares of so many positions in 32 bits: |fine| is at most 1.5 * 2^(B-1) * BW_FINE (a scale rounded to
// half may lose a third).
template <int B> struct bw_squares {
    static const int fit = B <= 5 ? 32 : B == 6 ? 16 : B == 7 ? 4 : 1;
};

// The group is 32, 64, ..., 32 * BW_THREADS (a power of two) and divides the columns, so no group crosses a block. Sums of the
// correction are whole numbers, so that the order in which threads add them up does not matter.
template <class T, int B> struct bw_rtn {
    struct shared {
        bw_staging<T> staging;
        bw_range range[BW_THREADS];
        float inverse[BW_THREADS], zero[BW_THREADS]; // of a group, at its number in the block
        bw_u64 norm[BW_THREADS];
        int along[BW_THREADS];
        bw_u16 scale[BW_THREADS]; // of a group, where it is to be corrected
        bw_u32 words[BW_THREADS * B];
    };
    struct mine {};
    static const int phases = 5;
    BW_METHOD bw_wait wait(int p, const bw_args &a) {
        return p == 1 || p == 2 || (p == 3 && a.symmetric == 2) ? BW_FOR_BLOCK : p == 4 ? BW_NONE : BW_FOR_WARP;
    }

    BW_METHOD void phase(int p, const bw_args &a, bw_u32 thread, bw_u32 block, shared &s, mine &) {
        const bw_u32 held = bw_held(a, block), span = bw_span(a), group = thread >> bw_log2(span);
        const bool own = thread < held, leads = thread * span < held;
        if (p == 0) bw_stage<T>(a, thread, block, s.staging.x);
        if ((p == 1 || p == 3) && own) { // registers do not hold them meanwhile: more threads fit
            bw_unit<T> unit;
            bw_read<T>(thread, s.staging.x, unit);
            if (p == 1) s.range[thread] = bw_range_of<T>(unit);
            else if (a.symmetric == 2) fine_codes(thread, group, unit, s);
            else codes(thread, group, unit, s);
        }
        if (p == 2 && leads) parameters(a, thread, span, block, s);
        if (p == 4) bw_store_words<B>(a, thread, block, s.words);
        if (p == 4 && a.symmetric == 2 && leads) correct(a, thread, span, block, s);
    }

    // One thread a group, the first threads of a block.
    BW_METHOD void parameters(const bw_args &a, bw_u32 thread, bw_u32 span, bw_u32 block, shared &s) {
        const bw_range r = bw_range_of_group(s.range + thread * span, span);
        const bw_u32 low = r.least >> 31 ? r.least : 0u;
        int bad = r.most >= 0x7f800000 || (low & 0x7fffffffu) >= 0x7f800000u;
        bw_u16 scale = 0;
        float zero = 0.0f;
        if (!bad && !bw_group_parameters(bw_float(low), bw_float((bw_u32)r.most), B, a.symmetric != 0, &scale, &zero)) bad = 2;
        if (bad) *a.status = bad; // any thread's reason will do
        const bw_u32 group = block * (BW_THREADS >> bw_log2(span)) + thread;
        if (a.symmetric == 2) s.scale[thread] = scale;
        else a.scales[group] = scale;
        if (a.zeros) a.zeros[group] = (bw_u8)(int)zero;
        s.inverse[thread] = bad ? 0.0f : bw_div(1.0f, bw_from_half(scale));
        s.zero[thread] = zero;
    }

    // The position of a weight in 1/BW_FINE of a step; not large, so that additions can round it: to a whole number of those,
    // or of steps, which are the last place of BW_MAGIC * BW_FINE. Multiplying by BW_FINE is exact.
    BW_METHOD float position(const bw_unit<T> &unit, int i, float inverse) {
        return bw_mul(bw_at<T>(unit, i), bw_mul(inverse, BW_FINE));
    }
    BW_METHOD bw_u32 code(float position, float zero) {
        const bw_u32 magic = bw_bits(BW_MAGIC * BW_FINE);
        return bw_held_sum(bw_bits(bw_add(position, BW_MAGIC * BW_FINE)), (bw_u32)(int)zero - magic, (1u << B) - 1);
    }

    BW_METHOD void codes(bw_u32 thread, bw_u32 group, const bw_unit<T> &unit, shared &s) {
        const float inverse = s.inverse[group], zero = s.zero[group];
        bw_pack_unit<B>(s.words + thread * B, 0, [&](int i) { return code(position(unit, i, inverse), zero); });
    }

    // The same, and the sums of the correction. `fine` below carries BW_MAGIC_BITS, whose square is nothing modulo 2^32.
    BW_METHOD void fine_codes(bw_u32 thread, bw_u32 group, const bw_unit<T> &unit, shared &s) {
        const float inverse = s.inverse[group], zero = s.zero[group];
        bw_u32 along = 0, codes = 0, fines = 0, squares = 0, some = 0;
        bw_u64 norm = 0;
        bw_pack_unit<B>(s.words + thread * B, 0, [&](int i) {
            const float at = position(unit, i, inverse);
            const bw_u32 fine = bw_magic(at), step = code(at, zero);
            along += fine * step, squares += fine * fine, some += fine, codes += step;
            const int fit = bw_squares<B>::fit;
            if (i % fit == fit - 1) {
                some -= fit * BW_MAGIC_BITS;
                norm += squares - 2 * BW_MAGIC_BITS * some;
                fines += some, squares = 0, some = 0;
            }
            return step;
        });
        // A step along is a code less the zero point, 2^(B-1).
        s.along[thread] = (int)(along - BW_MAGIC_BITS * codes - (1u << (B - 1)) * fines), s.norm[thread] = norm;
    }

    BW_METHOD void correct(const bw_args &a, bw_u32 thread, bw_u32 span, bw_u32 block, shared &s) {
        bw_i64 along = 0, norm = 0;
        for (bw_u32 k = thread * span; k < (thread + 1) * span; ++k) along += s.along[k], norm += (bw_i64)s.norm[k];
        const bw_u32 group = block * (BW_THREADS >> bw_log2(span)) + thread;
        a.scales[group] = bw_corrected(along, norm, s.scale[thread]);
    }
};
