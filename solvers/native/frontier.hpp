// Every budget at once for a large table: the hull steps of all rows, added up by slope (research/05 section 6).
//
// With formats by rising rate, format j is a vertex of a row's lower hull when the least slope from any cheaper format
// into j exceeds the greatest slope from j on to any dearer one (and zero). So the hulls of a block of rows are found
// without branches, and each step is added to the stretch of slopes it falls into: 2^kShare stretches an octave. Tables
// that frontier_fast.hpp serves take its way, with slopes of single precision (that of frontier512.hpp where there is AVX-512).
#pragma once

#include <cstring>
#include <memory>
#include <thread>

#include "frontier512.hpp"
#include "pass.hpp"

namespace bitwright {

#if !BW_FAST
constexpr int kShare = 4, kStretches = 256 << kShare;
#endif
constexpr int kRows = 128;

struct Stretch {
    int64_t cost = 0;
    double loss = 0.0;
};

struct Whole {
    std::vector<Stretch> stretch;   // by rising slope
    double last = 0.0;              // loss of the last vertices
};

// Steps of up to kRows rows: at[j][i] stretch of the step into format j of row i (or -1), before[j][i] the vertex before.
template <class T>
struct Hulls {
    T loss[16][kRows];
    float slope[16][kRows];
    int32_t at[16][kRows], before[16][kRows];
};

template <class T, int K>
BW_INLINE void hulls_of(const T* rows, const int* order, const float* inverse, const float* w, int count, Hulls<T>& h) {
    for (int j = 0; j < K; ++j)
        for (int i = 0; i < count; ++i) h.loss[j][i] = load(rows + static_cast<int64_t>(i) * K + order[j]);
    for (int i = 0; i < count; ++i) h.before[1][i] = 0;
    for (int j = 1; j < K; ++j) {
        float into[kRows], on[kRows];
        for (int i = 0; i < count; ++i) into[i] = INFINITY, on[i] = 0.0f;
        for (int a = 0; a < j; ++a) {
            const float inv = inverse[16 * a + j];
            for (int i = 0; i < count; ++i) {
                const float s = static_cast<float>(h.loss[a][i] - h.loss[j][i]) * inv;
                into[i] = s < into[i] ? s : into[i];
            }
        }
        for (int b = j + 1; b < K; ++b) {
            const float inv = inverse[16 * j + b];
            for (int i = 0; i < count; ++i) {
                const float s = static_cast<float>(h.loss[j][i] - h.loss[b][i]) * inv;
                on[i] = s > on[i] ? s : on[i];
            }
        }
        for (int i = 0; i < count; ++i) {
            const bool vertex = into[i] > on[i];
            int32_t bits;
            const float slope = into[i] * w[i];
            std::memcpy(&bits, &slope, sizeof bits);
            h.at[j][i] = vertex ? bits >> (23 - kShare) : -1;
            if (j + 1 < K) h.before[j + 1][i] = vertex ? j : h.before[j][i];
        }
    }
}

template <class T, int K>
void hulls_plain(const T* r, const int* o, const float* v, const float* w, int c, Hulls<T>& h) {
    hulls_of<T, K>(r, o, v, w, c, h);
}

template <class T, int K>
BW_AVX2 void hulls_avx2(const T* r, const int* o, const float* v, const float* w, int c, Hulls<T>& h) {
    hulls_of<T, K>(r, o, v, w, c, h);
}

template <class T>
using FindHulls = void (*)(const T*, const int*, const float*, const float*, int, Hulls<T>&);

template <class T>
FindHulls<T> hulls_for(int k) {
    const bool wide = BW_HAS_AVX2;
    switch (k) {
#define BW_CASE(K) \
    case K: \
        return wide ? hulls_avx2<T, K> : hulls_plain<T, K>;
        BW_CASE(2) BW_CASE(3) BW_CASE(4) BW_CASE(5) BW_CASE(6) BW_CASE(7) BW_CASE(8) BW_CASE(9) BW_CASE(10)
        BW_CASE(11) BW_CASE(12) BW_CASE(13) BW_CASE(14) BW_CASE(15) BW_CASE(16)
#undef BW_CASE
        default: return nullptr;
    }
}

template <class T>
void add_rows(const Table& t, const int* order, double scale, int64_t begin, int64_t end, Whole& out) {
    const FindHulls<T> find = hulls_for<T>(t.k);
    const T* loss = static_cast<const T*>(t.loss);
    int64_t rate[16];
    float inverse[256] = {}, w[kRows];
    for (int j = 0; j < t.k; ++j) rate[j] = t.rate[order[j]];
    for (int a = 0; a < t.k; ++a)
        for (int b = a + 1; b < t.k; ++b) inverse[16 * a + b] = static_cast<float>(1.0 / static_cast<double>(rate[b] - rate[a]));
    auto h = std::make_unique<Hulls<T>>();
    Stretch* stretch = out.stretch.data();
    for (int64_t at = begin; at < end; at += kRows) {
        const int count = static_cast<int>(std::min<int64_t>(kRows, end - at));
        for (int i = 0; i < count; ++i) w[i] = static_cast<float>(scale / static_cast<double>(t.weight(at + i)));
        find(loss + at * t.k, order, inverse, w, count, *h);
        double last = 0.0;
        for (int i = 0; i < count; ++i) {
            const int j = t.k - 1;
            last += h->loss[h->at[j][i] >= 0 ? j : h->before[j][i]][i];
        }
        for (int j = 1; j < t.k; ++j)
            for (int i = 0; i < count; ++i) {
                if (h->at[j][i] < 0) continue;
                Stretch& s = stretch[h->at[j][i]];
                const int a = h->before[j][i];
                s.cost += t.weight(at + i) * (rate[j] - rate[a]);
                s.loss += static_cast<double>(h->loss[a][i]) - static_cast<double>(h->loss[j][i]);
            }
        out.last += last;
    }
}

#if BW_FAST
// Single precision holds rates, sizes and the scale; sums of sizes stay whole in a double for kFlushed rows at least.
constexpr int64_t kFlushed = int64_t{1} << 17;

inline bool fast_frontier(const Table& t, double scale) {
    const int64_t top = *std::max_element(t.rate, t.rate + t.k);
    const double per = scale / static_cast<double>(t.one_size);
    return t.single && t.k <= 8 && BW_HAS_AVX2 && !flushes() && top < (1 << 24) - 8 &&
           t.one_size <= (int64_t{1} << 53) / kFlushed && per > 0x1p-90 && per < 0x1p90;
}

template <int K>
class FastFrontier {
  public:
    // one_size: the largest where sizes differ.
    FastFrontier(const Table& t, const int* order, double scale) : t_(t), order_(order), per_(scale / static_cast<double>(t.one_size)) {
        sums_->order = order;
        sums_->mean = static_cast<float>(t.one_size);
        for (int a = 0; a < K; ++a)
            for (int b = a + 1; b < K; ++b) sums_->inverse[a][b] = static_cast<float>(per_ / static_cast<double>(rate(b) - rate(a)));
        if (t.size == nullptr) sums_->count.assign(K * kTable, 0);
        else sums_->pair.assign(K * kTable, {0.0, 0.0});
        sorted_ = std::is_sorted(order, order + K);
        if (t.size == nullptr) find_ = sorted_ ? slopes8<K, true, true> : slopes8<K, true, false>;
        else find_ = sorted_ ? slopes8<K, false, true> : slopes8<K, false, false>;
    }

