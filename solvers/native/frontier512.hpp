// The operations of frontier_turns.hpp on sixteen rows at a time (AVX-512), with the same roundings.
#pragma once

#include "coarse512.hpp"
#include "frontier_fast.hpp"

#if BW_FAST
namespace bitwright::wide512 {

#define BW_WIDE __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,bmi2")))
#define BW_TURN BW_WIDE __attribute__((always_inline)) inline

using Floats = __m512;
using Ints = __m512i;
using Doubles = __m512d;
using Rows = __mmask16;   // that never rise

constexpr int kLanes = 16;
constexpr int kAhead = 8192;   // bytes, as in frontier256.hpp
template <int K>
constexpr int kPairTurns = K > 4 ? 2 : 1;
template <int K>
constexpr int kPlaceTurns = K > 4 ? 2 : 4;

BW_TURN Ints zeros() { return _mm512_setzero_si512(); }
BW_TURN Ints ones() { return _mm512_set1_epi32(-1); }
BW_TURN Doubles no_doubles() { return _mm512_setzero_pd(); }
BW_TURN Ints greater(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
BW_TURN Ints less(Ints a, Ints b) { return _mm512_min_epi32(a, b); }
BW_TURN Ints greatest(Ints a, Ints b) { return _mm512_max_epu32(a, b); }
BW_TURN Ints least_of(Ints a, Ints b) { return _mm512_min_epu32(a, b); }
BW_TURN Floats lesser(Floats a, Floats b) { return _mm512_min_ps(a, b); }
BW_TURN Ints slope_of(Floats a, Floats b, float inverse) {
    return _mm512_castps_si512(_mm512_mul_ps(_mm512_sub_ps(a, b), _mm512_set1_ps(inverse)));
}
BW_TURN Ints times(Ints slope, Floats share) { return _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(slope), share)); }
BW_TURN void store(void* to, Ints x) { _mm512_store_si512(to, x); }
BW_TURN Ints offsets(Ints x) { return _mm512_and_si512(_mm512_srli_epi32(x, kShift - 4), _mm512_set1_epi32(-static_cast<int>(sizeof(Pair)))); }
BW_TURN Ints codes(Ints x) {
    const Ints part = _mm512_slli_epi32(x, 32 - kShift), stretch = _mm512_srli_epi32(x, kShift - 1);
    return _mm512_ternarylogic_epi32(part, stretch, _mm512_set1_epi32(static_cast<int>(kPartBits)), 0x4E);   // bits ? ~part : stretch
}
BW_TURN void store_wide(uint64_t* to, Ints x) {
    const Ints code = _mm512_srli_epi32(x, kShift - kParts), above = _mm512_set1_epi32(1 << (kAbove - 32));
    store(to, _mm512_unpacklo_epi32(code, above));
    store(to + 8, _mm512_unpackhi_epi32(code, above));
}
BW_TURN bool all(Rows sure) { return sure == 0xFFFF; }
BW_TURN Ints chosen(Rows sure, Ints a, Ints b) { return _mm512_mask_mov_epi32(b, sure, a); }
BW_TURN Doubles with(Doubles sum, Floats x) {
    return _mm512_add_pd(sum, _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(x)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1))));
}
BW_TURN double total_of(Doubles x) { return _mm512_reduce_add_pd(x); }

template <int K>
BW_TURN Rows never_rising(const Ints* t) {
    Rows odd = _mm512_cmpge_epi32_mask(t[K - 1], zeros()), even = 0xFFFF;   // two chains
#pragma GCC unroll 8
    for (int j = 1; j + 1 < K; j += 2) odd = _mm512_mask_cmpge_epi32_mask(odd, t[j], t[j + 1]);
#pragma GCC unroll 8
    for (int j = 2; j + 1 < K; j += 2) even = _mm512_mask_cmpge_epi32_mask(even, t[j], t[j + 1]);
    return odd & even;
}

// As `turned_columns`, of 8 formats in turns.
template <int K, class T>
BW_TURN void columns_in_turns(const float* p, Floats* l, T& turns) {
    if constexpr (K != 8) return turned_columns<K>(p, l);
    __m512 low[4], high[4];
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
struct Block;

// The sixteen sizes to the lanes; returns mean / size.
template <int K, Sizes kSizes>
BW_TURN Floats sizes_in_lanes(const int64_t* size, const Sums<K>& s, Block<K>* o) {
    alignas(64) int64_t low[8], high[8];
    alignas(64) int32_t row[16];
    for (int q = 0; q < 16; ++q) row[q] = turned_row<K>(q), (q < 8 ? low : high)[q % 8] = turned_row<K>(q);
    const Ints rows = _mm512_load_si512(row);
    const Ints first = _mm512_loadu_si512(size), second = _mm512_loadu_si512(size + 8);
    if constexpr (kSizes == Sizes::small) {
        const __m128i unit = _mm_cvtsi32_si128(s.unit);
        const __m256i a = _mm512_cvtepi64_epi32(_mm512_srl_epi64(first, unit)), b = _mm512_cvtepi64_epi32(_mm512_srl_epi64(second, unit));
        const Ints units = _mm512_permutexvar_epi32(rows, _mm512_inserti32x8(_mm512_castsi256_si512(a), b, 1));
        store(o->size, units);
        return _mm512_div_ps(_mm512_set1_ps(s.mean), _mm512_cvtepi32_ps(units));
    } else {
        const Doubles a = _mm512_cvtepi64_pd(first), b = _mm512_cvtepi64_pd(second);
        _mm512_store_pd(o->pairs, _mm512_permutex2var_pd(a, _mm512_load_si512(low), b));
        _mm512_store_pd(o->pairs + 8, _mm512_permutex2var_pd(a, _mm512_load_si512(high), b));
        const Floats w = _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(a)), _mm512_cvtpd_ps(b), 1);
        return _mm512_div_ps(_mm512_set1_ps(s.mean), _mm512_permutexvar_ps(rows, w));
    }
}

#include "frontier_turns.hpp"

}  // namespace bitwright::wide512
#endif
