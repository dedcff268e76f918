// The single-precision pass of fast.hpp with sixteen rows at a time (AVX-512), for 2 to 16 formats: the same checks, bit for bit.
#pragma once

#include "fast.hpp"

#if BW_FAST
#define BW_AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl")))
#define BW_AVX512_INLINE BW_AVX512 __attribute__((always_inline)) inline

namespace bitwright {

inline bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl");
}

inline bool has_vbmi2() { return has_avx512() && __builtin_cpu_supports("avx512vbmi2"); }

// The numbers of a block's rows that are not certain, in order; out: room for 32 more than there are. Returns how many.
inline int places(const uint64_t* unsure, uint16_t* out) {
    int many = 0;
    for (int g = 0; g < 8; ++g)
        for (uint64_t bits = unsure[g]; bits != 0; bits &= bits - 1) out[many++] = static_cast<uint16_t>(64 * g + __builtin_ctzll(bits));
    return many;
}

// The same with nothing to branch on.
__attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt"))) inline int places512(const uint64_t* unsure, uint16_t* out) {
    alignas(64) uint16_t first[32];
    for (uint16_t q = 0; q < 32; ++q) first[q] = q;
    __m512i numbers = _mm512_load_si512(first);
    const __m512i more = _mm512_set1_epi16(32);
    int many = 0;
    for (int g = 0; g < 16; ++g) {
        const auto bits = static_cast<uint32_t>(unsure[g / 2] >> (32 * (g % 2)));
        _mm512_storeu_si512(out + many, _mm512_maskz_compress_epi16(bits, numbers));
        many += __builtin_popcount(bits);
        numbers = _mm512_add_epi16(numbers, more);
    }
    return many;
}

// The bytes of two arrays, `count` of them, at most 512, that differ, a bit each.
BW_AVX512 inline void differences512(const uint8_t* a, const uint8_t* b, int count, uint64_t* bits) {
    for (int g = 0; g < 8; ++g) {
        const int left = std::clamp(count - 64 * g, 0, 64);
        const __mmask64 some = left == 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
        bits[g] = _mm512_mask_cmpneq_epi8_mask(some, _mm512_maskz_loadu_epi8(some, a + 64 * g), _mm512_maskz_loadu_epi8(some, b + 64 * g));
    }
}

// The four 4x4 blocks in the lanes of 128 bits, transposed.
BW_AVX512_INLINE void turned(__m512 a, __m512 b, __m512 c, __m512 d, __m512* l) {
    const __m512 ab0 = _mm512_unpacklo_ps(a, b), ab1 = _mm512_unpackhi_ps(a, b);
    const __m512 cd0 = _mm512_unpacklo_ps(c, d), cd1 = _mm512_unpackhi_ps(c, d);
    l[0] = _mm512_shuffle_ps(ab0, cd0, 0x44);
    l[1] = _mm512_shuffle_ps(ab0, cd0, 0xEE);
    l[2] = _mm512_shuffle_ps(ab1, cd1, 0x44);
    l[3] = _mm512_shuffle_ps(ab1, cd1, 0xEE);
}

// Formats j of sixteen rows of K floats at `p`, in the order of the rows: four formats of four rows meet in the load. Of fewer than 4
// formats floats of the next row are read as well.
template <int K>
BW_AVX512_INLINE void rows_columns(const float* p, __m512* l) {
    __m512 c[4];
#pragma GCC unroll 4
    for (int g = 0; g < (K + 3) / 4; ++g) {
        const float* from = p + four_at<K>(g);
        __m512 r[4];
#pragma GCC unroll 4
        for (int e = 0; e < 4; ++e) {
            r[e] = _mm512_castps128_ps512(_mm_loadu_ps(from + e * K));
            r[e] = _mm512_mask_broadcast_f32x4(r[e], 0x00F0, _mm_loadu_ps(from + (4 + e) * K));
            r[e] = _mm512_mask_broadcast_f32x4(r[e], 0x0F00, _mm_loadu_ps(from + (8 + e) * K));
            r[e] = _mm512_mask_broadcast_f32x4(r[e], 0xF000, _mm_loadu_ps(from + (12 + e) * K));
        }
        turned(r[0], r[1], r[2], r[3], K < 4 ? c : l + four_at<K>(g));
    }
    if constexpr (K < 4) std::copy(c, c + K, l);
}

