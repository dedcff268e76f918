// The slopes of frontier_fast.hpp sixteen rows at a time (AVX-512), with the same roundings.
//
// To find slopes takes the vector units and to add them up the others, but a core looks only some 300 instructions ahead, less
// than either of them takes for a block of rows. So both are written in turns: after each pair of formats of one block a few
// slopes of the block before are added to the tables.
#pragma once

#include <algorithm>

#include "coarse512.hpp"
#include "frontier_fast.hpp"

#if BW_FAST
namespace bitwright {

#define BW_BLOCK512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,bmi2")))
#define BW_BLOCK512_INLINE BW_BLOCK512 __attribute__((always_inline)) inline

inline bool has_block512() { return has_avx512() && __builtin_cpu_supports("bmi2"); }

// Slopes of sixteen rows into format j, by lanes; sizes in the order of the lanes. bits: where sizes differ, offsets in bytes.
template <int K>
struct Block512 {
    alignas(64) uint32_t bits[K][16];
    alignas(64) float slope[K][16];
    alignas(64) double size[16];
};

constexpr int kAhead = 2048;   // bytes: memory is read ahead so far

// Numbers that the compiler must hold in registers (a shift by a constant would first copy what it shifts), and the tables.
struct Held512 {
    uint64_t one, shift;
    char* tables;
};

// Addition `e` of the 8 (K - 1) of a block: two lanes of one format. size: theirs, kept from one format to the next.
template <int K, bool kEqual>
BW_BLOCK512_INLINE void add_two(const Block512<K>& o, int e, const Held512& c, [[maybe_unused]] __m128d& size) {
    const int q = e / (K - 1) * 2, j = 1 + e % (K - 1);
    uint64_t both;
    std::memcpy(&both, &o.bits[j][q], sizeof both);
    if constexpr (kEqual) {
        auto* to = reinterpret_cast<uint64_t*>(c.tables) + j * kTable;
        const uint64_t a = static_cast<uint32_t>(both), b = both >> 32;
        const uint64_t at_a = a >> (c.shift & 63), at_b = both >> ((c.shift + 32) & 63);
        to[at_a] += a + c.one;
        to[at_b] += b + c.one;
    } else {
        if (j == 1) {
            size = _mm_load_pd(&o.size[q]);
            asm volatile("" : "+v"(size));   // not loaded again
        }
        char* to = c.tables + j * kTable * sizeof(Pair);
        auto* a = reinterpret_cast<double*>(to + static_cast<uint32_t>(both));
        auto* b = reinterpret_cast<double*>(to + (both >> 32));
        const __m128i slopes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(&o.slope[j][q]));
        const __m128d slope = _mm_cvtps_pd(_mm_castsi128_ps(slopes));
        _mm_store_pd(a, _mm_add_pd(_mm_load_pd(a), _mm_unpacklo_pd(size, slope)));
        _mm_store_pd(b, _mm_add_pd(_mm_load_pd(b), _mm_unpackhi_pd(size, slope)));
    }
}

// Where each slope of sixteen rows of uneven sizes goes.
template <int K>
BW_BLOCK512_INLINE void place512(const int64_t* size, const __m512i* t, float mean, Block512<K>& o) {
    __m512d low = _mm512_cvtepi64_pd(_mm512_loadu_si512(size)), high = _mm512_cvtepi64_pd(_mm512_loadu_si512(size + 8));
    if constexpr (K == 8) {
        alignas(64) int64_t row_of[16];
        for (int q = 0; q < 16; ++q) row_of[q] = turned_row<K>(q);
        const __m512d first = _mm512_permutex2var_pd(low, _mm512_load_si512(row_of), high);
        high = _mm512_permutex2var_pd(low, _mm512_load_si512(row_of + 8), high);
        low = first;
    }
    _mm512_store_pd(o.size, low);
    _mm512_store_pd(o.size + 8, high);
    const __m512 w = _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high), 1);
    const __m512 per = _mm512_div_ps(_mm512_set1_ps(mean), w);
    for (int j = 1; j < K; ++j) {
        const __m512 slope = _mm512_castsi512_ps(t[j]);
        const __m512i at = _mm512_srli_epi32(_mm512_castps_si512(_mm512_mul_ps(slope, per)), kShift - 4);
        _mm512_store_si512(o.bits[j], _mm512_and_si512(at, _mm512_set1_epi32(~15)));
        _mm512_store_ps(o.slope[j], slope);
    }
}

