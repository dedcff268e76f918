// The sieve of fine256.hpp with eight rows at a time (AVX-512): the same prices, and the number of each format over the lowest bits of its u_j,
// as in coarse512.hpp.
#pragma once

#include "fast512.hpp"
#include "fine256.hpp"

#if BW_FAST
namespace bitwright {

// The least of K values and the next one. Of: their type and its order.
template <int K, class Of>
BW_AVX512_INLINE void least_two(const typename Of::V* v, typename Of::V& first, typename Of::V& second) {
    first = Of::min(v[0], v[1]);
    second = Of::max(v[0], v[1]);
    if constexpr (K == 3) {
        second = Of::min(second, Of::max(first, v[2]));
        first = Of::min(first, v[2]);
    } else if constexpr (K > 3) {
        constexpr int half = K > 8 ? 8 : K > 4 ? 4 : 2;
        typename Of::V least = v[K - 1], next = Of::most();
        if constexpr (half > 2) least_two<half, Of>(v, first, second);
        if constexpr (K > half + 1) least_two<K - half, Of>(v + half, least, next);
        second = Of::min(Of::max(first, least), Of::min(second, next));
        first = Of::min(first, least);
    }
}

struct Doubles {
    using V = __m512d;
    BW_AVX512_INLINE static V min(V a, V b) { return _mm512_min_pd(a, b); }
    BW_AVX512_INLINE static V max(V a, V b) { return _mm512_max_pd(a, b); }
    BW_AVX512_INLINE static V most() { return _mm512_set1_pd(INFINITY); }
};

// As kApart of coarse.hpp: each sum is off by 2^-51, its number takes up to 7 units of 2^-52 more, of more than 8 formats up to 15.
template <int K>
constexpr double kFineApart = 1 - (K > 8 ? 0x1p-46 : 0x1p-47);

// Of sixteen rows, whose lanes are those of `turned_columns`, the number of the least u_j. unsure: rows of no certain format; signs: set where a
// u_j is negative. An infinite loss is taken for the greatest number, in `l` too, as a number over the bits of infinity would be none.
template <int K, bool kEqual>
BW_AVX512_INLINE __m512i fine_two(__m512* l, const __m512d* w, const FinePrices& p, __mmask16& unsure, __mmask8& signs) {
    const __m512i bits = _mm512_set1_epi64(period(K) - 1);
    const __m512d gap0 = _mm512_cvtps_pd(_mm256_load_ps(p.coarse.gap)), gap1 = _mm512_cvtps_pd(_mm256_load_ps(p.coarse.gap + 8));
    __m512d first[2], second[2];
    unsigned left = 0;
    for (int j = 0; j < K; ++j) l[j] = _mm512_min_ps(l[j], _mm512_set1_ps(std::numeric_limits<float>::max()));
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
        __m512d v[K];
        for (int j = 0; j < K; ++j) {
            const __m512d loss = _mm512_cvtps_pd(h == 0 ? _mm512_castps512_ps256(l[j]) : _mm512_extractf32x8_ps(l[j], 1)), price = _mm512_set1_pd(p.price[j]);
            const __m512d u = kEqual ? _mm512_add_pd(loss, price) : _mm512_fmadd_pd(price, w[h], loss);
            v[j] = _mm512_castsi512_pd(_mm512_ternarylogic_epi64(_mm512_castpd_si512(u), bits, _mm512_set1_epi64(j), 0xBA));   // (a & ~b) | c
        }
        least_two<K, Doubles>(v, first[h], second[h]);
        signs |= _mm512_movepi64_mask(_mm512_castpd_si512(first[h]));
        const __m512i number = _mm512_castpd_si512(first[h]);
        const __m512d gap = K <= 8 ? _mm512_permutexvar_pd(number, gap0) : _mm512_permutex2var_pd(gap0, number, gap1);
        const __m512d apart = _mm512_fmsub_pd(second[h], _mm512_set1_pd(kFineApart<K>), first[h]);
        left |= static_cast<unsigned>(_mm512_cmp_pd_mask(apart, kEqual ? gap : _mm512_mul_pd(gap, w[h]), _CMP_NGE_UQ)) << (8 * h);
    }
    unsure = static_cast<__mmask16>(left);
    const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_epi32(_mm512_castpd_si512(first[0]), evens, _mm512_castpd_si512(first[1]));
}

}  // namespace bitwright
#endif
