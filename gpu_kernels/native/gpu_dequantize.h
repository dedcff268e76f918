// (code - zero) * scale from packed rows.
#pragma once
#include "gpu.h"

// A thread turns four neighbouring codes into one chunk, eight times, so that a warp writes 512 bytes in a row.
template <int B> struct bw_dequantize {
    struct mine {};
    struct shared {
        bw_u32 words[BW_THREADS * B];
    };
    static const int phases = 2;
    BW_METHOD bw_wait wait(int p, const bw_args &) { return p < 1 ? BW_FOR_WARP : BW_NONE; }

    BW_METHOD void phase(int p, const bw_args &a, bw_u32 thread, bw_u32 block, shared &s, mine &) {
        const bw_u32 held = bw_held(a, block), lane = thread % BW_WARP, warp = thread - lane;
        if (p == 0) {
            const bw_u32 *from = a.words + (bw_u64)block * (BW_THREADS * B);
            BW_UNROLLED for (int k = 0; k < B; ++k) {
                const bw_u32 at = warp * B + k * BW_WARP + lane;
                if (at < held * B) s.words[at] = from[at];
            }
        }
        if (p == 1) {
            const bw_u32 span = bw_span(a), first = block * BW_THREADS + warp + lane / 8;
            const bw_u32 groups = 4 / span, units = 4 % span; // in four units
            bw_u32 g = first / span, unit = first % span;
            bw_chunk *to = (bw_chunk *)a.dense + (bw_u64)block * (BW_THREADS * 8);
            // Four units further on, the same place in a word.
            const bw_u32 bit = lane * 4 * B, word = warp * B + bit / 32, shift = bit % 32, next = shift + 4 * B > 32;
            BW_UNROLLED for (int k = 0; k < 8; ++k) {
                const bw_u32 at = warp * 8 + k * BW_WARP + lane;
                if (at >= held * 8) return;
                const float zero = a.zeros ? bw_float(0x4b000000u | a.zeros[g]) : 8388608.0f + (float)(1 << (B - 1));
                const float scale = bw_from_half(a.scales[g]);
                const bw_u32 low = s.words[word + k * 4 * B], high = s.words[word + k * 4 * B + next];
                const bw_u32 codes = (bw_u32)(((bw_u64)high << 32 | low) >> shift);
                bw_chunk out;
                for (int i = 0; i < 4; ++i) { // 2^23 + code, 2^23 + zero: their difference is exact
                    const float code = bw_float(0x4b000000u | (codes >> i * B & ((1u << B) - 1)));
                    out.word[i] = bw_bits(bw_mul(bw_add(code, -zero), scale));
                }
                to[at] = out;
                g += groups, unit += units;
                if (unit >= span) unit -= span, ++g;
            }
        }
    }
};

// Any shape and alignment: a thread reads the words of its unit and writes its values.
template <int B> struct bw_dequantize_any {
    struct mine {};
    struct shared {};
    static const int phases = 1;
    BW_METHOD bw_wait wait(int, const bw_args &) { return BW_NONE; }
    BW_METHOD void phase(int, const bw_args &a, bw_u32 thread, bw_u32 block, shared &, mine &) {
        const bw_i64 unit = (bw_i64)block * BW_THREADS + thread, each = bw_ceil(a.columns, 32), groups = bw_ceil(a.columns, a.group);
        if (unit >= bw_units(a)) return;
        const bw_i64 row = unit / each, start = (unit - row * each) * 32, nwords = bw_ceil(a.columns * B, 32);
        const bw_u32 *words = a.words + row * nwords;
        bw_u64 bits = 0;
        int held = 0;
        bw_i64 end = start, at = start / 32 * B;
        float scale = 0.0f, zero = 0.0f;
        BW_ROLLED for (bw_i64 column = start; column < start + 32 && column < a.columns; ++column) {
            if (column == end) {
                const bw_i64 g = column / a.group;
                end = (g + 1) * a.group;
                zero = a.zeros ? (float)a.zeros[row * groups + g] : (float)(1 << (B - 1));
                scale = bw_from_half(a.scales[row * groups + g]);
            }
            if (held < B) bits |= (bw_u64)words[at++] << held, held += 32;
            a.dense[row * a.columns + column] = bw_mul((float)(int)(bits & ((1u << B) - 1)) - zero, scale);
            bits >>= B, held -= B;
        }
    }
};
