// The hull slopes of frontier.hpp for up to 8 formats in single precision, eight rows at a time (AVX2).
//
// Formats by rising rate; the slope of a row's hull over the interval from format j - 1 to format j is
//
//     t_j = min over a < j of max over b >= j of (loss_a - loss_b) / (rate_b - rate_a)      (the minmax formula of
//
// isotonic regression, Robertson, Wright, Dykstra 1988, section 1.4), never rising with j whatever the rounding. So each row
// adds (rate_j - rate_{j-1}) * size to the cost of t_j's stretch and t_j times that to its loss, with nothing to branch
// on. Slopes are first found for a few rows, then added up: stores and loads of both at once would get in each other's way.
#pragma once

#include <vector>

#include "fast.hpp"
#include "table.hpp"

#if BW_FAST
namespace bitwright {

constexpr int kShare = 4;                  // 2^kShare stretches an octave: the leading bits of the slope, a float
constexpr int kShift = 23 - kShare;
constexpr int kStretches = 256 << kShare;
constexpr int kTable = kStretches + 136;   // not a multiple of a page: tables would share their lines of the cache

struct alignas(16) Pair {
    double size, slope;
};

constexpr int kHeld = 64;
// Rows whose slopes are held at once.
template <int K, bool kEqual>
constexpr int kGroup = K == 4 ? kHeld : kEqual ? 32 : 8;

// Sums of one worker. inverse: 1 / (rate_b - rate_a), scaled so that t_j stay near 1; mean: brings t_j / size near 1.
template <int K>
struct Sums {
    float inverse[K][K];
    float mean;
    const int* order;
    // Equal sizes: each slope, as the bits of a float, plus kOne. Uneven sizes: (size, slope), whole.
    std::vector<uint64_t> count;
    std::vector<Pair> pair;
    double last = 0.0;
    alignas(64) uint32_t bits[K][kHeld];
    alignas(64) Pair step[K][kHeld];
};

constexpr uint64_t kOne = uint64_t{1} << 40;
constexpr int64_t kMost = int64_t{1} << 20;   // rows before the counts overflow

template <int K>
void add_counts(Sums<K>& s) {
    for (int j = 1; j < K; ++j) {
        uint64_t* to = s.count.data() + j * kTable;
        const uint32_t* bits = s.bits[j];
#pragma GCC unroll 8
        for (int q = 0; q < kGroup<K, true>; ++q) to[bits[q] >> kShift] += bits[q] + kOne;
    }
}

template <int K>
void add_pairs(Sums<K>& s) {   // bits: offsets in bytes
    for (int j = 1; j < K; ++j) {
        char* to = reinterpret_cast<char*>(s.pair.data() + j * kTable);
        const uint32_t* at = s.bits[j];
        const Pair* step = s.step[j];
#pragma GCC unroll 8
        for (int q = 0; q < kGroup<K, false>; ++q) {
            auto* sum = reinterpret_cast<double*>(to + at[q]);
            _mm_store_pd(sum, _mm_add_pd(_mm_load_pd(sum), _mm_load_pd(&step[q].size)));
        }
    }
}

BW_AVX2 inline double total4(__m256d v) {
    double part[4];
    _mm256_storeu_pd(part, v);
    return (part[0] + part[1]) + (part[2] + part[3]);
}

BW_AVX2 inline __m256d low4(__m256 v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
BW_AVX2 inline __m256d high4(__m256 v) { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }

// Four int64 below 2^52 as doubles.
BW_AVX2 inline __m256d doubles4(__m256i v) {
    const __m256i magic = _mm256_set1_epi64x(0x4330000000000000);
    return _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(v, magic)), _mm256_set1_pd(4503599627370496.0));
}

