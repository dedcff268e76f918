// The hull slopes of frontier.hpp for any losses and up to 16 formats, and how they are added up.
//
// Formats by rising rate; the slope of a row's hull over the interval from format j - 1 to format j is
//
//     t_j = min over a < j of max over b >= j of s(a, b),   s(a, b) = (loss_a - loss_b) / (rate_b - rate_a)
//
// (the minmax formula of isotonic regression, Robertson, Wright, Dykstra 1988, section 1.4), or 0 where that is negative. So each row adds
// (rate_j - rate_{j-1}) * size to the cost of t_j's stretch and t_j times that to its loss, with nothing to branch on.
//
// Only a, b at most a window apart are looked at first. Over a piece of the hull that long or shorter this is t_j itself; over a longer one,
// of slope t, its first value is at most t (the piece lies below its chord from where it begins) and its last at least t. So where the
// values never rise from one format to the next they are the slopes; a row where they do is done in full. (Both hold of max(0, value) too.)
//
// Formats of one rate are one format here, of the lesser loss. A forbidden format's loss is infinite: slopes from it are too, and their steps are
// taken by every plan; slopes to it are negative, and between two of them there is none (not a number, which no comparison takes).
#pragma once

#include <memory>

#include "table.hpp"

#pragma GCC diagnostic ignored "-Wpsabi"   // vectors are passed between functions that are inlined only