// Row of each lane after `columns16`.
template <int K>
constexpr int lane_row(int p) {
    return K != 8 ? p : 8 * (p / 8) + p / 4 % 2 + 2 * (p % 4);
}

// Formats j of sixteen rows of K floats at `p`, in the order of `lane_row`.
template <int K>
BW_AVX512_INLINE void columns16(const float* p, __m512* l) {
    if constexpr (K == 4) {   // formats 0 and 1, then 2 and 3, of eight rows at a time
        const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
        const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(2));
        const __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + 16), c = _mm512_loadu_ps(p + 32), d = _mm512_loadu_ps(p + 48);
        const __m512 ab0 = _mm512_permutex2var_ps(a, first, b), ab2 = _mm512_permutex2var_ps(a, second, b);
        const __m512 cd0 = _mm512_permutex2var_ps(c, first, d), cd2 = _mm512_permutex2var_ps(c, second, d);
        l[0] = _mm512_shuffle_f32x4(ab0, cd0, 0x44);
        l[1] = _mm512_shuffle_f32x4(ab0, cd0, 0xEE);
        l[2] = _mm512_shuffle_f32x4(ab2, cd2, 0x44);
        l[3] = _mm512_shuffle_f32x4(ab2, cd2, 0xEE);
        return;
    }
    if constexpr (K != 8) return rows_columns<K>(p, l);
    __m512 t[K];
    for (int g = 0; g < K / 4; ++g) {
        const float* q = p + 64 * g;
        const __m512 a = _mm512_loadu_ps(q), b = _mm512_loadu_ps(q + 16), c = _mm512_loadu_ps(q + 32), d = _mm512_loadu_ps(q + 48);
        const __m512 ab0 = _mm512_unpacklo_ps(a, b), ab1 = _mm512_unpackhi_ps(a, b);
        const __m512 cd0 = _mm512_unpacklo_ps(c, d), cd1 = _mm512_unpackhi_ps(c, d);
        t[4 * g] = _mm512_shuffle_ps(ab0, cd0, 0x44);
        t[4 * g + 1] = _mm512_shuffle_ps(ab0, cd0, 0xEE);
        t[4 * g + 2] = _mm512_shuffle_ps(ab1, cd1, 0x44);
        t[4 * g + 3] = _mm512_shuffle_ps(ab1, cd1, 0xEE);
    }
    for (int j = 0; j < K / 2; ++j) {   // lanes: formats j and 4 + j of even rows, then of odd rows
        l[j] = _mm512_shuffle_f32x4(t[j], t[K / 2 + j], 0x88);
        l[K / 2 + j] = _mm512_shuffle_f32x4(t[j], t[K / 2 + j], 0xDD);
    }
}

