// The hull slopes of frontier.hpp for up to 8 formats in single precision, eight rows at a time (AVX2).
//
// Formats by rising rate; the slope of a row's hull over the interval from format j - 1 to format j is
//
//     t_j = min over a < j of max over b >= j of s(a, b),   s(a, b) = (loss_a - loss_b) / (rate_b - rate_a)
//
// (the minmax formula of isotonic regression, Robertson, Wright, Dykstra 1988, section 1.4), or 0 where that is negative. So each row adds
// (rate_j - rate_{j-1}) * size to the cost of t_j's stretch and t_j times that to its loss, with nothing to branch on.
//
// Only a, b at most kWindow apart are looked at first. Over a piece of the hull that long or shorter this is t_j itself; over a longer one,
// of slope t, its first value is at most t (the piece lies below its chord from where it begins) and its last at least t. So where the
// values never rise from one format to the next they are the slopes; a row where they do, or where one is negative, is done in full.
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

template <int K>
constexpr int kWindow = K > 4 ? 3 : K - 1;

// What a row adds to a stretch. Of equal sizes: a code of its slope. Of small multiples of their divisor: the size and its product with a
// part of the slope, packed. Else a Pair.
enum class Sizes { equal, small, any };

struct alignas(16) Pair {
    double size, slope;
};

// The part: 16 bits of the mantissa, those below the bits that are the stretch q. The code: the part, inverted, above the odd number
// 2 q + 1, 16 bits too. The sum of up to 65,535 codes of a stretch tells how many they are: it is their number times 2 q + 1, modulo 2^16.
constexpr int kParts = 16;
constexpr uint32_t kPartBits = 0xFFFF0001;   // bits of a code that come from the inverted part
constexpr int64_t kCounted = 65472;          // rows between two emptyings of the table: a multiple of 64

// Packed: size * 2^40 + size * part. The sizes of a stretch must sum to less than 2^24.
constexpr int kPacked = 40;
constexpr int64_t kMostPacked = int64_t{1} << 24;
constexpr int64_t kFewPacked = 1 << 12;   // the mean size at most: a table is emptied every few thousand rows
constexpr int64_t kWeighed = 2048;        // rows whose sizes are summed before they are added

constexpr int kHeld = 64;
// Rows whose slopes are held at once.
template <int K, bool kEqual>
constexpr int kGroup = K <= 4 ? kHeld : kEqual ? 32 : 8;

// What was taken out of a table: the sum of the sizes (or their number), and of their products with the parts.
struct Total {
    int64_t size = 0, part = 0;
};

// Sums of one worker. inverse: 1 / (rate_b - rate_a), scaled so that t_j stay near 1; mean: brings t_j / size near 1.
template <int K>
struct Sums {
    float inverse[K][K];
    float mean;
    double per_unit = 1.0;             // 1 / the divisor of the sizes
    const int* order;
    std::vector<uint64_t> cell;        // equal and small sizes
    std::vector<Pair> pair;
    std::vector<Total> total;          // of `cell`, emptied
    uint32_t least = ~0u, most = 0;    // bits of the slopes since
    double last = 0.0;
    alignas(64) uint32_t bits[K][kHeld];
    alignas(64) Pair step[K][kHeld];
};

