// The sieve of coarse.hpp with sixteen rows at a time (AVX-512), for 2 to 16 formats. Of 8 formats it takes two thirds of the instructions of
// fast512.hpp, of 4 of uneven sizes seven eighths, and of 4 of equal size about as many.
//
// The number of each format is written over the lowest bits of its u_j: floats of at least zero compare as integers do.
#pragma once

#include "fine512.hpp"

#if BW_FAST
namespace bitwright {

// Row of each lane after `turned_columns`: of lane 4 L + e, row 4 e + L, with L = 1 and 2 exchanged where K is 8; of others in order.
template <int K>
constexpr int turned_row(int p) {
    if (K != 4 && K != 8) return p;
    const int lane = p / 4;
    return 4 * (p % 4) + (K == 8 && (lane == 1 || lane == 2) ? 3 - lane : lane);
}

// Formats of sixteen rows of K.
template <int K>
BW_AVX512_INLINE void turned_columns(const float* p, __m512* l) {
    if constexpr (K == 4) {
        turned(_mm512_loadu_ps(p), _mm512_loadu_ps(p + 16), _mm512_loadu_ps(p + 32), _mm512_loadu_ps(p + 48), l);
        return;
    }
    if constexpr (K != 8) return rows_columns<K>(p, l);
    __m512 low[4], high[4];   // halves of four rows: a load shifted by half a row puts them beside each other
    for (int q = 0; q < 4; ++q) {
        const float* r = p + 32 * q;
        low[q] = _mm512_mask_loadu_ps(_mm512_loadu_ps(r), 0xF0F0, r + 12);
        high[q] = _mm512_mask_loadu_ps(_mm512_loadu_ps(r + 16), 0x0F0F, r + 4);
    }
    turned(low[0], low[1], low[2], low[3], l);
    turned(high[0], high[1], high[2], high[3], l + 4);
}

struct Integers {
    using V = __m512i;
    BW_AVX512_INLINE static V min(V a, V b) { return _mm512_min_epi32(a, b); }
    BW_AVX512_INLINE static V max(V a, V b) { return _mm512_max_epi32(a, b); }
    BW_AVX512_INLINE static V most() { return _mm512_set1_epi32(INT32_MAX); }
};

// The loss of the format whose number is in the lowest bits.
template <int K>
BW_AVX512_INLINE __m512 picked(const __m512* l, __m512i number) {
    __m512 left[K];
    for (int j = 0; j < K; ++j) left[j] = l[j];
    for (int bit = 1, count = K; count > 1; bit *= 2, count = (count + 1) / 2) {
        const __mmask16 odd = _mm512_test_epi32_mask(number, _mm512_set1_epi32(bit));
        for (int j = 0; j + 1 < count; j += 2) left[j / 2] = _mm512_mask_mov_ps(left[j], odd, left[j + 1]);
        if (count % 2 == 1) left[count / 2] = left[count - 1];
    }
    return left[0];
}

// Four groups of sixteen lanes, a byte each in the order of `turned_row`, as 64 bytes in the order of the rows.
template <int K>
BW_AVX512_INLINE __m512i in_order(const __m512i* y) {
    const __m512i y01 = _mm512_or_si512(y[0], _mm512_slli_epi32(y[1], 8)), y23 = _mm512_or_si512(y[2], _mm512_slli_epi32(y[3], 8));
    const __m512i all = _mm512_or_si512(y01, _mm512_slli_epi32(y23, 16));   // byte b of lane 4 L + e
    const __m512i lanes = K == 4 ? _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
                                 : _mm512_setr_epi32(0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15);
    const __m512i bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i turned = _mm512_shuffle_epi8(K == 4 || K == 8 ? _mm512_permutexvar_epi32(lanes, all) : all, bytes);   // by e, group, L
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), turned);
}