// Slopes of sixteen rows to `o`, while those of `old` (where kAdd) are added up.
template <int K, bool kEqual, bool kAdd>
BW_BLOCK512_INLINE void block512(const float* loss, const int64_t* size, bool sorted, const Held512& c, Block512<K>& o,
                                 const Block512<K>& old, __m512d& last, const Sums<K>& s) {
    constexpr int pairs = K * (K - 1) / 2, twos = 8 * (K - 1), each = (twos + pairs - 1) / pairs;
    __m512 l[K];
    __m512i t[K];
    for (int q = 0; q < K; ++q) _mm_prefetch(reinterpret_cast<const char*>(loss + 16 * q) + kAhead, _MM_HINT_T0);
    for (int q = 0; !kEqual && q < 2; ++q) _mm_prefetch(reinterpret_cast<const char*>(size + 8 * q) + kAhead * 2 / K, _MM_HINT_T0);
    if constexpr (K == 4 && !kEqual) columns16<K>(loss, l);   // in the order of the sizes
    else turned_columns<K>(loss, l);
    if (!sorted) {
        alignas(64) float raw[K][16];
        for (int j = 0; j < K; ++j) _mm512_store_ps(raw[j], l[j]);
        for (int j = 0; j < K; ++j) l[j] = _mm512_load_ps(raw[s.order[j]]);
    }
    __m512 least = l[0];
    for (int j = 1; j < K; ++j) least = _mm512_min_ps(least, l[j]);
    last = _mm512_add_pd(last, _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(least)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(least, 1))));
    int e = 0;
    __m128d weight = _mm_setzero_pd();
#pragma GCC unroll 8
    for (int a = 0; a + 1 < K; ++a) {
        __m512i most = _mm512_setzero_si512();
#pragma GCC unroll 8
        for (int b = K - 1; b > a; --b) {
            const __m512 slope = _mm512_mul_ps(_mm512_sub_ps(l[a], l[b]), _mm512_set1_ps(s.inverse[a][b]));
            most = _mm512_max_epi32(most, _mm512_castps_si512(slope));
            t[b] = a == 0 ? most : _mm512_min_epi32(t[b], most);
            if constexpr (kAdd) {
                asm volatile("" : "+v"(t[b]));
#pragma GCC unroll 8
                for (int q = 0; q < each; ++q)
                    if (e < twos) add_two<K, kEqual>(old, e++, c, weight);
                asm volatile("" ::: "memory");   // the compiler keeps these turns
            }
        }
    }
    if constexpr (kEqual)
        for (int j = 1; j < K; ++j) _mm512_store_si512(o.bits[j], t[j]);
    else place512<K>(size, t, s.mean, o);
}

// `count` rows, a multiple of 16 and at least 16.
template <int K, bool kEqual>
BW_BLOCK512 void add_rows512(const float* loss, const int64_t* size, int64_t count, bool sorted, Sums<K>& s) {
    Held512 c{kOne, kShift, kEqual ? reinterpret_cast<char*>(s.count.data()) : reinterpret_cast<char*>(s.pair.data())};
    asm volatile("" : "+r"(c.one), "+r"(c.shift));
    Block512<K> held[2];
    __m512d last = _mm512_setzero_pd();
    block512<K, kEqual, false>(loss, size, sorted, c, held[0], held[1], last, s);
    int now = 0;
    for (int64_t i = 16; i < count; i += 16, now ^= 1)
        block512<K, kEqual, true>(loss + i * K, kEqual ? size : size + i, sorted, c, held[now ^ 1], held[now], last, s);
    __m128d weight = _mm_setzero_pd();
    for (int e = 0; e < 8 * (K - 1); ++e) add_two<K, kEqual>(held[now], e, c, weight);
    s.last += _mm512_reduce_add_pd(last);
}

}  // namespace bitwright
#endif
