// Every budget at once for a large table: the hull steps of all rows, added up by slope (research/05 section 6).
//
// The hulls of a block of rows are found without branches (frontier_plain.hpp), and each step is added to the stretch of
// slopes it falls into: 2^kShare stretches an octave. Tables that frontier_fast.hpp serves take its way.
#pragma once

#include "frontier256.hpp"
#include "frontier512.hpp"
#include "frontier_plain.hpp"
#include "pass.hpp"

namespace bitwright {

#if BW_FAST
// Single precision holds rates, sizes and the scale; sums of sizes stay whole in a double for kFlushed rows at least, or for so many on
// average where a few sizes are larger than that (kLargest at most, so that an int64 holds the sum of kWeighed rows).
constexpr int64_t kFlushed = int64_t{1} << 17, kWhole = int64_t{1} << 53, kLargest = int64_t{1} << 51;

inline bool few_large(const Table& t) { return t.one_size > kWhole / kFlushed; }

inline bool fast_frontier(const Table& t, double scale) {
    const int64_t top = *std::max_element(t.rate, t.rate + t.k);
    const double per = scale / static_cast<double>(t.one_size);
    return t.single && t.k <= 8 && BW_HAS_AVX2 && __builtin_cpu_supports("bmi2") && !flushes() && top < 1 << 24 &&
           (!few_large(t) || (t.size != nullptr && t.one_size <= kLargest && t.total_size / t.n <= kWhole / kFlushed)) &&
           per > 0x1p-90 && per < 0x1p90;
}

// The power of two in the divisor of all sizes: to divide by it is a shift.
inline int64_t unit_of(const Table& t) { return t.divisor & -t.divisor; }

inline Sizes sizes_of(const Table& t) {
    if (t.size == nullptr) return Sizes::equal;
    return t.divisor > 0 && t.total_size / unit_of(t) / kFewWeighed < t.n ? Sizes::small : Sizes::any;
}

BW_AVX2 inline int64_t sum_of(const int64_t* size, int64_t count) {
    int64_t sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += load(size + i);
    return sum;
}

template <int K>
class FastFrontier {
  public:
    // one_size: the largest where sizes differ.
    FastFrontier(const Table& t, const int* order, double scale)
        : t_(t), order_(order), per_(scale / static_cast<double>(t.one_size)), sizes_(sizes_of(t)) {
        Sums<K>& s = *sums_;
        s.order = order;
        s.mean = static_cast<float>(t.one_size);
        for (int a = 0; a < K; ++a)
            for (int b = a + 1; b < K; ++b) s.inverse[a][b] = static_cast<float>(per_ / static_cast<double>(rate(b) - rate(a)));
        if (sizes_ == Sizes::small) {
            s.unit = __builtin_ctzll(static_cast<uint64_t>(t.divisor));
            s.mean = static_cast<float>(static_cast<double>(t.one_size) / static_cast<double>(unit_of(t)));
        }
        if (sizes_ == Sizes::any) {
            s.pair.assign(2 * K * kTable, {0.0, 0.0});
        } else {
            s.cell.assign(2 * K * kTable, 0);
            s.size.resize(K * kStretches);
            s.part.resize(K * kStretches);
        }
        sorted_ = std::is_sorted(order, order + K);
        add_[0] = added<false>();
        add_[1] = added<(kWindow<K> < K - 1)>();
    }

    // Rows that are added at once.
    int64_t chunk() const { return sizes_ == Sizes::equal ? kCounted : summed() ? kWeighed : kFlushed; }

    // Whole groups of `count` rows (at most a chunk); returns how many they are: none where their sizes are too many for their sums.
    int64_t add(const float* loss, const int64_t* size, int64_t count, Whole& out) {
        const int group = wide_ ? wide512::kLanes : wide256::kLanes;
        const int64_t stop = count / group * group;
        const int64_t more = summed() ? sum_of(size, stop) / unit_of(t_) : stop;
        const int64_t most = sizes_ == Sizes::equal ? kCounted : sizes_ == Sizes::small ? kMostWeighed : summed() ? kWhole - 1 : (kWhole - 1) / t_.one_size;
        if (stop <= 0 || more > most) return 0;
        if (since_ + more > most) empty_all(out);
        since_ += more;
        // Where most blocks would be done in full they are at once; one chunk in kTold tells whether it is so still.
        const bool full = full_ && ++chunks_ % kTold != 0;
        add_[full](loss, size, stop, sorted_, *sums_);
        if (!full) full_ = sums_->rising;
        return stop;
    }

    void finish(Whole& out) {
        empty_all(out);
        out.last += sums_->last;
        if (sizes_ == Sizes::any) return;
        const int64_t unit = sizes_ == Sizes::equal ? t_.one_size : unit_of(t_);
        const double per = per_ * static_cast<double>(t_.one_size) / static_cast<double>(unit);
        for (int j = 1; j < K; ++j) {
            for (int q = 1 << kShare; q < kStretches; ++q) {
                const int64_t size = sums_->size[j * kStretches + q];
                if (size == 0) continue;
                out.stretch[q].cost += size * unit * step(j);
                out.stretch[q].loss += slopes_of(size, sums_->part[j * kStretches + q], q) * static_cast<double>(step(j)) / per;
            }
        }
    }