// `count` rows (a multiple of 64, at most 512), as `fast_block16`. ahead: how many rows further on to fetch into the second-level cache:
// with so much arithmetic between two loads, and `look` between blocks, it waits for memory else.
// False when some u_j was negative: nothing is certain then. Prices: CoarsePrices, or FinePrices for double precision.
template <int K, bool kEqual, class Prices>
BW_AVX512 bool coarse_block512(const float* loss, const int64_t* size, const Prices& prices, int count, int64_t ahead, uint8_t* choice, FastBlock& out) {
    constexpr bool kFine = std::is_same_v<Prices, FinePrices>;
    const CoarsePrices& p = coarse_of(prices);
    alignas(64) int32_t half_of[16];   // of each lane's size, an int64: its lower half
    alignas(64) int64_t row_of[16];
    for (int q = 0; q < 16; ++q) {
        half_of[q] = 2 * turned_row<K>(q);
        row_of[q] = turned_row<K>(q);
    }
    const __m512i order[2] = {_mm512_load_si512(row_of), _mm512_load_si512(row_of + 8)};
    const __m512i halves = _mm512_load_si512(half_of), uppers = _mm512_add_epi32(halves, _mm512_set1_epi32(1)), rates = _mm512_load_si512(p.rate), none = _mm512_setzero_si512();
    const __m512i bits = _mm512_set1_epi32(period(K) - 1), marked = _mm512_set1_epi32(0x80);
    const __m512 gaps = _mm512_load_ps(p.gap);
    __m512d total0 = _mm512_setzero_pd(), total1 = _mm512_setzero_pd();
    __m512i spent = none, weighed = none, signs = none;
    __mmask8 below = 0;
    int64_t sure = count;
    for (int i = 0; i < count; i += 64) {
        __m512i y[4];
#pragma GCC unroll 1
        for (int b = 0; b < 4; ++b) {
            const int at = i + 16 * b;
            __m512 l[K], w = _mm512_setzero_ps();
            __m512i v[K], weight = none, first, second;
            __mmask16 left = 0;
            turned_columns<K>(loss + static_cast<int64_t>(at) * K, l);
            for (int q = 0; q < K; ++q) _mm_prefetch(reinterpret_cast<const char*>(loss + (at + ahead) * K + 16 * q), _MM_HINT_T1);
            if constexpr (!kEqual) {
                for (int q = 0; q < 2; ++q) _mm_prefetch(reinterpret_cast<const char*>(size + at + ahead + 8 * q), _MM_HINT_T1);
                weight = _mm512_permutex2var_epi32(_mm512_loadu_si512(size + at), halves, _mm512_loadu_si512(size + at + 8));
                w = _mm512_cvtepu32_ps(weight);
                if (p.huge) {   // for a better guess alone
                    const __m512i upper = _mm512_permutex2var_epi32(_mm512_loadu_si512(size + at), uppers, _mm512_loadu_si512(size + at + 8));
                    left = _mm512_test_epi32_mask(upper, upper);
                    w = _mm512_fmadd_ps(_mm512_cvtepi32_ps(upper), _mm512_set1_ps(0x1p32f), w);
                }
            }
            __mmask16 unsure;
            if constexpr (kFine) {
                __m512d wide[2];
                if constexpr (!kEqual) {
                    const __m512i a = _mm512_loadu_si512(size + at), z = _mm512_loadu_si512(size + at + 8);
                    for (int h = 0; h < 2; ++h) wide[h] = _mm512_cvtepi64_pd(_mm512_permutex2var_epi64(a, order[h], z));
                }
                first = fine_two<K, kEqual>(l, wide, prices, unsure, below);
            } else {
                for (int j = 0; j < K; ++j) {
                    const __m512 price = _mm512_set1_ps(p.price[j]), priced = kEqual ? _mm512_add_ps(l[j], price) : _mm512_fmadd_ps(price, w, l[j]);
                    v[j] = _mm512_ternarylogic_epi32(_mm512_castps_si512(priced), bits, _mm512_set1_epi32(j), 0xBA);   // (a & ~b) | c
                }
                least_two<K, Integers>(v, first, second);
                signs = _mm512_or_si512(signs, first);
                const __m512 apart = _mm512_fmsub_ps(_mm512_castsi512_ps(second), _mm512_set1_ps(kApart<K, true>), _mm512_castsi512_ps(first));
                const __m512 gap = _mm512_permutexvar_ps(first, gaps);
                unsure = _mm512_cmp_ps_mask(apart, kEqual ? gap : _mm512_mul_ps(gap, w), _CMP_NGE_UQ);
            }
            if constexpr (!kEqual) unsure |= left;
            const __m512 best = picked<K>(l, first);
            if constexpr (kFine) unsure |= _mm512_cmp_ps_mask(best, _mm512_set1_ps(std::numeric_limits<float>::max()), _CMP_NLT_UQ);
            const __m512 chosen = _mm512_mask_mov_ps(best, unsure, _mm512_setzero_ps());
            total0 = _mm512_add_pd(total0, _mm512_cvtps_pd(_mm512_castps512_ps256(chosen)));
            total1 = _mm512_add_pd(total1, _mm512_cvtps_pd(_mm512_extractf32x8_ps(chosen, 1)));
            first = _mm512_and_si512(first, bits);
            y[b] = _mm512_mask_or_epi32(first, unsure, first, marked);
            if constexpr (!kEqual) {
                const __m512i r = _mm512_mask_mov_epi32(_mm512_permutexvar_epi32(first, rates), unsure, none);
                const __m512i odd = _mm512_mul_epu32(_mm512_shuffle_epi32(weight, static_cast<_MM_PERM_ENUM>(0xF5)), _mm512_shuffle_epi32(r, static_cast<_MM_PERM_ENUM>(0xF5)));
                spent = _mm512_add_epi64(spent, _mm512_add_epi64(_mm512_mul_epu32(weight, r), odd));
                weighed = _mm512_add_epi64(weighed, _mm512_add_epi64(_mm512_loadu_si512(size + at), _mm512_loadu_si512(size + at + 8)));
            }
        }
        const __m512i numbers = in_order<K>(y);
        out.unsure[i / 64] = _mm512_movepi8_mask(numbers);
        sure -= __builtin_popcountll(out.unsure[i / 64]);
        _mm512_storeu_si512(choice + i, _mm512_and_si512(numbers, _mm512_set1_epi8(15)));
        for (int q = 0; kEqual && q < p.planes; ++q) {   // rates by their number, none for a byte that is marked
            const __m512i plane = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(p.plane[q])));
            const __m512i sum = _mm512_sad_epu8(_mm512_shuffle_epi8(plane, numbers), none);
            spent = _mm512_add_epi64(spent, _mm512_slli_epi64(sum, static_cast<unsigned>(8 * q)));
        }
    }
    alignas(64) int64_t lane[16];
    double sums[8];
    _mm512_storeu_pd(sums, _mm512_add_pd(total0, total1));
    _mm512_store_si512(lane, spent);
    _mm512_store_si512(lane + 8, weighed);
    out.loss = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    out.cost = kEqual ? sure * p.least : 0;
    out.weight = 0;
    for (int q = 0; q < 8; ++q) {
        out.cost += lane[q];
        out.weight += lane[8 + q];
    }
    return _mm512_movepi32_mask(signs) == 0 && below == 0;
}

}  // namespace bitwright
#endif