// `count` rows (a multiple of 16, at most 512). ahead: as in coarse512.hpp. out.unsure: zeros.
template <int K, bool kEqual>
BW_AVX512 void fast_block16(const float* loss, const int64_t* size, const FastPrices& p, int count, int64_t ahead, uint8_t* choice,
                            FastBlock& out) {
    alignas(64) int32_t row_of[16], lane_of[16];
    for (int q = 0; q < 16; ++q) {
        row_of[q] = lane_row<K>(q);
        lane_of[lane_row<K>(q)] = q;
    }
    const __m512i rows = _mm512_load_si512(row_of), lanes = _mm512_load_si512(lane_of);
    const __m512i rates_of = _mm512_load_si512(p.rate);
    __m512 need_of[K];
    for (int j = 0; j < K; ++j) need_of[j] = _mm512_load_ps(p.need[j]);
    __m512d total = _mm512_setzero_pd();
    __m512i spent = _mm512_setzero_si512(), weighed = _mm512_setzero_si512();
    for (int i = 0; i < count; i += 16) {
        __m512 l[K], w = _mm512_setzero_ps();
        for (int q = 0; q < K; ++q) _mm_prefetch(reinterpret_cast<const char*>(loss + (i + ahead) * K + 16 * q), _MM_HINT_T1);
        columns16<K>(loss + static_cast<int64_t>(i) * K, l);
        if constexpr (!kEqual) {
            const __m256 a = _mm512_cvtepi64_ps(_mm512_loadu_si512(size + i)), b = _mm512_cvtepi64_ps(_mm512_loadu_si512(size + i + 8));
            w = _mm512_insertf32x8(_mm512_castps256_ps512(a), b, 1);
            if constexpr (K == 8) w = _mm512_permutexvar_ps(rows, w);
        }
        __m512 best = l[0], chosen = l[0];
        __m512i x = _mm512_setzero_si512();
        for (int j = 1; j < K; ++j) {
            const __m512 price = _mm512_set1_ps(p.price[j]);
            __m512 v;
            if constexpr (kEqual) v = _mm512_add_ps(l[j], price);
            else v = _mm512_fmadd_ps(price, w, l[j]);   // only a guess: its rounding does not matter
            const __mmask16 less = _mm512_cmp_ps_mask(v, best, _CMP_LT_OQ);
            best = _mm512_min_ps(v, best);
            chosen = _mm512_mask_mov_ps(chosen, less, l[j]);
            x = _mm512_mask_mov_epi32(x, less, _mm512_set1_epi32(j));
        }
        __mmask16 sure = 0xFFFF;
        for (int j = 0; j < K; ++j) {
            __m512 need;
            if constexpr (K <= 4) need = _mm512_permutevar_ps(need_of[j], x);
            else need = _mm512_permutexvar_ps(x, need_of[j]);
            if constexpr (!kEqual) need = _mm512_mul_ps(need, w);
            sure = _mm512_mask_cmp_ps_mask(sure, _mm512_sub_ps(l[j], chosen), need, _CMP_GE_OQ);
        }
        chosen = _mm512_maskz_mov_ps(sure, chosen);
        total = _mm512_add_pd(total, _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(chosen)),
                                                   _mm512_cvtps_pd(_mm512_extractf32x8_ps(chosen, 1))));
        const __m512i rates = _mm512_maskz_permutexvar_epi32(sure, x, rates_of);
        if constexpr (kEqual) {
            spent = _mm512_add_epi32(spent, rates);   // at most 32 rates of 2^24 a lane
        } else {
            const __m512i r = K == 8 ? _mm512_permutexvar_epi32(lanes, rates) : rates;
            const __m512i r0 = _mm512_cvtepu32_epi64(_mm512_castsi512_si256(r)), r1 = _mm512_cvtepu32_epi64(_mm512_extracti32x8_epi32(r, 1));
            const __m512i s0 = _mm512_loadu_si512(size + i), s1 = _mm512_loadu_si512(size + i + 8);
            weighed = _mm512_add_epi64(weighed, _mm512_add_epi64(s0, s1));
            spent = _mm512_add_epi64(spent, _mm512_add_epi64(_mm512_mullo_epi64(s0, r0), _mm512_mullo_epi64(s1, r1)));
        }
        if constexpr (K == 8) {   // in the order of the rows
            x = _mm512_permutexvar_epi32(lanes, x);
            sure = _mm512_movepi32_mask(_mm512_permutexvar_epi32(lanes, _mm512_movm_epi32(sure)));
        }
        _mm_storeu_si128(reinterpret_cast<__m128i*>(choice + i), _mm512_cvtepi32_epi8(x));
        out.unsure[i / 64] |= static_cast<uint64_t>(static_cast<uint16_t>(~sure)) << (i % 64);
    }
    double sums[8];
    _mm512_storeu_pd(sums, total);
    out.loss = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    out.cost = out.weight = 0;
    if constexpr (kEqual) {
        alignas(64) int32_t lane[16];
        _mm512_store_si512(lane, spent);
        for (int32_t v : lane) out.cost += v;
    } else {
        alignas(64) int64_t lane[16];
        _mm512_store_si512(lane, spent);
        _mm512_store_si512(lane + 8, weighed);
        for (int q = 0; q < 8; ++q) {
            out.cost += lane[q];
            out.weight += lane[8 + q];
        }
    }
}

}  // namespace bitwright
#endif
