// Bodies of the GPU kernels, in phases with a barrier after each: a block of threads runs phase 0, waits, runs phase 1, ...
// On a GPU `launch` does that; on a CPU the twin (cpu_twin.cpp) runs every thread of a block through one phase at a time,
// so the very same indexing is tested where there is no GPU.
//
// A unit is 32 codes of a row and the B words they pack to; a thread owns one, a block owns BW_THREADS in a run.
#pragma once
#include "core.h"

#if defined(__CUDACC__)
#define BW_METHOD static __host__ __device__ __forceinline__
#else
#define BW_METHOD static inline
#endif
#define BW_THREADS 128
#define BW_PITCH 33 // floats between two units in shared memory: no two threads of a warp meet in a bank

struct bw_f32 {
    typedef float type;
    BW_METHOD float load(const float *p) { return *p; }
};
struct bw_f16 {
    typedef bw_u16 type;
    BW_METHOD float load(const bw_u16 *p) { return bw_from_half(*p); }
};
struct bw_bf16 {
    typedef bw_u16 type;
    BW_METHOD float load(const bw_u16 *p) { return bw_from_bf16(*p); }
};

struct bw_args {
    const void *x;        // values in (quantize, rtn)
    bw_u32 *words;        // packed rows
    const float *inverse; // quantize: 1 / scale of every row and group
    const float *zero;    // quantize: zero point as float
    bw_u16 *scales;       // rtn: out; dequantize: in (half)
    bw_u8 *zeros;         // rtn: out; dequantize: in, or null for 2^(B-1)
    float *dense;         // dequantize: out
    int *status;          // rtn: 0, 1 (NaN or infinity), 2 (scale beyond half)
    bw_i64 rows, columns, group, symmetric; // symmetric 2: with scales corrected for shrinkage
};

BW_HD bw_i64 bw_ceil(bw_i64 a, bw_i64 b) { return (a + b - 1) / b; }
BW_HD bw_i64 bw_units(const bw_args &a) { return a.rows * bw_ceil(a.columns, 32); }

// Values of a run of units to shared memory, zeros beyond the end of a row.
template <class T> BW_HD void bw_stage(const bw_args &a, int thread, bw_i64 first, float *x) {
    const bw_i64 each = bw_ceil(a.columns, 32), units = bw_units(a);
    for (int i = thread; i < BW_THREADS * 32; i += BW_THREADS) {
        const bw_i64 unit = first + (i >> 5);
        float value = 0.0f;
        if (unit < units) {
            const bw_i64 row = unit / each, column = (unit - row * each) * 32 + (i & 31);
            if (column < a.columns) value = T::load((const typename T::type *)a.x + row * a.columns + column);
        }
        x[(i >> 5) * BW_PITCH + (i & 31)] = value;
    }
}

// Packed words of a run of units between shared and global memory; the last unit of a row may own fewer than B.
template <int B> BW_HD void bw_move_words(const bw_args &a, int thread, bw_i64 first, bw_u32 *shared, bool out) {
    const bw_i64 each = bw_ceil(a.columns, 32), units = bw_units(a), nwords = bw_ceil(a.columns * B, 32);
    for (int i = thread; i < BW_THREADS * B; i += BW_THREADS) {
        const bw_i64 unit = first + i / B;
        if (unit >= units) return;
        const bw_i64 row = unit / each, at = (unit - row * each) * B + i % B;
        if (at < nwords) {
            if (out) a.words[row * nwords + at] = shared[i];
            else shared[i] = a.words[row * nwords + at];
        } else if (!out) shared[i] = 0;
    }
}

// Codes clip(rint(x * inverse) + zero), packed.
template <class T, int B> struct bw_quantize {
    struct shared {
        float x[BW_THREADS * BW_PITCH];
        bw_u32 words[BW_THREADS * B];
    };
    static const int phases = 3;
    BW_METHOD void phase(int p, const bw_args &a, int thread, bw_i64 block, shared &s) {
        const bw_i64 first = block * BW_THREADS, unit = first + thread, each = bw_ceil(a.columns, 32);
        if (p == 0) bw_stage<T>(a, thread, first, s.x);
        if (p == 1 && unit < bw_units(a)) {
            const bw_i64 row = unit / each, start = (unit - row * each) * 32, groups = bw_ceil(a.columns, a.group);
            bw_u8 codes[32];
            bw_i64 g = start / a.group, end = (g + 1) * a.group;
            float inverse = a.inverse[row * groups + g], zero = a.zero[row * groups + g];
            for (int i = 0; i < 32; ++i) {
                const bw_i64 column = start + i;
                if (column == end && column < a.columns) {
                    ++g, end += a.group;
                    inverse = a.inverse[row * groups + g], zero = a.zero[row * groups + g];
                }
                codes[i] = column < a.columns ? (bw_u8)bw_code(s.x[thread * BW_PITCH + i], inverse, zero, (float)((1 << B) - 1)) : 0;
            }
            bw_pack32<B>(codes, s.words + thread * B);
        }
        if (p == 2) bw_move_words<B>(a, thread, first, s.words, true);
    }
};

