// The slopes of frontier_fast.hpp sixteen rows at a time (AVX-512), with the same roundings.
//
// To find slopes takes the vector units and to add them up the others: each store to a table takes a cycle. A core looks only some 300
// instructions ahead, less than either takes for a block of rows. So both are written in turns: after each few instructions of one block
// a few slopes of the block before are added to the tables.
#pragma once

#include <algorithm>

#include "coarse512.hpp"
#include "frontier_fast.hpp"

#if BW_FAST
namespace bitwright {

// Slopes of sixteen rows into format j, by lanes. at: codes of equal sizes, or offsets in bytes. stretch, part: of small sizes; what is
// added of even lanes first. slope, size: of any sizes; the sizes by pairs of lanes, every other pair first.
template <int K>
struct Block512 {
    alignas(64) uint32_t at[K][16];
    alignas(64) uint16_t stretch[K][16];
    alignas(64) uint64_t part[K][16];
    alignas(64) float slope[K][16];
    alignas(64) double size[16];
};

constexpr int kAhead = 8192;   // bytes: memory is read so far ahead, into the second-level cache (the first holds the tables)

// Addition `e` of the 8 (K - 1) of a block: two lanes of one format. size: theirs, kept from one format to the next.
template <int K, Sizes kSizes>
BW_AVX512_INLINE void add_two(const Block512<K>& o, int e, char* tables, [[maybe_unused]] __m128d& size) {
    const int p = e / (K - 1), j = 1 + e % (K - 1);
    char* to = tables + j * kTable * (kSizes == Sizes::any ? sizeof(Pair) : sizeof(uint64_t));
    if constexpr (kSizes == Sizes::small) {
        uint32_t two;
        std::memcpy(&two, &o.stretch[j][2 * p], sizeof two);
        reinterpret_cast<uint64_t*>(to)[two & 0xFFFF] += o.part[j][p];
        reinterpret_cast<uint64_t*>(to)[two >> 16] += o.part[j][8 + p];
        return;
    }
    uint64_t both, first;
    std::memcpy(&both, &o.at[j][2 * p], sizeof both);
    asm("mov %k1, %k0" : "=&r"(first) : "r"(both));   // as an instruction that takes no time: the compiler would clear the upper half in place
    if constexpr (kSizes == Sizes::equal) {
        *reinterpret_cast<uint64_t*>(to - 4 + 4 * uint64_t{static_cast<uint16_t>(both)}) += first;
        both >>= 32;
        *reinterpret_cast<uint64_t*>(to - 4 + 4 * uint64_t{static_cast<uint16_t>(both)}) += both;
    } else {
        if (j == 1) {
            size = _mm_load_pd(&o.size[8 * (p % 2) + p / 2 * 2]);
            asm volatile("" : "+v"(size));   // not loaded again
        }
        auto* a = reinterpret_cast<double*>(to + first);
        auto* b = reinterpret_cast<double*>(to + (both >> 32));
        const __m128i slopes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(&o.slope[j][2 * p]));
        const __m128d slope = _mm_cvtps_pd(_mm_castsi128_ps(slopes));
        _mm_store_pd(a, _mm_add_pd(_mm_load_pd(a), _mm_unpacklo_pd(size, slope)));
        _mm_store_pd(b, _mm_add_pd(_mm_load_pd(b), _mm_unpackhi_pd(size, slope)));
    }
}

// How many are added after each pair of formats, and after each format whose slopes are placed: what was quickest.
template <int K>
constexpr int kPairTurns = K > 4 ? 2 : 1;
template <int K>
constexpr int kPlaceTurns = K > 4 ? 2 : 4;

// The turns of adding a block up.
template <int K, Sizes kSizes>
struct Turns {
    const Block512<K>* block;
    char* tables;
    int done = 0;
    __m128d size = __m128d{0.0, 0.0};

    static constexpr int kAll = 8 * (K - 1);

