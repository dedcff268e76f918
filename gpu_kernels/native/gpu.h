// Bodies of the GPU kernels, in phases with a barrier after each: a block of threads runs phase 0, waits, runs phase 1, ...
// On a GPU `launch` (kernels.cu) does that; on a CPU the twin (cpu_twin.cpp) runs every thread of a block through one phase
// at a time, so the very same indexing is tested where there is no GPU.
//
// A unit is 32 codes of a row and the B words they pack to; a thread owns one, a warp 32, a block BW_THREADS in a run.
#pragma once
#include "gpu_words.h"

#define BW_THREADS 128
#define BW_WARP 32

// What follows a phase: its threads go on, a warp waits for its own, or the whole block does.
enum bw_wait { BW_NONE, BW_FOR_WARP, BW_FOR_BLOCK };

// Largest signed and largest unsigned word of what was seen, as bits of floats: sign and magnitude sort so that the first is
// the largest number (0 where all are negative) and the second, where its sign is set, the smallest; NaN and infinity end up
// on top.
struct bw_range {
    int most;
    bw_u32 least;
};
BW_HD bw_range bw_joined(bw_range a, bw_range b) { return {bw_more(a.most, b.most), bw_above(a.least, b.least)}; }

// Stored types: chunks of a unit, a value by its place, one from memory, the range of a unit.
struct bw_f32 {
    typedef float type;
    static const int chunks = 8;
    BW_METHOD float load(const float *p) { return *p; }
    BW_METHOD float at(const bw_chunk &c, int i) { return bw_float(c.word[i]); }
    BW_METHOD bw_range seen(bw_range r, const bw_chunk &c) {
        for (int i = 0; i < 4; ++i) r = bw_joined(r, {(int)c.word[i], c.word[i]});
        return r;
    }
    BW_METHOD bw_range range(bw_range r) { return r; }
};
struct bw_two_bytes {
    typedef bw_u16 type;
    static const int chunks = 4;
    BW_METHOD bw_range seen(bw_range r, const bw_chunk &c) {
        for (int i = 0; i < 4; ++i) {
            r.most = (int)bw_more_of_two((bw_u32)r.most, c.word[i]);
            r.least = bw_above_of_two(r.least, c.word[i]);
        }
        return r;
    }
    // Of the two halves of each, in the upper half.
    BW_METHOD bw_range whole(bw_range r) {
        const bw_u32 most = (bw_u32)r.most;
        return {(int)(bw_more_of_two(most, most << 16) & 0xffff0000u), bw_above_of_two(r.least, r.least << 16) & 0xffff0000u};
    }
};
struct bw_f16 : bw_two_bytes {
    BW_METHOD float load(const bw_u16 *p) { return bw_from_half(*p); }
    BW_METHOD float at(const bw_chunk &c, int i) { return bw_from_half((bw_u16)(c.word[i / 2] >> (i % 2 * 16))); }
    BW_METHOD bw_range range(bw_range r) {
        r = whole(r);
        return {(int)bw_bits(bw_from_half((bw_u16)((bw_u32)r.most >> 16))), bw_bits(bw_from_half((bw_u16)(r.least >> 16)))};
    }
};
struct bw_bf16 : bw_two_bytes {
    BW_METHOD float load(const bw_u16 *p) { return bw_from_bf16(*p); }
    BW_METHOD float at(const bw_chunk &c, int i) {
        return bw_float(i % 2 ? c.word[i / 2] & 0xffff0000u : c.word[i / 2] << 16);
    }
    BW_METHOD bw_range range(bw_range r) { return whole(r); }
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

// Whether rows and groups are made of whole units, few enough for 32-bit numbers, and chunks stand at their own multiples: the
// matrix is then one run of units, and of groups. The one rule between the two bodies of quantize and of dequantize; rtn takes
// nothing else (fused_takes in gpu_kernels/gpu.py).
BW_HD bool bw_is_whole(const bw_args &a) {
    if ((((bw_u64)a.x | (bw_u64)a.dense) & 15) != 0 || ((a.rows | a.columns) >> 31) != 0 || a.columns == 0) return false;
    const bw_u32 columns = (bw_u32)a.columns, group = a.group < a.columns ? (bw_u32)a.group : columns;
    return ((columns | group) & 31) == 0 && columns % group == 0 && bw_units(a) >> 31 == 0;
}
// Units of a group of a whole matrix.
BW_HD bw_u32 bw_span(const bw_args &a) { return (bw_u32)(a.group < a.columns ? a.group : a.columns) / 32; }

// Units of a block of a whole matrix.
BW_HD bw_u32 bw_held(const bw_args &a, bw_u32 block) {
    const bw_u32 left = (bw_u32)a.rows * ((bw_u32)a.columns / 32) - block * BW_THREADS;
    return left < BW_THREADS ? left : BW_THREADS;
}

// Where the chunk of a number stands in shared memory: eight threads meet in no bank, whether they have neighbouring chunks (as
// they come) or the same chunk of neighbouring units (as they are read).
template <class T> BW_HD bw_u32 bw_place(bw_u32 chunk) { return chunk ^ (chunk >> 3 & (T::chunks - 1)); }

// From memory to shared memory past the registers; there when bw_arrived returns.
BW_HD void bw_fetch(bw_chunk *to, const bw_chunk *from) {
#if defined(__CUDA_ARCH__)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((bw_u32)__cvta_generic_to_shared(to)), "l"(from) : "memory");
#else
    *to = *from;
#endif
}
BW_HD void bw_arrived() {
#if defined(__CUDA_ARCH__)
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// The values of a unit in registers, and of a block's units in shared memory.
template <class T> struct bw_unit {
    bw_chunk chunk[T::chunks];
};
template <class T, bool USED = true> struct bw_staging {
    bw_chunk x[USED ? BW_THREADS * T::chunks : 1];
};
// Neighbouring threads bring neighbouring chunks, each warp its own units'.
template <class T> BW_HD void bw_stage(const bw_args &a, bw_u32 thread, bw_u32 block, bw_chunk *x) {
    const bw_u32 lane = thread % BW_WARP, first = thread / BW_WARP * (BW_WARP * T::chunks) + lane, held = bw_held(a, block);
    const bw_chunk *from = (const bw_chunk *)a.x + (bw_u64)block * (BW_THREADS * T::chunks) + first;
    if (held == BW_THREADS) {
        for (bw_u32 k = 0; k < T::chunks; ++k) bw_fetch(x + bw_place<T>(first + k * BW_WARP), from + k * BW_WARP);
    } else {
        BW_ROLLED for (bw_u32 k = 0; k < T::chunks && first + k * BW_WARP < held * T::chunks; ++k)
            bw_fetch(x + bw_place<T>(first + k * BW_WARP), from + k * BW_WARP);
    }
    bw_arrived();
}
template <class T> BW_HD void bw_read(bw_u32 thread, const bw_chunk *x, bw_unit<T> &unit) {
    BW_UNROLLED for (bw_u32 c = 0; c < T::chunks; ++c) unit.chunk[c] = x[bw_place<T>(thread * T::chunks + c)];
}
// Read where they are, four chunks of two-byte values share their sectors in the first-level cache.
template <class T> BW_HD void bw_read_memory(const bw_args &a, bw_u32 thread, bw_u32 block, bw_unit<T> &unit) {
    const bw_chunk *from = (const bw_chunk *)a.x + (bw_u64)(block * BW_THREADS + thread) * T::chunks;
    BW_UNROLLED for (bw_u32 c = 0; c < T::chunks; ++c) unit.chunk[c] = from[c];
}
// One of its 32 values, by a number known when compiled.
template <class T> BW_HD float bw_at(const bw_unit<T> &unit, int i) {
    const int each = 32 / T::chunks;
    return T::at(unit.chunk[i / each], i % each);
}

template <class T> BW_HD bw_range bw_range_of(const bw_unit<T> &unit) {
    bw_range r = {0, 0};
    BW_UNROLLED for (bw_u32 c = 0; c < T::chunks; ++c) r = T::seen(r, unit.chunk[c]);
    return T::range(r);
}
BW_HD bw_range bw_range_of_group(const bw_range *units, bw_u32 span) {
    bw_range r = units[0];
    for (bw_u32 k = 1; k < span; ++k) r = bw_joined(r, units[k]);
    return r;
}

// The words of a block from shared memory, each warp its own units'.
template <int B> BW_HD void bw_store_words(const bw_args &a, bw_u32 thread, bw_u32 block, const bw_u32 *words) {
    const bw_u32 lane = thread % BW_WARP, first = thread / BW_WARP * (BW_WARP * B) + lane, held = bw_held(a, block);
    bw_u32 *to = a.words + (bw_u64)block * (BW_THREADS * B) + first;
    if (held == BW_THREADS) {
        for (bw_u32 k = 0; k < B; ++k) to[k * BW_WARP] = words[first + k * BW_WARP];
    } else {
        BW_ROLLED for (bw_u32 k = 0; k < B && first + k * BW_WARP < held * B; ++k) to[k * BW_WARP] = words[first + k * BW_WARP];
    }
}