namespace bitwright {

constexpr int kShare = 4;                  // 2^kShare stretches an octave: the leading bits of the slope, a float
constexpr int kShift = 23 - kShare;
constexpr int kStretches = 256 << kShare;
constexpr int kTable = kStretches + 136;   // not a multiple of a page: tables would share their lines of the cache

constexpr int kInfinite = 255 << kShare;   // the stretch of infinite slopes
constexpr int kReach = 3;                  // the window

struct Stretch {
    int64_t cost = 0;
    double loss = 0.0;
};

struct Whole {
    std::vector<Stretch> stretch;   // by rising slope
    double last = 0.0;              // loss of the last vertices
};

// Vectors that the compiler makes of what the machine has: rows side by side.
template <class T, int kSide>
struct VectorOf {
    typedef T type __attribute__((vector_size(sizeof(T) * kSide)));
};
template <class T>
using Four = typename VectorOf<T, 4>::type;
template <class T>
constexpr int kSide = 32 / sizeof(T);
template <class T, class In = T>
using Side = typename VectorOf<In, kSide<T>>::type;

template <class V>
BW_INLINE V vector_at(const void* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

constexpr int kRows = 64;   // looked at together, in the cache

// Losses times a power of two, by rising rate, and columns of nothing after the last; slopes of the intervals that end at each format, and
// where their stretches lie.
template <class T>
struct HullRows {
    alignas(64) T loss[16 + kReach][kRows] = {};
    alignas(64) T least[kRows];
    alignas(64) float slope[16][kRows];
    alignas(64) int32_t at[16][kRows];
    alignas(64) float share[kRows];   // brings the slopes of a row of its size near 1
    int64_t size[kRows];
};

struct alignas(16) Sum {
    int64_t size = 0;
    double slope = 0.0;
};

// 1 / (rate_b - rate_a), and 0 after the last format.
using Inverses16 = float[16][16 + kReach];

// Lanes of two vectors in turns, of their first or their second halves; and those halves one after the other.
template <class V>
BW_INLINE V in_turns(const V& a, const V& b, int half) {
    return half == 0 ? V{a[0], b[0], a[1], b[1]} : V{a[2], b[2], a[3], b[3]};
}
template <class V>
BW_INLINE V halves(const V& a, const V& b, int half) {
    return half == 0 ? V{a[0], a[1], b[0], b[1]} : V{a[2], a[3], b[2], b[3]};
}

// Rows of four losses each to columns.
template <class T>
BW_INLINE void transpose(Four<T>* r) {
    const Four<T> ab0 = in_turns(r[0], r[1], 0), cd0 = in_turns(r[2], r[3], 0);
    const Four<T> ab1 = in_turns(r[0], r[1], 1), cd1 = in_turns(r[2], r[3], 1);
    r[0] = halves(ab0, cd0, 0);
    r[1] = halves(ab0, cd0, 1);
    r[2] = halves(ab1, cd1, 0);
    r[3] = halves(ab1, cd1, 1);
}

// column: of each format.
template <class T>
BW_INLINE void take_losses(const T* loss, int count, int k, const int* column, T lift, HullRows<T>& h) {
    for (int j = 0; j < k; ++j) std::fill_n(h.loss[column[j]], kRows, std::numeric_limits<T>::infinity());
    int i = 0;
    for (; k >= 4 && i + 4 <= count; i += 4, loss += 4 * k) {
        for (int j = 0; j < k; j += 4) {
            j = std::min(j, k - 4);   // the last four: some of them again
            Four<T> r[4];
            for (int p = 0; p < 4; ++p) r[p] = vector_at<Four<T>>(loss + p * k + j) * lift;
            transpose<T>(r);
            for (int p = 0; p < 4; ++p) {
                T* to = h.loss[column[j + p]] + i;
                const auto held = vector_at<Four<T>>(to);
                r[p] = r[p] < held ? r[p] : held;
                std::memcpy(to, &r[p], sizeof r[p]);
            }
        }
    }
    for (; i < count; ++i, loss += k)
        for (int j = 0; j < k; ++j) h.loss[column[j]][i] = std::min(h.loss[column[j]][i], static_cast<T>(load(loss + j) * lift));
}

// Slopes of some rows with formats in the window alone; returns whether they never rise from one format to the next, in each row.
template <class T>
BW_INLINE bool near_slopes(const HullRows<T>& h, int i, int k, const Inverses16& inverse, Side<T, float>* t) {
    using Floats = Side<T, float>;
    auto a0 = vector_at<Side<T>>(h.loss[0] + i), a1 = vector_at<Side<T>>(h.loss[1] + i), a2 = vector_at<Side<T>>(h.loss[2] + i);
    Floats next = Floats{} + INFINITY, after = next, before = next;   // of the next two formats, so far; of the one before
    Side<T, int32_t> rising = {};
    for (int a = 0; a + 1 < k; ++a) {
        const auto a3 = vector_at<Side<T>>(h.loss[a + 3] + i);
        const Floats s1 = __builtin_convertvector(a0 - a1, Floats) * inverse[a][a + 1];
        const Floats s2 = __builtin_convertvector(a0 - a2, Floats) * inverse[a][a + 2];
        const Floats s3 = __builtin_convertvector(a0 - a3, Floats) * inverse[a][a + 3];
        const Floats most3 = s3 > 0.0f ? s3 : Floats{}, most2 = s2 > most3 ? s2 : most3, most1 = s1 > most2 ? s1 : most2;
        t[a + 1] = most1 < next ? most1 : next;
        rising |= t[a + 1] > before;
        before = t[a + 1];
        next = most2 < after ? most2 : after;
        after = most3;
        a0 = a1, a1 = a2, a2 = a3;
    }
    int64_t any[kSide<T> / 2], met = 0;
    std::memcpy(any, &rising, sizeof any);
    for (int64_t two : any) met |= two;
    return met == 0;
}

template <class T>
BW_INLINE void all_slopes(const HullRows<T>& h, int i, int k, const Inverses16& inverse, Side<T, float>* t) {
    using Floats = Side<T, float>;
    for (int j = 1; j < k; ++j) t[j] = Floats{} + INFINITY;
    for (int a = 0; a + 1 < k; ++a) {
        const auto from = vector_at<Side<T>>(h.loss[a] + i);
        Floats most = {};
        for (int b = k - 1; b > a; --b) {
            const Floats s = __builtin_convertvector(from - vector_at<Side<T>>(h.loss[b] + i), Floats) * inverse[a][b];
            most = s > most ? s : most;
            t[b] = most < t[b] ? most : t[b];
        }
    }
}

template <class T>
BW_INLINE void find_slopes(HullRows<T>& h, int count, int k, const Inverses16& inverse) {
    for (int i = 0; i < count; i += kSide<T>) {
        Side<T, float> t[16];
        if (!near_slopes(h, i, k, inverse, t)) all_slopes(h, i, k, inverse, t);
        const auto share = vector_at<Side<T, float>>(h.share + i);
        auto least = vector_at<Side<T>>(h.loss[0] + i);
        for (int j = 1; j < k; ++j) {
            const auto loss = vector_at<Side<T>>(h.loss[j] + i);
            least = loss < least ? loss : least;
            const Side<T, float> x = t[j] * share;
            const auto at = (vector_at<Side<T, int32_t>>(&x) >> kShift) * static_cast<int32_t>(sizeof(Sum));
            std::memcpy(h.slope[j] + i, &t[j], sizeof t[j]);
            std::memcpy(h.at[j] + i, &at, sizeof at);
        }
        std::memcpy(h.least + i, &least, sizeof least);
    }
}

// One row after another, so that a sum is needed again only after the others of its row.
template <class T>
BW_INLINE void add_slopes(const HullRows<T>& h, int count, int k, Sum* sums) {
    for (int i = 0; i < count; ++i) {
        const int64_t size = h.size[i];
        char* to = reinterpret_cast<char*>(sums);
#pragma GCC unroll 4
        for (int j = 1; j < k; ++j) {
            to += kTable * sizeof(Sum);
            Sum& s = *reinterpret_cast<Sum*>(to + h.at[j][i]);
            s.size += size;
            s.slope += static_cast<double>(h.slope[j][i]);
        }
    }
}

// order: formats by rising rate. scale: brings slopes into the range of single precision.
template <class T>
class PlainFrontier {
  public:
    PlainFrontier(const Table& t, const int* order, double scale) : t_(t), sums_(static_cast<size_t>(t.k) * kTable) {
        const double mean = t.size == nullptr ? static_cast<double>(t.one_size) : static_cast<double>(t.total_size) / static_cast<double>(t.n);
        const double most = t.single ? 120.0 : 1000.0;
        lift_ = static_cast<T>(std::exp2(std::clamp(std::rint(std::log2(scale / mean)), -most, most)));
        share_ = scale / static_cast<double>(lift_);
        for (int j = 0; j < t.k; ++j) {
            const int64_t rate = t.rate[order[j]];
            if (j == 0 || rate > rate_[k_ - 1]) rate_[k_++] = rate;
            column_[order[j]] = k_ - 1;
        }
        for (int a = 0; a < k_; ++a)
            for (int b = a + 1; b < k_; ++b) inverse_[a][b] = static_cast<float>(1.0 / static_cast<double>(rate_[b] - rate_[a]));
        std::fill_n(rows_->size, kRows, t.one_size);
        std::fill_n(rows_->share, kRows, static_cast<float>(share_ / static_cast<double>(t.one_size)));
    }

    void add(int64_t begin, int64_t end) { wide_ ? add_avx2(begin, end) : add_rows(begin, end); }

    void finish(Whole& out) const {
        out.last += ((last_[0] + last_[1]) + (last_[2] + last_[3])) / static_cast<double>(lift_);
        for (int j = 1; j < k_; ++j) {
            const int64_t step = rate_[j] - rate_[j - 1];
            for (int q = 1 << kShare; q < kStretches; ++q) {   // below: no slope, or one next to none
                const Sum& s = sums_[j * kTable + q];
                out.stretch[q].cost += s.size * step;
                if (q < kInfinite) out.stretch[q].loss += s.slope * static_cast<double>(step) / static_cast<double>(lift_);
            }
        }
    }

  private:
    BW_INLINE void add_rows(int64_t begin, int64_t end) {
        HullRows<T>& h = *rows_;
        for (int64_t at = begin; at < end; at += kRows) {
            const int count = static_cast<int>(std::min<int64_t>(kRows, end - at));
            take_losses(static_cast<const T*>(t_.loss) + at * t_.k, count, t_.k, column_, lift_, h);
            for (int i = 0; t_.size != nullptr && i < count; ++i) {
                h.size[i] = load(t_.size + at + i);
                h.share[i] = static_cast<float>(share_ / static_cast<double>(h.size[i]));
            }
            find_slopes(h, count, k_, inverse_);
            for (int i = 0; i < count; ++i) last_[i % 4] += static_cast<double>(h.least[i]);
            add_slopes(h, count, k_, sums_.data());
        }
    }

    BW_AVX2 void add_avx2(int64_t begin, int64_t end) { add_rows(begin, end); }

    Table t_;
    T lift_;         // the power of two
    double share_;   // over the size of a row
    int k_ = 0;              // different rates
    int64_t rate_[16] = {};
    int column_[16] = {};
    Inverses16 inverse_ = {};
    bool wide_ = BW_HAS_AVX2;
    std::unique_ptr<HullRows<T>> rows_ = std::make_unique<HullRows<T>>();
    std::vector<Sum> sums_;
    double last_[4] = {};   // sums of each fourth row
};

}  // namespace bitwright