    // `count` additions once `last` is computed; the compiler keeps the turns.
    template <class V>
    BW_AVX512_INLINE void take(int count, V& last) {
        asm volatile("" : "+v"(last), "+r"(tables), "+r"(block));   // no address within them is kept in a register: there are too few
#pragma GCC unroll 64
        for (int q = 0; q < count; ++q)
            if (done < kAll) add_two<K, kSizes>(*block, done++, tables, size);
        asm volatile("" ::: "memory");
    }
};

// Of the first block, when nothing is to be added yet.
struct NoTurns {
    template <class V>
    BW_AVX512_INLINE void take(int, V&) {}
};

template <int K, class T>
BW_AVX512_INLINE void turned_in_turns(const float* p, __m512* l, T& turns) {
    if constexpr (K != 8) return turned_columns<K>(p, l);
    __m512 low[4], high[4];   // as `turned_columns`
    for (int q = 0; q < 4; ++q) {
        const float* r = p + 32 * q;
        low[q] = _mm512_mask_loadu_ps(_mm512_loadu_ps(r), 0xF0F0, r + 12);
        high[q] = _mm512_mask_loadu_ps(_mm512_loadu_ps(r + 16), 0x0F0F, r + 4);
    }
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
        const __m512* x = h == 0 ? low : high;
        __m512 ab0 = _mm512_unpacklo_ps(x[0], x[1]), ab1 = _mm512_unpackhi_ps(x[0], x[1]);
        turns.take(1, ab0);
        __m512 cd0 = _mm512_unpacklo_ps(x[2], x[3]), cd1 = _mm512_unpackhi_ps(x[2], x[3]);
        turns.take(1, cd0);
        l[4 * h] = _mm512_shuffle_ps(ab0, cd0, 0x44);
        l[4 * h + 1] = _mm512_shuffle_ps(ab0, cd0, 0xEE);
        turns.take(1, l[4 * h]);
        l[4 * h + 2] = _mm512_shuffle_ps(ab1, cd1, 0x44);
        l[4 * h + 3] = _mm512_shuffle_ps(ab1, cd1, 0xEE);
        turns.take(1, l[4 * h + 2]);
    }
}

template <int K>
BW_AVX512_INLINE void by_rate(const int* order, __m512* l) {
    alignas(64) float raw[K][16];
    for (int j = 0; j < K; ++j) _mm512_store_ps(raw[j], l[j]);
    for (int j = 0; j < K; ++j) l[j] = _mm512_load_ps(raw[order[j]]);
}

// As `minmax8`, within the window.
template <int K, class T>
BW_AVX512_INLINE void minmax512(const __m512* l, const Sums<K>& s, __m512i* t, T& turns) {
#pragma GCC unroll 8
    for (int a = 0; a + 1 < K; ++a) {
        const int far = std::min(K - 1, a + kWindow<K>);
        __m512i most;
#pragma GCC unroll 8
        for (int b = far; b > a; --b) {
            const __m512i slope = _mm512_castps_si512(_mm512_mul_ps(_mm512_sub_ps(l[a], l[b]), _mm512_set1_ps(s.inverse[a][b])));
            most = b == far ? slope : _mm512_max_epi32(most, slope);
            t[b] = a == std::max(0, b - kWindow<K>) ? most : _mm512_min_epi32(t[b], most);
            turns.take(kPairTurns<K>, t[b]);
        }
    }
}

// Slopes in full, and the losses of the last vertices.
template <int K>
BW_AVX512 __attribute__((noinline)) void slopes_in_full(const float* loss, bool sorted, const Sums<K>& s, __m512i* t, __m512* least) {
    __m512 l[K];
    turned_columns<K>(loss, l);
    if (!sorted) by_rate<K>(s.order, l);
    *least = l[0];
    for (int j = 1; j < K; ++j) *least = _mm512_min_ps(*least, l[j]);
    for (int a = 0; a + 1 < K; ++a) {
        __m512i most = _mm512_setzero_si512();
        for (int b = K - 1; b > a; --b) {
            const __m512 slope = _mm512_mul_ps(_mm512_sub_ps(l[a], l[b]), _mm512_set1_ps(s.inverse[a][b]));
            most = _mm512_max_epi32(most, _mm512_castps_si512(slope));
            t[b] = a == 0 ? most : _mm512_min_epi32(t[b], most);
        }
    }
}

