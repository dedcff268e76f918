// The hull steps of frontier.hpp for 4 or 8 formats in single precision, sixteen rows at a time (AVX-512).
//
// Every pair of formats gives one slope; each step is added to its stretch, cost (whole) and loss side by side. What is no
// vertex goes to a stretch beyond the last one, one for each lane: a branch would be guessed wrong too often.
#pragma once

#include "fast512.hpp"

#if BW_FAST
namespace bitwright {

struct alignas(16) Pair {
    int64_t cost;
    double loss;
};

// stretch: those of the table and 16 more. scale: brings slopes near 1, times 1/size where sizes are equal.
template <int K>
struct Plane {
    const int* order;
    float inverse[K][K];
    float rate[K];      // by rising rate, whole
    float scale;
    int64_t one_size;
    int shift, stretches;
    Pair* stretch;
    Pair* sum;          // K of them: .loss, the uniform plans; then .cost, sizes, and .loss, last vertices
};

BW_AVX512 inline double total8(__m512d v) {
    double part[8];
    _mm512_storeu_pd(part, v);
    return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

BW_AVX512 inline __m512d low8(__m512 v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
BW_AVX512 inline __m512d high8(__m512 v) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)); }

// `count` rows (a multiple of 16).
template <int K, bool kEqual>
BW_AVX512 void add_rows16(const float* loss, const int64_t* size, int64_t count, const Plane<K>& p) {
    alignas(64) int64_t from[16];
    for (int q = 0; q < 16; ++q) from[q] = lane_row<K>(q);
    const __m512i first8 = _mm512_load_si512(from), second8 = _mm512_load_si512(from + 8);
    const __m512i beyond = _mm512_add_epi32(_mm512_set1_epi32(p.stretches), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    const __m512 nothing = _mm512_setzero_ps();
    __m512i sizes = _mm512_setzero_si512();
    __m512d column[K], last = _mm512_setzero_pd();
    for (int j = 0; j < K; ++j) column[j] = _mm512_setzero_pd();
    __m512i w0 = _mm512_set1_epi64(p.one_size), w1 = w0;
    __m512 per = _mm512_set1_ps(p.scale);
    alignas(64) int32_t at[16];
    alignas(64) Pair step[16];
    for (int64_t i = 0; i < count; i += 16) {
        __m512 raw[K], l[K], into[K], on[K];
        columns16<K>(loss + i * K, raw);
        for (int j = 0; j < K; ++j) l[j] = raw[p.order[j]];
        if constexpr (!kEqual) {
            const __m512i a = _mm512_loadu_si512(size + i), b = _mm512_loadu_si512(size + i + 8);
            w0 = _mm512_permutex2var_epi64(a, first8, b);
            w1 = _mm512_permutex2var_epi64(a, second8, b);
            const __m512 w = _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtepi64_ps(w0)), _mm512_cvtepi64_ps(w1), 1);
            per = _mm512_div_ps(_mm512_set1_ps(p.scale), w);
            sizes = _mm512_add_epi64(sizes, _mm512_add_epi64(w0, w1));
        }
        for (int j = 0; j < K; ++j) {
            into[j] = _mm512_set1_ps(INFINITY);
            on[j] = nothing;
            column[j] = _mm512_add_pd(column[j], _mm512_add_pd(low8(l[j]), high8(l[j])));
        }
        for (int a = 0; a < K; ++a)
            for (int b = a + 1; b < K; ++b) {
                const __m512 s = _mm512_mul_ps(_mm512_sub_ps(l[a], l[b]), _mm512_set1_ps(p.inverse[a][b]));
                into[b] = _mm512_min_ps(into[b], s);
                on[a] = _mm512_max_ps(on[a], s);
            }
        __m512 before = l[0], rate = _mm512_set1_ps(p.rate[0]);
        for (int j = 1; j < K; ++j) {
            const __mmask16 vertex = _mm512_cmp_ps_mask(into[j], on[j], _CMP_GT_OQ);
            const __m512i bits = _mm512_srli_epi32(_mm512_castps_si512(_mm512_mul_ps(into[j], per)), static_cast<unsigned>(p.shift));
            _mm512_store_si512(at, _mm512_mask_mov_epi32(beyond, vertex, bits));
            const __m512 dearer = _mm512_set1_ps(p.rate[j]), more = _mm512_sub_ps(dearer, rate);
            const __m512i steps = _mm512_cvtps_epi32(more);
            const __m512d c0 = _mm512_castsi512_pd(_mm512_mullo_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(steps)), w0));
            const __m512d c1 = _mm512_castsi512_pd(_mm512_mullo_epi64(_mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(steps, 1)), w1));
            const __m512d s0 = _mm512_sub_pd(low8(before), low8(l[j])), s1 = _mm512_sub_pd(high8(before), high8(l[j]));
            double* out = reinterpret_cast<double*>(step);
            // Lanes 0 2 4 6, then 1 3 5 7, of each half: the order of `turn` below.
            _mm512_store_pd(out, _mm512_unpacklo_pd(c0, s0));
            _mm512_store_pd(out + 8, _mm512_unpackhi_pd(c0, s0));
            _mm512_store_pd(out + 16, _mm512_unpacklo_pd(c1, s1));
            _mm512_store_pd(out + 24, _mm512_unpackhi_pd(c1, s1));
            static constexpr int turn[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
            for (int q = 0; q < 16; ++q) {
                auto* to = reinterpret_cast<double*>(p.stretch + at[turn[q]]);
                const __m128d old = _mm_load_pd(to), more_ = _mm_load_pd(reinterpret_cast<const double*>(step + q));
                const __m128d cost = _mm_castsi128_pd(_mm_add_epi64(_mm_castpd_si128(old), _mm_castpd_si128(more_)));
                _mm_store_pd(to, _mm_move_sd(_mm_add_pd(old, more_), cost));
            }
            before = _mm512_mask_mov_ps(before, vertex, l[j]);
            rate = _mm512_mask_mov_ps(rate, vertex, dearer);
        }
        last = _mm512_add_pd(last, _mm512_add_pd(low8(before), high8(before)));
    }
    for (int j = 0; j < K; ++j) p.sum[j].loss += total8(column[j]);
    p.sum[K].cost += kEqual ? p.one_size * count : _mm512_reduce_add_epi64(sizes);
    p.sum[K].loss += total8(last);
}

}  // namespace bitwright
#endif