    // Whole groups of `count` rows (at most kFlushed); returns how many they are.
    int64_t add(const float* loss, const int64_t* size, int64_t count, Whole& out) {
        const int group = wide_ ? 16 : t_.size == nullptr ? kGroup<K, true> : kGroup<K, false>;
        const int64_t stop = count / group * group;
        if (stop == 0) return 0;
        if (wide_) {
            if (t_.size == nullptr) add_rows512<K, true>(loss, nullptr, stop, sorted_, *sums_);
            else add_rows512<K, false>(loss, size, stop, sorted_, *sums_);
        }
        for (int64_t at = 0; at < stop && !wide_; at += group) {
            if (t_.size == nullptr) {
                find_(loss + at * K, nullptr, *sums_);
                add_counts<K>(*sums_);
            } else {
                find_(loss + at * K, size + at, *sums_);
                add_pairs<K>(*sums_);
            }
        }
        since_ += stop;
        if (since_ + kFlushed > std::min(kMost, (int64_t{1} << 53) / t_.one_size)) flush(out);
        return stop;
    }

    void flush(Whole& out) {
        since_ = 0;
        out.last += sums_->last;
        sums_->last = 0.0;
        for (int j = 1; j < K; ++j) {
            const int64_t more = rate(j) - rate(j - 1);
            for (int q = 1 << kShare; q < kStretches; ++q) {   // below: no slope, or one next to none
                double size, slopes;
                if (t_.size == nullptr) {
                    uint64_t& sum = sums_->count[j * kTable + q];
                    if (sum == 0) continue;
                    counted(sum, q, size, slopes);
                    size *= static_cast<double>(t_.one_size);   // whole: below 2^53
                    sum = 0;
                } else {
                    Pair& sum = sums_->pair[j * kTable + q];
                    size = sum.size;
                    slopes = sum.slope;
                    sum = {0.0, 0.0};
                }
                out.stretch[q].cost += static_cast<int64_t>(size) * more;
                out.stretch[q].loss += slopes * static_cast<double>(more) / per_;
            }
        }
    }

  private:
    int64_t rate(int j) const { return t_.rate[order_[j]]; }