template <int K>
BW_AVX512_INLINE __mmask16 never_rising(const __m512i* t) {
    __mmask16 odd = _mm512_cmpge_epi32_mask(t[K - 1], _mm512_setzero_si512()), even = 0xFFFF;   // two chains
#pragma GCC unroll 8
    for (int j = 1; j + 1 < K; j += 2) odd = _mm512_mask_cmpge_epi32_mask(odd, t[j], t[j + 1]);
#pragma GCC unroll 8
    for (int j = 2; j + 1 < K; j += 2) even = _mm512_mask_cmpge_epi32_mask(even, t[j], t[j + 1]);
    return odd & even;
}

// What the sixteen sizes are to the lanes.
struct Lanes512 {
    __m512d even, odd;   // in the order of the lanes
    __m512 share;        // mean / size
};

template <int K>
BW_AVX512_INLINE Lanes512 lanes_of(const int64_t* size, float mean) {
    alignas(64) int64_t even[8], odd[8];
    alignas(64) int32_t row[16];
    for (int q = 0; q < 16; ++q) row[q] = turned_row<K>(q), (q % 2 == 0 ? even : odd)[q / 2] = turned_row<K>(q);
    const __m512d low = _mm512_cvtepi64_pd(_mm512_loadu_si512(size)), high = _mm512_cvtepi64_pd(_mm512_loadu_si512(size + 8));
    const __m512 w = _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high), 1);
    return {_mm512_permutex2var_pd(low, _mm512_load_si512(even), high), _mm512_permutex2var_pd(low, _mm512_load_si512(odd), high),
            _mm512_div_ps(_mm512_set1_ps(mean), _mm512_permutexvar_ps(_mm512_load_si512(row), w))};
}

// Where each slope goes, and what is added there.
template <int K, Sizes kSizes, class T>
BW_AVX512_INLINE void place512(const int64_t* size, __m512i* t, const Sums<K>& s, Block512<K>* o, T& turns, __m512i& least, __m512i& most) {
    if constexpr (kSizes == Sizes::equal) {
        least = _mm512_min_epu32(least, t[K - 1]);
        most = _mm512_max_epu32(most, t[1]);
#pragma GCC unroll 8
        for (int j = 1; j < K; ++j) {
            const __m512i part = _mm512_slli_epi32(t[j], 32 - kShift), stretch = _mm512_srli_epi32(t[j], kShift - 1);
            const __m512i bits = _mm512_set1_epi32(static_cast<int>(kPartBits));
            _mm512_store_si512(o->at[j], _mm512_ternarylogic_epi32(part, stretch, bits, 0x4E));   // bits ? ~part : stretch
            turns.take(kPlaceTurns<K>, t[j]);
            asm volatile("" : "+r"(o));
        }
        return;
    }
    const Lanes512 lanes = lanes_of<K>(size, s.mean);
    [[maybe_unused]] __m512i even, odd, even_high, odd_high;
    if constexpr (kSizes == Sizes::small) {
        const __m512d unit = _mm512_set1_pd(s.per_unit);
        even = _mm512_cvtpd_epi64(_mm512_mul_pd(lanes.even, unit));
        odd = _mm512_cvtpd_epi64(_mm512_mul_pd(lanes.odd, unit));
        even_high = _mm512_slli_epi64(even, kPacked);
        odd_high = _mm512_slli_epi64(odd, kPacked);
    } else {
        _mm512_store_pd(o->size, _mm512_unpacklo_pd(lanes.even, lanes.odd));
        _mm512_store_pd(o->size + 8, _mm512_unpackhi_pd(lanes.even, lanes.odd));
    }
#pragma GCC unroll 8
    for (int j = 1; j < K; ++j) {
        const __m512 slope = _mm512_castsi512_ps(t[j]);
        __m512i x = _mm512_castps_si512(_mm512_mul_ps(slope, lanes.share));
        if constexpr (kSizes == Sizes::small) {
            _mm256_store_si256(reinterpret_cast<__m256i*>(o->stretch[j]), _mm512_cvtepi32_epi16(_mm512_srli_epi32(x, kShift)));
            if (j == 1) most = _mm512_max_epu32(most, x);
            if (j == K - 1) least = _mm512_min_epu32(least, x);
            const __m512i part = _mm512_and_si512(_mm512_srli_epi32(x, kShift - kParts), _mm512_set1_epi32(0xFFFF));
            _mm512_store_si512(o->part[j], _mm512_add_epi64(_mm512_mul_epu32(part, even), even_high));
            _mm512_store_si512(o->part[j] + 8, _mm512_add_epi64(_mm512_mul_epu32(_mm512_srli_epi64(part, 32), odd), odd_high));
        } else {
            _mm512_store_si512(o->at[j], _mm512_and_si512(_mm512_srli_epi32(x, kShift - 4), _mm512_set1_epi32(-static_cast<int>(sizeof(Pair)))));
            _mm512_store_ps(o->slope[j], slope);
        }
        turns.take(kPlaceTurns<K>, x);
        asm volatile("" : "+r"(o));
    }
}