template <int K>
void add_codes(Sums<K>& s) {
    for (int j = 1; j < K; ++j) {
        char* to = reinterpret_cast<char*>(s.cell.data() + j * kTable) - 4;
        const uint32_t* code = s.bits[j];
#pragma GCC unroll 8
        for (int q = 0; q < kGroup<K, true>; ++q) *reinterpret_cast<uint64_t*>(to + 4 * uint64_t{code[q] & 0xFFFF}) += code[q];
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

// The inverse of an odd number modulo 2^16, by Newton's iteration (an odd number is its own inverse modulo 8).
inline uint16_t inverse_of(uint32_t odd) {
    uint32_t x = odd;
    for (int q = 0; q < 3; ++q) x *= 2 - odd * x;
    return static_cast<uint16_t>(x);
}

// Number and parts of the codes that were added up.
inline Total counted(uint64_t sum, int q) {
    const uint32_t odd = 2 * static_cast<uint32_t>(q) + 1;
    const uint64_t count = static_cast<uint16_t>(static_cast<uint32_t>(sum) * inverse_of(odd));
    return {static_cast<int64_t>(count), static_cast<int64_t>(count * 0xFFFF - ((sum - count * odd) >> kParts))};
}

inline Total unpacked(uint64_t sum) { return {static_cast<int64_t>(sum >> kPacked), static_cast<int64_t>(sum & ((uint64_t{1} << kPacked) - 1))}; }

// Sum of slopes times sizes of stretch q. The three bits of the mantissa that are not kept: 3.5 on average.
inline double slopes_of(const Total& t, int q) {
    const auto size = static_cast<double>(t.size);
    const double part = size * ((q & ((1 << kShare) - 1)) << kShift) + 8.0 * static_cast<double>(t.part) + 3.5 * size;
    return std::ldexp(size + part * 0x1p-23, (q >> kShare) - 127);
}

// Takes what was added up out of the table, eight stretches at a time.
template <int K, bool kEqual>
void empty(Sums<K>& s) {
    const int first = static_cast<int>(s.least >> kShift) & ~7, end = static_cast<int>(s.most >> kShift) + 1;
    for (int j = 1; j < K; ++j) {
        for (int at = first; at < end; at += 8) {
            uint64_t* cell = s.cell.data() + j * kTable + at;
            if ((cell[0] | cell[1] | cell[2] | cell[3] | cell[4] | cell[5] | cell[6] | cell[7]) == 0) continue;
            Total* to = s.total.data() + j * kStretches + at;
            for (int q = 0; q < 8; ++q) {
                const Total more = kEqual ? counted(cell[q], at + q) : unpacked(cell[q]);
                to[q].size += more.size;
                to[q].part += more.part;
                cell[q] = 0;
            }
        }
    }
    s.least = ~0u;
    s.most = 0;
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

// Floats at least zero compare as integers do, and a negative one is less than zero either way. kFull: a, b of any distance.
template <int K, bool kFull>
BW_AVX2 __attribute__((always_inline)) inline void minmax8(const __m256* l, const Sums<K>& s, __m256i* t) {
    constexpr int W = kFull ? K - 1 : kWindow<K>;
    for (int a = 0; a + 1 < K; ++a) {
        __m256i most = _mm256_setzero_si256();
        for (int b = std::min(K - 1, a + W); b > a; --b) {
            const __m256i slope = _mm256_castps_si256(_mm256_mul_ps(_mm256_sub_ps(l[a], l[b]), _mm256_set1_ps(s.inverse[a][b])));
            most = !kFull && b == std::min(K - 1, a + W) ? slope : _mm256_max_epi32(most, slope);
            t[b] = a == std::max(0, b - W) ? most : _mm256_min_epi32(t[b], most);
        }
    }
}

// Slopes of eight rows by lanes; returns the losses of their last vertices.
template <int K>
BW_AVX2 __attribute__((always_inline)) inline __m256 slopes_of8(const __m256* l, const Sums<K>& s, __m256i* t) {
    minmax8<K, false>(l, s, t);
    __m256i bad = t[K - 1];   // by its sign
    for (int j = 1; j + 1 < K; ++j) bad = _mm256_or_si256(bad, _mm256_cmpgt_epi32(t[j + 1], t[j]));
    const __m256 rows = _mm256_castsi256_ps(_mm256_srai_epi32(bad, 31));
    if (_mm256_movemask_ps(rows) == 0) return l[K - 1];
    __m256i full[K];
    minmax8<K, true>(l, s, full);
    for (int j = 1; j < K; ++j) t[j] = _mm256_blendv_epi8(t[j], full[j], _mm256_castps_si256(rows));
    __m256 least = l[0];
    for (int j = 1; j < K; ++j) least = _mm256_min_ps(least, l[j]);
    return least;
}

template <int K, bool kEqual, bool kSorted>
BW_AVX2 void slopes8(const float* loss, const int64_t* size, Sums<K>& s) {
    const __m256i whole = _mm256_set1_epi32(~15), turn = _mm256_setr_epi32(0, 2, 1, 3, 4, 6, 5, 7);
    __m256d last = _mm256_setzero_pd();
    __m256i low = _mm256_set1_epi32(-1), high = _mm256_setzero_si256();
    for (int i = 0; i < kGroup<K, kEqual>; i += 8) {
        __m256 l[K];
        __m256i t[K];
        columns<K>(loss + i * K, l);
        if constexpr (!kSorted) {
            __m256 raw[K];
            std::copy(l, l + K, raw);
            for (int j = 0; j < K; ++j) l[j] = raw[s.order[j]];
        }
        const __m256 least = slopes_of8<K>(l, s, t);
        last = _mm256_add_pd(last, _mm256_add_pd(low4(least), high4(least)));
        if constexpr (kEqual) {
            low = _mm256_min_epu32(low, t[K - 1]);
            high = _mm256_max_epu32(high, t[1]);
            const __m256i own = _mm256_set1_epi32(static_cast<int>(kPartBits));
            for (int j = 1; j < K; ++j) {
                const __m256i parts = _mm256_andnot_si256(_mm256_slli_epi32(t[j], 32 - kShift), own);
                const __m256i code = _mm256_or_si256(parts, _mm256_andnot_si256(own, _mm256_srli_epi32(t[j], kShift - 1)));
                _mm256_store_si256(reinterpret_cast<__m256i*>(s.bits[j] + i), code);
            }
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
    if constexpr (kEqual) {
        alignas(32) uint32_t lows[8], highs[8];
        _mm256_store_si256(reinterpret_cast<__m256i*>(lows), low);
        _mm256_store_si256(reinterpret_cast<__m256i*>(highs), high);
        s.least = std::min(s.least, *std::min_element(lows, lows + 8));
        s.most = std::max(s.most, *std::max_element(highs, highs + 8));
    }
}

}  // namespace bitwright
#endif