// Floats at least zero compare as integers do, and a negative one is less than zero either way.
template <int K, bool kEqual, bool kSorted>
BW_AVX2 void slopes8(const float* loss, const int64_t* size, Sums<K>& s) {
    const __m256i whole = _mm256_set1_epi32(~15), turn = _mm256_setr_epi32(0, 2, 1, 3, 4, 6, 5, 7);
    __m256d last = _mm256_setzero_pd();
    for (int i = 0; i < kGroup<K, kEqual>; i += 8) {
        __m256 l[K];
        __m256i t[K];
        columns<K>(loss + i * K, l);
        if constexpr (!kSorted) {
            __m256 raw[K];
            std::copy(l, l + K, raw);
            for (int j = 0; j < K; ++j) l[j] = raw[s.order[j]];
        }
        __m256 least = l[0];
        for (int j = 1; j < K; ++j) least = _mm256_min_ps(least, l[j]);
        last = _mm256_add_pd(last, _mm256_add_pd(low4(least), high4(least)));
        for (int a = 0; a + 1 < K; ++a) {
            __m256i most = _mm256_setzero_si256();
            for (int b = K - 1; b > a; --b) {
                const __m256 slope = _mm256_mul_ps(_mm256_sub_ps(l[a], l[b]), _mm256_set1_ps(s.inverse[a][b]));
                most = _mm256_max_epi32(most, _mm256_castps_si256(slope));
                t[b] = a == 0 ? most : _mm256_min_epi32(t[b], most);
            }
        }
        if constexpr (kEqual) {
            for (int j = 1; j < K; ++j) _mm256_store_si256(reinterpret_cast<__m256i*>(s.bits[j] + i), t[j]);
        } else {
            const auto* from = reinterpret_cast<const __m256i*>(size + i);   // rows 0 2 4 6, then 1 3 5 7, as `columns` has them
            const __m256i a = _mm256_loadu_si256(from), b = _mm256_loadu_si256(from + 1);
            const __m256d w0 = doubles4(_mm256_permute4x64_epi64(_mm256_unpacklo_epi64(a, b), 0xD8));
            const __m256d w1 = doubles4(_mm256_permute4x64_epi64(_mm256_unpackhi_epi64(a, b), 0xD8));
            const __m256 per = _mm256_div_ps(_mm256_set1_ps(s.mean), _mm256_set_m128(_mm256_cvtpd_ps(w1), _mm256_cvtpd_ps(w0)));
            for (int j = 1; j < K; ++j) {
                const __m256 slope = _mm256_castsi256_ps(t[j]);
                const __m256i at = _mm256_srli_epi32(_mm256_castps_si256(_mm256_mul_ps(slope, per)), kShift - 4);
                auto* place = reinterpret_cast<__m256i*>(s.bits[j] + i);
                _mm256_store_si256(place, _mm256_permutevar8x32_epi32(_mm256_and_si256(at, whole), turn));
                const __m256d d0 = low4(slope), d1 = high4(slope);
                double* out = &s.step[j][i].size;   // lanes 0 2, 1 3 of each half
                _mm256_store_pd(out, _mm256_unpacklo_pd(w0, d0));
                _mm256_store_pd(out + 4, _mm256_unpackhi_pd(w0, d0));
                _mm256_store_pd(out + 8, _mm256_unpacklo_pd(w1, d1));
                _mm256_store_pd(out + 12, _mm256_unpackhi_pd(w1, d1));
            }
        }
    }
    s.last += total4(last);
}

// Number of slopes in stretch q and their sum, from the sum of their bits and of kOne for each.
inline void counted(uint64_t sum, int q, double& number, double& slopes) {
    const uint64_t each = kOne + (static_cast<uint64_t>(q) << kShift), count = sum / each;
    const uint64_t part = static_cast<uint64_t>(q & ((1 << kShare) - 1)) << kShift;   // of the mantissa
    number = static_cast<double>(count);
    slopes = std::ldexp(number + static_cast<double>(count * part + sum % each) * 0x1p-23, (q >> kShare) - 127);
}

}  // namespace bitwright
#endif