// Slopes of sixteen rows to `o`, in turns with what is left to add.
template <int K, Sizes kSizes, class T>
BW_AVX512_INLINE void block512(const float* loss, const int64_t* size, bool sorted, const Sums<K>& s, Block512<K>* o, T& turns,
                               __m512d& last, __m512i& low, __m512i& high) {
    __m512 l[K];
    __m512i t[K];
    for (int q = 0; q < K; ++q) _mm_prefetch(reinterpret_cast<const char*>(loss + 16 * q) + kAhead, _MM_HINT_T1);
    for (int q = 0; kSizes != Sizes::equal && q < 2; ++q)
        _mm_prefetch(reinterpret_cast<const char*>(size + kWeighed + 8 * q) + kAhead * 2 / K, _MM_HINT_T1);
    turned_in_turns<K>(loss, l, turns);
    if (!sorted) by_rate<K>(s.order, l);
    minmax512<K>(l, s, t, turns);
    __m512 least = l[K - 1];
    const __mmask16 sure = never_rising<K>(t);
    if (__builtin_expect(sure != 0xFFFF, 0)) {
        __m512i full[K];   // the slopes themselves stay in registers
        __m512 found;
        slopes_in_full<K>(loss, sorted, s, full, &found);
        least = found;
#pragma GCC unroll 8
        for (int j = 1; j < K; ++j) t[j] = _mm512_mask_mov_epi32(full[j], sure, t[j]);
    }
    last = _mm512_add_pd(last, _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(least)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(least, 1))));
    turns.take(2, last);
    place512<K, kSizes>(size, t, s, o, turns, low, high);
    turns.take(8 * K, last);
}

// `count` rows, a multiple of 16 and at least 16.
template <int K, Sizes kSizes>
BW_AVX512 void add_rows512(const float* loss, const int64_t* size, int64_t count, bool sorted, Sums<K>& s) {
    char* tables = kSizes == Sizes::any ? reinterpret_cast<char*>(s.pair.data()) : reinterpret_cast<char*>(s.cell.data());
    Block512<K> held[2];
    __m512d last = _mm512_setzero_pd();
    __m512i low = _mm512_set1_epi32(-1), high = _mm512_setzero_si512();
    NoTurns none;
    block512<K, kSizes>(loss, size, sorted, s, held, none, last, low, high);
    int now = 0;
    for (int64_t i = 16; i < count; i += 16, now ^= 1) {
        Turns<K, kSizes> turns{held + now, tables};
        block512<K, kSizes>(loss + i * K, kSizes == Sizes::equal ? size : size + i, sorted, s, held + (now ^ 1), turns, last, low, high);
    }
    Turns<K, kSizes> rest{held + now, tables};
    rest.take(8 * K, last);
    s.last += _mm512_reduce_add_pd(last);
    s.least = std::min(s.least, _mm512_reduce_min_epu32(low));
    s.most = std::max(s.most, _mm512_reduce_max_epu32(high));
}

}  // namespace bitwright
#endif
