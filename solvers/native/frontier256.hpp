// The operations of frontier_turns.hpp on eight rows at a time (AVX2).
#pragma once

#include "frontier_fast.hpp"

#if BW_FAST
namespace bitwright::wide256 {

#define BW_WIDE __attribute__((target("avx2,bmi2")))
#define BW_TURN BW_WIDE __attribute__((always_inline)) inline

using Floats = __m256;
using Ints = __m256i;
using Doubles = __m256d;
using Rows = __m256i;   // of rows that never rise the sign is clear

constexpr int kLanes = 8;
constexpr int kAhead = 4096;   // bytes: memory is read so far ahead, into the second-level cache (the first holds the tables)
// How many are added after each pair of formats, and after each format whose slopes are placed: what was quickest.
template <int K>
constexpr int kPairTurns = 1;
template <int K>
constexpr int kPlaceTurns = 1;

BW_TURN Ints zeros() { return _mm256_setzero_si256(); }
BW_TURN Ints ones() { return _mm256_set1_epi32(-1); }
BW_TURN Doubles no_doubles() { return _mm256_setzero_pd(); }
BW_TURN Ints greater(Ints a, Ints b) { return _mm256_max_epi32(a, b); }
BW_TURN Ints less(Ints a, Ints b) { return _mm256_min_epi32(a, b); }
BW_TURN Ints greatest(Ints a, Ints b) { return _mm256_max_epu32(a, b); }
BW_TURN Ints least_of(Ints a, Ints b) { return _mm256_min_epu32(a, b); }
BW_TURN Floats lesser(Floats a, Floats b) { return _mm256_min_ps(a, b); }
BW_TURN Ints slope_of(Floats a, Floats b, float inverse) {
    return _mm256_castps_si256(_mm256_mul_ps(_mm256_sub_ps(a, b), _mm256_set1_ps(inverse)));
}
BW_TURN Ints times(Ints slope, Floats share) { return _mm256_castps_si256(_mm256_mul_ps(_mm256_castsi256_ps(slope), share)); }
BW_TURN void store(void* to, Ints x) { _mm256_store_si256(static_cast<__m256i*>(to), x); }
BW_TURN Ints offsets(Ints x) { return _mm256_and_si256(_mm256_srli_epi32(x, kShift - 4), _mm256_set1_epi32(-static_cast<int>(sizeof(Pair)))); }
BW_TURN Ints codes(Ints x) {
    const Ints bits = _mm256_set1_epi32(static_cast<int>(kPartBits));   // bits ? ~part : stretch
    return _mm256_or_si256(_mm256_andnot_si256(_mm256_slli_epi32(x, 32 - kShift), bits), _mm256_andnot_si256(bits, _mm256_srli_epi32(x, kShift - 1)));
}
// Wide codes, in the order of slots.
BW_TURN void store_wide(uint64_t* to, Ints x) {
    const Ints code = _mm256_srli_epi32(x, kShift - kParts), above = _mm256_set1_epi32(1 << (kAbove - 32));
    store(to, _mm256_unpacklo_epi32(code, above));
    store(to + 4, _mm256_unpackhi_epi32(code, above));
}
BW_TURN bool all(Rows sure) { return _mm256_movemask_ps(_mm256_castsi256_ps(sure)) == 0; }
BW_TURN Ints chosen(Rows sure, Ints a, Ints b) {
    return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), _mm256_castsi256_ps(sure)));
}
BW_TURN Doubles with(Doubles sum, Floats x) {
    return _mm256_add_pd(sum, _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(x)), _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1))));
}
BW_TURN double total_of(Doubles x) {
    double part[4];
    _mm256_storeu_pd(part, x);
    return (part[0] + part[1]) + (part[2] + part[3]);
}

template <int K>
BW_TURN Rows never_rising(const Ints* t) {
    Ints rising = t[K - 1];   // or negative
#pragma GCC unroll 8
    for (int j = 1; j + 1 < K; ++j) rising = _mm256_or_si256(rising, _mm256_cmpgt_epi32(t[j + 1], t[j]));
    return rising;
}

// As `columns`, of more than 4 formats in turns.
template <int K, class T>
BW_TURN void columns_in_turns(const float* p, Floats* l, T& turns) {
    if constexpr (K <= 4) return columns<K>(p, l);
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
        __m256 r[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const float* from = p + 2 * i * K + four_at<K>(h);
            r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), _mm_loadu_ps(from + K), 1);
        }
        __m256 t0 = _mm256_unpacklo_ps(r[0], r[1]), t1 = _mm256_unpackhi_ps(r[0], r[1]);
        turns.take(1, t0);
        const __m256 t2 = _mm256_unpacklo_ps(r[2], r[3]), t3 = _mm256_unpackhi_ps(r[2], r[3]);
        __m256* to = l + four_at<K>(h);   // some of the first half again
        to[0] = _mm256_shuffle_ps(t0, t2, 0x44);
        to[1] = _mm256_shuffle_ps(t0, t2, 0xEE);
        turns.take(1, to[0]);
        to[2] = _mm256_shuffle_ps(t1, t3, 0x44);
        to[3] = _mm256_shuffle_ps(t1, t3, 0xEE);
    }
}

template <int K>
struct Block;

// The eight sizes to the lanes (rows 0 2 4 6, then 1 3 5 7, as `columns` has them); returns mean / size.
template <int K, Sizes kSizes>
BW_TURN Floats sizes_in_lanes(const int64_t* size, const Sums<K>& s, Block<K>* o) {
    if constexpr (kSizes == Sizes::small) {
        const __m128i unit = _mm_cvtsi32_si128(s.unit);
        const __m256 a = _mm256_castsi256_ps(_mm256_srl_epi64(load4(size), unit)), b = _mm256_castsi256_ps(_mm256_srl_epi64(load4(size + 4), unit));
        const Ints low = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));   // rows 0 1 4 5 | 2 3 6 7
        const Ints units = _mm256_permutevar8x32_epi32(low, _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7));
        store(o->size, units);
        return _mm256_div_ps(_mm256_set1_ps(s.mean), _mm256_cvtepi32_ps(units));
    } else {
        const Doubles a = doubles4(size), b = doubles4(size + 4);
        _mm256_store_pd(o->pairs, _mm256_permute4x64_pd(_mm256_unpacklo_pd(a, b), 0xD8));
        _mm256_store_pd(o->pairs + 4, _mm256_permute4x64_pd(_mm256_unpackhi_pd(a, b), 0xD8));
        const Floats w = _mm256_set_m128(_mm256_cvtpd_ps(b), _mm256_cvtpd_ps(a));
        return _mm256_div_ps(_mm256_set1_ps(s.mean), _mm256_permutevar8x32_ps(w, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7)));
    }
}

#include "frontier_turns.hpp"

}  // namespace bitwright::wide256
#endif
