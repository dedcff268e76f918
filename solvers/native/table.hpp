// A table of losses with its costs, the hull walk of one row, and the fused pass over all rows.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <thread>
#include <vector>

#include "fast.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#define BW_AVX2 __attribute__((target("avx2")))
#define BW_HAS_AVX2 __builtin_cpu_supports("avx2")
#else
#define BW_AVX2
#define BW_HAS_AVX2 false
#endif
#define BW_INLINE inline __attribute__((always_inline))

namespace bitwright {

constexpr int kMaxFormats = 64;

// loss: (n, k) row-major float or double. Costs: `matrix` (n, k), or size[i] * rate[j] (size null: all `one_size`).
// total_size, top_size: sum and maximum of the sizes (found by `measured`).
struct Table {
    const void* loss;
    bool single;
    int64_t n;
    int k;
    const int64_t* matrix;
    const int64_t* size;
    int64_t one_size;
    const int64_t* rate;
    int64_t total_size = 0, top_size = 0;

    double loss_at(int64_t i, int j) const {
        return single ? static_cast<const float*>(loss)[i * k + j] : static_cast<const double*>(loss)[i * k + j];
    }
    int64_t weight(int64_t i) const { return size != nullptr ? size[i] : one_size; }
    int64_t cost_at(int64_t i, int j) const { return matrix != nullptr ? matrix[i * k + j] : weight(i) * rate[j]; }

    void prefetch(int64_t i) const {
        __builtin_prefetch(static_cast<const char*>(loss) + i * k * (single ? 4 : 8));
        if (size != nullptr) __builtin_prefetch(size + i);
    }

    void row(int64_t i, double* l, int64_t* c) const {
        for (int j = 0; j < k; ++j) {
            l[j] = loss_at(i, j);
            c[j] = cost_at(i, j);
        }
    }
};

// The same table with its sizes summed up in one scan; equal sizes are found and kept as one number.
inline Table measured(Table t) {
    if (t.matrix != nullptr || t.n == 0) return t;
    if (t.size != nullptr) {
        int64_t sum = 0, high = t.size[0], low = t.size[0];
        for (int64_t i = 0; i < t.n; ++i) {
            sum += t.size[i];
            high = std::max(high, t.size[i]);
            low = std::min(low, t.size[i]);
        }
        t.total_size = sum;
        t.top_size = high;
        if (low != high) return t;
        t.one_size = high;
        t.size = nullptr;
    }
    t.total_size = t.one_size * t.n;
    t.top_size = t.one_size;
    return t;
}

// One hull step of one row, the `order`-th of its walk: to format `after`, which costs dcost > 0 more and saves
// slope * dcost.
struct Step {
    double slope;
    int64_t dcost;
    int64_t row;
    uint8_t order, after;
};

// Least-cost allowed format of a row, least loss among equals.
inline int cheapest(const double* l, const int64_t* c, int k) {
    int best = -1;
    for (int j = 0; j < k; ++j) {
        if (std::isinf(l[j])) continue;
        if (best < 0 || c[j] < c[best] || (c[j] == c[best] && l[j] < l[best])) best = j;
    }
    return best;
}

// Hull steps from format `x` on, as long as they are steeper than `low`; slopes never rise within a row.
inline void walk(const double* l, const int64_t* c, int k, int64_t row, int x, double low, std::vector<Step>& out) {
    double last = std::numeric_limits<double>::infinity();
    for (uint8_t order = 0;; ++order) {
        double best = low;
        int64_t dcost = 0;
        int next = -1;
        for (int j = 0; j < k; ++j) {
            const int64_t d = c[j] - c[x];
            if (d <= 0) continue;
            const double s = (l[x] - l[j]) / static_cast<double>(d);
            if (s > best || (next >= 0 && s == best && d > dcost)) {
                best = s;
                dcost = d;
                next = j;
            }
        }
        if (next < 0) return;
        last = std::min(last, best);
        out.push_back({last, dcost, row, order, static_cast<uint8_t>(next)});
        x = next;
    }
}

// What one pass over a range of rows gives: totals of the choice at `high`, and the hull steps between the multipliers
// of the rows whose choice at `low` differs (`listed` of them).
struct Tally {
    int64_t cost = 0, listed = 0;
    double loss = 0.0, magnitude = 0.0;
    std::vector<Step> steps;