    Table t_;
    const int* order_;
    double per_;
    int64_t since_ = 0;
    bool sorted_ = true, wide_ = has_block512();
    using Find = void (*)(const float*, const int64_t*, Sums<K>&);
    Find find_;
    std::unique_ptr<Sums<K>> sums_ = std::make_unique<Sums<K>>();
};

// Fewer formats than K: the rest repeat the loss of the dearest at higher rates, so that no hull has a step to them.
template <int K>
void fast_rows(const Table& t, const int* order, double scale, int64_t first, int64_t last, Whole& out) {
    constexpr int64_t padded = 2048;
    int64_t rate[K];
    int to[K];
    std::copy(t.rate, t.rate + t.k, rate);
    std::copy(order, order + t.k, to);
    for (int j = t.k; j < K; ++j) {
        rate[j] = rate[order[t.k - 1]] + 1 + j - t.k;
        to[j] = j;
    }
    Table wide = t;
    wide.rate = rate;
    FastFrontier<K> fast(wide, to, scale);
    std::vector<float> rows(t.k < K ? padded * K : 0);
    const float* loss = static_cast<const float*>(t.loss);
    if (t.k == 4) {   // from a line of the cache on: a load that crosses two of them takes twice as long
        const auto into = static_cast<int64_t>(reinterpret_cast<uintptr_t>(loss + first * 4) % 64);
        const int64_t head = std::min(last, first + (64 - into) / 16 % 4);
        add_rows<float>(t, order, scale, first, head, out);
        first = head;
    }
    const int64_t chunk = t.k < K ? padded : kFlushed;
    for (int64_t begin = first; begin < last; begin += chunk) {
        const int64_t end = std::min(last, begin + chunk);
        const float* from = loss + begin * t.k;
        for (int64_t i = 0; t.k < K && i < end - begin; ++i) {
            for (int j = 0; j < t.k; ++j) rows[i * K + j] = load(from + i * t.k + j);
            for (int j = t.k; j < K; ++j) rows[i * K + j] = load(from + i * t.k + order[t.k - 1]);
        }
        const int64_t added = fast.add(t.k < K ? rows.data() : from, t.size == nullptr ? nullptr : t.size + begin, end - begin, out);
        add_rows<float>(t, order, scale, begin + added, end, out);
        release(t, begin, end);
    }
    fast.flush(out);
}
#endif

inline void plain_rows(const Table& t, const int* order, double scale, int64_t first, int64_t last, Whole& out) {
    constexpr int64_t chunk = 1 << 17;
    for (int64_t begin = first; begin < last; begin += chunk) {
        const int64_t end = std::min(last, begin + chunk);
        if (t.single) add_rows<float>(t, order, scale, begin, end, out);
        else add_rows<double>(t, order, scale, begin, end, out);
        release(t, begin, end);
    }
}

// Formats by rising rate (all different), at most 16; every loss finite, every size positive (one_size: all of them, or the
// largest). scale: brings slopes into the range of single precision.
inline Whole whole_frontier(const Table& t, const int* order, double scale, int threads) {
    std::vector<Whole> parts(static_cast<size_t>(threads));
    auto work = [&](int me) {
        Whole& out = parts[me];
        out.stretch.resize(kStretches);
        const int64_t first = t.n * me / threads, last = t.n * (me + 1) / threads;
#if BW_FAST
        if (fast_frontier(t, scale)) return t.k <= 4 ? fast_rows<4>(t, order, scale, first, last, out) : fast_rows<8>(t, order, scale, first, last, out);
#endif
        plain_rows(t, order, scale, first, last, out);
    };
    std::vector<std::thread> crew;
    for (int me = 1; me < threads; ++me) crew.emplace_back(work, me);
    work(0);
    for (std::thread& one : crew) one.join();
    for (int me = 1; me < threads; ++me) {
        for (int q = 0; q < kStretches; ++q) {
            parts[0].stretch[q].cost += parts[me].stretch[q].cost;
            parts[0].stretch[q].loss += parts[me].stretch[q].loss;
        }
        parts[0].last += parts[me].last;
    }
    return std::move(parts[0]);
}

// Sum of each format's losses, in double precision.
template <class T, int K>
void add_columns(const Table& t, int64_t begin, int64_t end, double* sums) {
    double part[K] = {};
    const T* loss = static_cast<const T*>(t.loss);
    for (int64_t i = begin; i < end; ++i)
        for (int j = 0; j < K; ++j) part[j] += static_cast<double>(load(loss + i * K + j));
    for (int j = 0; j < K; ++j) sums[j] += part[j];
}

inline void uniform_losses(const Table& t, double* sums) {
    constexpr int64_t chunk = 1 << 17;
    std::fill(sums, sums + t.k, 0.0);
    for (int64_t begin = 0; begin < t.n; begin += chunk) {
        const int64_t end = std::min(t.n, begin + chunk);
        switch (t.k) {
#define BW_CASE(K) \
    case K: \
        t.single ? add_columns<float, K>(t, begin, end, sums) : add_columns<double, K>(t, begin, end, sums); \
        break;
            BW_CASE(2) BW_CASE(3) BW_CASE(4) BW_CASE(5) BW_CASE(6) BW_CASE(7) BW_CASE(8) BW_CASE(9) BW_CASE(10)
            BW_CASE(11) BW_CASE(12) BW_CASE(13) BW_CASE(14) BW_CASE(15) BW_CASE(16)
#undef BW_CASE
        }
        release(t, begin, end);
    }
}

}  // namespace bitwright