  private:
    using Add = void (*)(const float* loss, const int64_t* size, int64_t count, bool sorted, Sums<K>&);
    static constexpr int64_t kTold = 16;

    template <bool kFull>
    Add added() const {
        switch (sizes_) {
            case Sizes::equal: return wide_ ? wide512::add_rows<K, Sizes::equal, kFull> : wide256::add_rows<K, Sizes::equal, kFull>;
            case Sizes::small: return wide_ ? wide512::add_rows<K, Sizes::small, kFull> : wide256::add_rows<K, Sizes::small, kFull>;
            default: return wide_ ? wide512::add_rows<K, Sizes::any, kFull> : wide256::add_rows<K, Sizes::any, kFull>;
        }
    }

    void empty_all(Whole& out) {
        since_ = 0;
        if (sizes_ == Sizes::equal) return empty<K, true>(*sums_);
        if (sizes_ == Sizes::small) return empty<K, false>(*sums_);
        for (int e = 1; e < 2 * K; ++e) {
            const int j = e % K;
            for (int q = 1 << kShare; j > 0 && q < kStretches; ++q) {   // below: no slope, or one next to none
                Pair& sum = sums_->pair[e * kTable + q];
                out.stretch[q].cost += static_cast<int64_t>(sum.size) * step(j);
                out.stretch[q].loss += sum.slope * static_cast<double>(step(j)) / per_;
                sum = {0.0, 0.0};
            }
        }
    }

    // Whether the sizes of each chunk are summed up before they are added.
    bool summed() const { return sizes_ == Sizes::small || few_large(t_); }

    int64_t rate(int j) const { return t_.rate[order_[j]]; }
    int64_t step(int j) const { return rate(j) - rate(j - 1); }

    Table t_;
    const int* order_;
    double per_;
    Sizes sizes_;
    int64_t since_ = 0;   // of sums that must stay below a limit
    bool sorted_ = true, wide_ = has_avx512();
    int64_t chunks_ = 0;
    bool full_ = false;
    Add add_[2];
    std::unique_ptr<Sums<K>> sums_ = std::make_unique<Sums<K>>();
};

template <int K>
void fast_rows(const Table& t, const int* order, double scale, int64_t first, int64_t last, Whole& out) {
    FastFrontier<K> fast(t, order, scale);
    PlainFrontier<float> plain(t, order, scale);   // of rows before and after whole groups
    const float* loss = static_cast<const float*>(t.loss);
    if (K == 4) {   // from a line of the cache on: a load that crosses two of them takes twice as long
        const auto into = static_cast<int64_t>(reinterpret_cast<uintptr_t>(loss + first * 4) % 64);
        const int64_t head = std::min(last, first + (64 - into) / 16 % 4);
        plain.add(first, head);
        first = head;
    }
    const int64_t safe = K < 4 ? std::min(last, t.n - 2) : last;   // fewer than 4 formats: floats of the next rows are read as well
    for (int64_t begin = first; begin < last; begin += fast.chunk()) {
        const int64_t end = std::min(last, begin + fast.chunk());
        const int64_t added = fast.add(loss + begin * K, t.size == nullptr ? nullptr : t.size + begin, std::min(end, safe) - begin, out);
        if (begin + added < end) plain.add(begin + added, end);
        release(t, begin, end);
    }
    fast.finish(out);
    plain.finish(out);
}

inline void fast_rows_of(const Table& t, const int* order, double scale, int64_t first, int64_t last, Whole& out) {
    switch (t.k) {
#define BW_CASE(K) \
    case K: \
        return fast_rows<K>(t, order, scale, first, last, out);
        BW_CASE(2) BW_CASE(3) BW_CASE(4) BW_CASE(5) BW_CASE(6) BW_CASE(7) BW_CASE(8)
#undef BW_CASE
    }
}
#endif

template <class T>
void plain_rows(const Table& t, const int* order, double scale, int64_t first, int64_t last, Whole& out) {
    constexpr int64_t chunk = 1 << 17;
    PlainFrontier<T> plain(t, order, scale);
    for (int64_t begin = first; begin < last; begin += chunk) {
        const int64_t end = std::min(last, begin + chunk);
        plain.add(begin, end);
        release(t, begin, end);
    }
    plain.finish(out);
}

// Formats by rising rate, at most 16; every size positive (one_size: all of them, or the largest). regular: every loss is finite and all rates are
// different. scale: brings slopes into the range of single precision.
inline Whole whole_frontier(const Table& t, const int* order, bool regular, double scale, int threads) {
    std::vector<Whole> parts(static_cast<size_t>(threads));
    Crew(threads).share(threads, [&](int me) {
        Whole& out = parts[me];
        out.stretch.resize(kStretches);
        const int64_t first = t.n * me / threads, last = t.n * (me + 1) / threads;
#if BW_FAST
        if (regular && fast_frontier(t, scale)) return fast_rows_of(t, order, scale, first, last, out);
#endif
        if (t.single) plain_rows<float>(t, order, scale, first, last, out);
        else plain_rows<double>(t, order, scale, first, last, out);
    });
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