    void list(const Table& t, int64_t i, int x, double low) {
        double l[kMaxFormats];
        int64_t c[kMaxFormats];
        t.row(i, l, c);
        walk(l, c, t.k, i, x, low, steps);
        ++listed;
    }
};

constexpr int kBlock = 256;

struct Lanes {
    double loss[kBlock], cost[kBlock];
    int64_t high[kBlock], low[kBlock];
};

// Choice at two multipliers for up to kBlock rows of K formats. `w`: weights as doubles; `r`: rates as doubles.
template <class T, int K>
BW_INLINE void choose(const T* loss, const double* w, const double* r, double high, double low, int count, Lanes& out) {
    for (int i = 0; i < count; ++i) {
        const T* p = loss + static_cast<int64_t>(i) * K;
        double l = p[0], c = w[i] * r[0];
        double vh = l + high * c, vl = l + low * c;
        double chosen = l, spent = c;
        int64_t xh = 0, xl = 0;
        for (int j = 1; j < K; ++j) {
            l = p[j];
            c = w[i] * r[j];
            const double h = l + high * c, g = l + low * c;
            const bool a = h < vh, b = g < vl;
            vh = a ? h : vh;
            xh = a ? j : xh;
            chosen = a ? l : chosen;
            spent = a ? c : spent;
            vl = b ? g : vl;
            xl = b ? j : xl;
        }
        out.loss[i] = chosen;
        out.cost[i] = spent;
        out.high[i] = xh;
        out.low[i] = xl;
    }
}

template <class T, int K>
void choose_plain(const T* l, const double* w, const double* r, double high, double low, int count, Lanes& out) {
    choose<T, K>(l, w, r, high, low, count, out);
}

template <class T, int K>
BW_AVX2 void choose_avx2(const T* l, const double* w, const double* r, double high, double low, int count, Lanes& out) {
    choose<T, K>(l, w, r, high, low, count, out);
}

template <class T>
using Choose = void (*)(const T*, const double*, const double*, double, double, int, Lanes&);

// The compiled pass for k formats, or null when there is none.
template <class T>
Choose<T> choose_for(int k) {
    const bool wide = BW_HAS_AVX2;
    switch (k) {
#define BW_CASE(K) \
    case K: \
        return wide ? choose_avx2<T, K> : choose_plain<T, K>;
        BW_CASE(2) BW_CASE(3) BW_CASE(4) BW_CASE(5) BW_CASE(6) BW_CASE(7) BW_CASE(8) BW_CASE(10) BW_CASE(12) BW_CASE(16)
#undef BW_CASE
        default: return nullptr;
    }
}

template <class T>
void pass_range(const Table& t, double high, double low, int64_t begin, int64_t end, uint8_t* choice, Tally& tally) {
    const Choose<T> run = choose_for<T>(t.k);
    const T* loss = static_cast<const T*>(t.loss);
    double r[kMaxFormats], w[kBlock];
    for (int j = 0; j < t.k; ++j) r[j] = static_cast<double>(t.rate[j]);
    std::fill(w, w + kBlock, static_cast<double>(t.one_size));
    Lanes lanes;
    for (int64_t at = begin; at < end; at += kBlock) {
        const int count = static_cast<int>(std::min<int64_t>(kBlock, end - at));
        if (t.size != nullptr)
            for (int i = 0; i < count; ++i) w[i] = static_cast<double>(t.size[at + i]);
        run(loss + at * t.k, w, r, high, low, count, lanes);
        double l0 = 0.0, m0 = 0.0, c0 = 0.0;
        int64_t differ = 0;
        for (int i = 0; i < count; ++i) {
            l0 += lanes.loss[i];
            m0 += std::fabs(lanes.loss[i]);
            c0 += lanes.cost[i];   // exact: the caller made sure that a block's total is below 2^53
            differ |= lanes.high[i] ^ lanes.low[i];
            choice[at + i] = static_cast<uint8_t>(lanes.high[i]);
        }
        tally.loss += l0;
        tally.magnitude += m0;
        tally.cost += static_cast<int64_t>(c0);
        if (differ == 0) continue;
        for (int i = 0; i < count; ++i)
            if (lanes.high[i] != lanes.low[i]) tally.list(t, at + i, choice[at + i], low);
    }
}

#if BW_FAST
template <int K, bool kEqual>
void fast_range(const Table& t, double high, double low, int64_t begin, int64_t end, uint8_t* choice, Tally& tally) {
    const float* loss = static_cast<const float*>(t.loss);
    const double scale = kEqual ? static_cast<double>(t.one_size) : 1.0;
    int32_t rate[8] = {};
    float high_rate[8], low_rate[8];
    for (int j = 0; j < K; ++j) {   // counted from the first rate: smaller terms, less rounding
        rate[j] = static_cast<int32_t>(t.rate[j]);
        high_rate[j] = static_cast<float>(high * scale * static_cast<double>(t.rate[j] - t.rate[0]));
        low_rate[j] = static_cast<float>(low * scale * static_cast<double>(t.rate[j] - t.rate[0]));
    }
    for (int64_t at = begin; at < end; at += 512) {
        const int count = static_cast<int>(std::min<int64_t>(512, end - at));
        const int64_t* size = kEqual ? nullptr : t.size + at;
        const FastBlock b = fast_block<K, kEqual>(loss + at * K, size, rate, high_rate, low_rate, count, choice + at);
        tally.cost += kEqual ? b.cost * t.one_size : b.cost;
        tally.loss += b.loss;
        tally.magnitude += b.magnitude;
        for (int g = 0; g < count / 8; ++g)
            for (unsigned bits = b.differ[g]; bits != 0; bits &= bits - 1) {
                const int64_t i = at + 8 * g + __builtin_ctz(bits);
                tally.list(t, i, choice[i], low);
            }
    }
}

// Whether the single-precision pass takes this table: small integers, 4 or 8 formats.
inline bool fast_takes(const Table& t) {
    if (!t.single || (t.k != 4 && t.k != 8) || !BW_HAS_AVX2) return false;
    for (int j = 0; j < t.k; ++j)
        if (t.rate[j] >= (1 << 24)) return false;
    return t.top_size < (int64_t{1} << 32);
}

inline void fast_any(const Table& t, double high, double low, int64_t begin, int64_t end, uint8_t* choice, Tally& tally) {
    if (t.k == 4 && t.size == nullptr) fast_range<4, true>(t, high, low, begin, end, choice, tally);
    else if (t.k == 4) fast_range<4, false>(t, high, low, begin, end, choice, tally);
    else if (t.size == nullptr) fast_range<8, true>(t, high, low, begin, end, choice, tally);
    else fast_range<8, false>(t, high, low, begin, end, choice, tally);
}
#else
inline bool fast_takes(const Table&) { return false; }
inline void fast_any(const Table&, double, double, int64_t, int64_t, uint8_t*, Tally&) {}
#endif

// The fused pass over all rows (`fast`: in single precision where whole groups of eight allow), in chunks whose results are joined in order: the same for any number of threads.
inline Tally fused_pass(const Table& t, double high, double low, bool fast, int threads, uint8_t* choice) {
    constexpr int64_t chunk = 1 << 17;
    const int64_t chunks = (t.n + chunk - 1) / chunk;
    std::vector<Tally> parts(chunks);
    auto work = [&](int me) {
        for (int64_t c = me; c < chunks; c += threads) {
            int64_t begin = c * chunk;
            const int64_t end = std::min(t.n, begin + chunk);
            if (fast) {
                const int64_t whole = begin + (end - begin) / 8 * 8;
                fast_any(t, high, low, begin, whole, choice, parts[c]);
                begin = whole;
            }
            if (t.single) pass_range<float>(t, high, low, begin, end, choice, parts[c]);
            else pass_range<double>(t, high, low, begin, end, choice, parts[c]);
        }
    };
    std::vector<std::thread> crew;
    for (int me = 1; me < threads; ++me) crew.emplace_back(work, me);
    work(0);
    for (std::thread& one : crew) one.join();
    Tally all;
    size_t steps = 0;
    for (const Tally& part : parts) steps += part.steps.size();
    all.steps.reserve(steps);
    for (Tally& part : parts) {
        all.cost += part.cost;
        all.loss += part.loss;
        all.magnitude += part.magnitude;
        all.listed += part.listed;
        all.steps.insert(all.steps.end(), part.steps.begin(), part.steps.end());
        std::vector<Step>().swap(part.steps);
    }
    return all;
}

}  // namespace bitwright