// (code - zero) * scale from packed rows.
template <int B> struct bw_dequantize {
    struct shared {
        float x[BW_THREADS * BW_PITCH];
        bw_u32 words[BW_THREADS * B];
    };
    static const int phases = 3;
    BW_METHOD void phase(int p, const bw_args &a, int thread, bw_i64 block, shared &s) {
        const bw_i64 first = block * BW_THREADS, unit = first + thread, each = bw_ceil(a.columns, 32);
        if (p == 0) bw_move_words<B>(a, thread, first, s.words, false);
        if (p == 1 && unit < bw_units(a)) {
            const bw_i64 row = unit / each, start = (unit - row * each) * 32, groups = bw_ceil(a.columns, a.group);
            bw_u8 codes[32];
            bw_unpack32<B>(s.words + thread * B, codes);
            bw_i64 g = start / a.group, end = (g + 1) * a.group;
            const bw_i64 base = row * groups;
            float zero = a.zeros ? (float)a.zeros[base + g] : (float)(1 << (B - 1)), scale = bw_from_half(a.scales[base + g]);
            for (int i = 0; i < 32; ++i) {
                const bw_i64 column = start + i;
                if (column == end && column < a.columns) {
                    ++g, end += a.group;
                    zero = a.zeros ? (float)a.zeros[base + g] : (float)(1 << (B - 1)), scale = bw_from_half(a.scales[base + g]);
                }
                s.x[thread * BW_PITCH + i] = bw_mul((float)codes[i] - zero, scale);
            }
        }
        if (p == 2)
            for (int i = thread; i < BW_THREADS * 32; i += BW_THREADS) {
                const bw_i64 u = first + (i >> 5);
                if (u >= bw_units(a)) return;
                const bw_i64 row = u / each, column = (u - row * each) * 32 + (i & 31);
                if (column < a.columns) a.dense[row * a.columns + column] = s.x[(i >> 5) * BW_PITCH + (i & 31)];
            }
    }
};

// Range, scale, codes and words in one pass over the values; sums of the correction are whole numbers, so that the order in
// which threads add them up does not matter. The group is 32, 64,
// ..., 32 * BW_THREADS (a power of two) and divides the columns, so no group crosses a block.
template <class T, int B> struct bw_rtn {
    struct shared {
        float x[BW_THREADS * BW_PITCH];
        float low[BW_THREADS], high[BW_THREADS], inverse[BW_THREADS], zero[BW_THREADS];
        bw_u32 words[BW_THREADS * B];
        int bad[BW_THREADS];
        bw_i64 along[BW_THREADS], norm[BW_THREADS];
    };
    static const int phases = 5;
    BW_METHOD void phase(int p, const bw_args &a, int thread, bw_i64 block, shared &s) {
        const bw_i64 first = block * BW_THREADS, unit = first + thread, span = a.group / 32;
        const bool mine = unit < bw_units(a);
        if (p == 0) bw_stage<T>(a, thread, first, s.x);
        if (p == 1 && mine) {
            float low = s.x[thread * BW_PITCH], high = low;
            bw_u32 worst = 0;
            for (int i = 0; i < 32; ++i) {
                bw_float_bits v;
                v.f = s.x[thread * BW_PITCH + i];
                const bw_u32 magnitude = v.u & 0x7fffffffu;
                worst = magnitude > worst ? magnitude : worst;
                low = v.f < low ? v.f : low;
                high = v.f > high ? v.f : high;
            }
            s.low[thread] = low, s.high[thread] = high, s.bad[thread] = worst >= 0x7f800000u;
        }
        if (p == 2 && mine && thread % span == 0) { // one thread a group
            float low = s.low[thread], high = s.high[thread], zero = 0;
            int bad = s.bad[thread];
            for (int k = 1; k < span; ++k) {
                low = s.low[thread + k] < low ? s.low[thread + k] : low;
                high = s.high[thread + k] > high ? s.high[thread + k] : high;
                bad |= s.bad[thread + k];
            }
            bw_u16 scale = 0;
            if (!bad && !bw_group_parameters(low, high, B, a.symmetric != 0, &scale, &zero)) bad = 2;
            if (bad) *a.status = bad; // any thread's reason will do
            a.scales[unit / span] = scale;
            if (a.zeros) a.zeros[unit / span] = (bw_u8)(int)zero;
            s.inverse[thread] = bad ? 0.0f : bw_div(1.0f, bw_from_half(scale));
            s.zero[thread] = zero;
        }
        if (p == 3 && mine) {
            const int head = thread - (int)(thread % span);
            bw_u8 codes[32];
            bw_i64 along = 0, norm = 0;
            for (int i = 0; i < 32; ++i) {
                const float x = s.x[thread * BW_PITCH + i];
                codes[i] = (bw_u8)bw_code(x, s.inverse[head], s.zero[head], (float)((1 << B) - 1));
                const bw_i64 fine = bw_fine(x, s.inverse[head]);
                along += fine * ((int)codes[i] - (1 << (B - 1)));
                norm += fine * fine;
            }
            s.along[thread] = along, s.norm[thread] = norm;
            bw_pack32<B>(codes, s.words + thread * B);
        }
        if (p == 4) bw_move_words<B>(a, thread, first, s.words, true);
        if (p == 4 && mine && a.symmetric == 2 && thread % span == 0) {
            bw_i64 along = 0, norm = 0;
            for (int k = 0; k < span; ++k) along += s.along[thread + k], norm += s.norm[thread + k];
            a.scales[unit / span] = bw_corrected(along, norm, a.scales[unit / span]);
        }
    }
};
