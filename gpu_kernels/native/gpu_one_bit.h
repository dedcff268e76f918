// The fused kernel of one bit: levels {0, s} by the rule of quantizers/one_bit.py. All sums are of whole numbers, so that the
// order in which threads add them up does not matter. What a group has is kept at its number in the block, and made by the
// thread of that number.
#pragma once
#include "gpu_rtn.h"

struct bw_sides { // nine words: eight threads that read or write one of theirs at once meet in no bank
    bw_u32 sum, apart[4], beyond[4];
};

template <class T> struct bw_rtn<T, 1> {
    struct shared {
        bw_staging<T> staging;
        bw_range range[BW_THREADS];   // of a unit
        bw_u32 squares[BW_THREADS];   // 32 times 2^24 fit
        bw_sides sides[BW_THREADS];
        int sum[BW_THREADS];
        float top[BW_THREADS], inverse[BW_THREADS], norm[BW_THREADS]; // of a group, from here on
        int bad[BW_THREADS], factor[BW_THREADS], threshold[BW_THREADS], below[BW_THREADS];
        bw_u32 held[BW_THREADS], flip[BW_THREADS];
    };
    struct mine {
        bw_u32 at[32]; // BW_MAGIC_BITS + position, in 1/BW_REACH of the group's largest magnitude
        bw_u32 bits;
    };
    static const int phases = 10;
    BW_METHOD bw_wait wait(int p, const bw_args &) {
        return p == 9 ? BW_NONE : p == 0 ? BW_FOR_WARP : BW_FOR_BLOCK;
    }

    BW_METHOD void phase(int p, const bw_args &a, bw_u32 thread, bw_u32 block, shared &s, mine &m) {
        const bw_u32 held = bw_held(a, block), span = bw_span(a), group = thread >> bw_log2(span);
        const bool own = thread < held, leads = thread * span < held;
        if (p == 0) bw_stage<T>(a, thread, block, s.staging.x);
        if ((p == 1 || p == 3) && own) {
            bw_unit<T> unit;
            bw_read<T>(thread, s.staging.x, unit);
            if (p == 1) s.range[thread] = bw_range_of<T>(unit);
            else s.squares[thread] = positions(s.inverse[group], unit, m);
        }
        if (p == 2 && leads) reach(a, thread, span, s);
        if (p == 4 && leads) steps(a, thread, span, s);
        if (p == 5 && own) s.sides[thread] = sides(s.factor[group], m);
        if (p == 6 && leads) better(a, thread, span, s);
        if (p == 7 && own) s.sum[thread] = choice(s.threshold[group], s.below[group], m);
        if (p == 8 && leads) level(a, thread, span, block * (BW_THREADS >> bw_log2(span)) + thread, s);
        if (p == 9 && own) a.words[block * BW_THREADS + thread] = (m.bits & s.held[group]) ^ s.flip[group];
    }

    BW_METHOD void reach(const bw_args &a, bw_u32 thread, bw_u32 span, shared &s) {
        const bw_range r = bw_range_of_group(s.range + thread * span, span);
        const bw_u32 largest = bw_above((bw_u32)r.most, r.least >> 31 ? r.least & 0x7fffffffu : 0u);
        const int bad = largest >= 0x7f800000u;
        const float top = bw_max(bw_float(largest), BW_LEAST_TOP);
        if (bad) *a.status = bad; // any thread's reason will do
        s.bad[thread] = bad, s.top[thread] = top, s.inverse[thread] = bad ? 0.0f : bw_div(BW_REACH, top);
    }

    // The sum of their squares: the square of BW_MAGIC_BITS is nothing modulo 2^32.
    BW_METHOD bw_u32 positions(float inverse, const bw_unit<T> &unit, mine &m) {
        bw_u32 sum = 0, squares = 0;
        BW_UNROLLED for (int i = 0; i < 32; ++i) {
            m.at[i] = bw_magic(bw_mul(bw_at<T>(unit, i), inverse));
            squares += m.at[i] * m.at[i], sum += m.at[i];
        }
        return squares - 2 * BW_MAGIC_BITS * (sum - 32 * BW_MAGIC_BITS);
    }

    BW_METHOD void steps(const bw_args &a, bw_u32 thread, bw_u32 span, shared &s) {
        bw_i64 norm = 0;
        for (bw_u32 k = thread * span; k < (thread + 1) * span; ++k) norm += s.squares[k];
        s.norm[thread] = (float)norm, s.factor[thread] = bw_factor((float)norm, (float)a.group);
    }

    // What a side is found by: of bytes u = position + 127, their sum and how far they are from each start and from the next
    // byte beyond it. Of n bytes, S(k) away from k, S(k + 1) - S(k) = n - 2 #(u > k), and S(k) + sum(u) - n k is twice the sum of
    // u - k over u > k; below likewise.
    BW_METHOD int start(int j) { return j < 2 ? BW_FIRST_START : BW_SECOND_START; }
    BW_METHOD int edge(int j) { return j % 2 ? 127 + start(j) : 127 - start(j); } // even: below zero, odd: above

    // Positions in bytes (bw_byte) are the upper halves of position * 2 factor + 2^15, held to 127 of either sign.
    BW_METHOD bw_sides sides(int factor, const mine &m) {
        const bw_u32 twice = 2 * (bw_u32)factor, half = (1u << 15) - BW_MAGIC_BITS * twice;
        bw_sides out = {0, {0, 0, 0, 0}, {0, 0, 0, 0}};
        BW_UNROLLED for (int i = 0; i < 32; i += 4) {
            bw_u32 two[2];
            BW_UNROLLED for (int k = 0; k < 2; ++k) {
                const bw_u32 *at = m.at + i + 2 * k;
                two[k] = bw_held_sum_of_two(bw_upper_of_two(at[1] * twice + half, at[0] * twice + half), bw_both(127), bw_both(254));
            }
            const bw_u32 bytes = bw_bytes_of_two(two[1], two[0]), ones = 0x01010101u;
            out.sum = bw_apart(bytes, 0, out.sum);
            BW_UNROLLED for (int j = 0; j < 4; ++j) {
                out.apart[j] = bw_apart(bytes, (bw_u32)edge(j) * ones, out.apart[j]);
                out.beyond[j] = bw_apart(bytes, (bw_u32)(j % 2 ? edge(j) + 1 : edge(j) - 1) * ones, out.beyond[j]);
            }
        }
        return out;
    }

    BW_METHOD void better(const bw_args &a, bw_u32 thread, bw_u32 span, shared &s) {
        bw_sides all = s.sides[thread * span];
        for (bw_u32 k = thread * span + 1; k < (thread + 1) * span; ++k) {
            const bw_sides seen = s.sides[k];
            all.sum += seen.sum;
            BW_UNROLLED for (int j = 0; j < 4; ++j) all.apart[j] += seen.apart[j], all.beyond[j] += seen.beyond[j];
        }
        float best = -1.0f, mean = 0.0f;
        BW_UNROLLED for (int j = 0; j < 4; ++j) {
            const int n = (int)a.group, apart = (int)all.apart[j], drift = (int)all.sum - n * edge(j);
            const int many = (n - ((int)all.beyond[j] - apart)) / 2, total = (apart + (j % 2 ? drift : -drift)) / 2 + start(j) * many;
            const float average = bw_div((float)total, (float)(many > 1 ? many : 1)), gain = bw_mul(average, (float)total);
            if (gain > best) best = gain, mean = average, s.below[thread] = j % 2 == 0;
        }
        s.threshold[thread] = (int)bw_mul(mean, bw_div((float)(1 << 14), (float)s.factor[thread]));
    }

    // Bits of the positions, turned where the level is below zero, that rise above the threshold; their sum. Two in a word, of
    // places 16 apart. 16 times BW_REACH fit 16 bits.
    BW_METHOD int choice(int threshold, int below, mine &m) {
        const bw_u32 turn = below ? ~0u : 0u, start = bw_both(below ? 1 - threshold : -threshold);
        bw_u32 rise = 0, bits = 0;
        BW_UNROLLED for (int i = 0; i < 16; ++i) {
            const bw_u32 over = bw_rise_of_two(bw_lower_of_two(m.at[i + 16], m.at[i]) ^ turn, start);
            rise += over, bits += bw_less_of_two(over, 0x00010001u) << i;
        }
        m.bits = bits;
        return (int)((rise & 0xffffu) + (rise >> 16)) + threshold * bw_ones(bits);
    }

    BW_METHOD void level(const bw_args &a, bw_u32 thread, bw_u32 span, bw_u32 group, shared &s) {
        bw_i64 along = 0;
        for (bw_u32 k = thread * span; k < (thread + 1) * span; ++k) along += s.sum[k];
        const float unit = bw_div(s.top[thread], BW_REACH);
        const float level = along ? bw_mul(bw_div(s.norm[thread], (float)along), unit) : 0.0f;
        const bool held = level >= BW_TINY, below = held && s.below[thread];
        if (level > BW_MAX_HALF) *a.status = 2;
        else a.scales[group] = (bw_u16)(bw_float_to_half(held ? level : BW_TINY) | (a.symmetric && held && !below ? 0x8000u : 0u));
        if (a.zeros) a.zeros[group] = (bw_u8)below;
        s.held[thread] = held ? ~0u : 0u;                 // of a group of zeros no weight stands at the level
        s.flip[thread] = a.symmetric || below ? ~0u : 0u; // code 0 is the level
    }
};
