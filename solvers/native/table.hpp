// A table of losses with its costs, and the hull walk of one row.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "clock.hpp"

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

// A number that need not be aligned: arrays mapped from an archive lie anywhere.
template <class T>
inline T load(const T* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

// loss: (n, k) row-major float or double. Costs: `matrix` (n, k), or size[i] * rate[j] (size null: all `one_size`).
// total_size, top_size, divisor: sum, maximum and greatest common divisor of the sizes (found by `measured` where the caller does not know them).
// mapped: the arrays are read-only files in memory: pages that were read are given back at once.
struct Table {
    const void* loss;
    bool single;
    int64_t n;
    int k;
    const int64_t* matrix;
    const int64_t* size;
    int64_t one_size;
    const int64_t* rate;
    int64_t total_size = 0, top_size = 0, divisor = 0;
    bool mapped = false;
    int64_t least_size = 0;   // or 0 where it is not known

    double loss_at(int64_t i, int j) const {
        return single ? load(static_cast<const float*>(loss) + i * k + j) : load(static_cast<const double*>(loss) + i * k + j);
    }
    int64_t weight(int64_t i) const { return size != nullptr ? load(size + i) : one_size; }
    int64_t cost_at(int64_t i, int j) const { return matrix != nullptr ? matrix[i * k + j] : weight(i) * rate[j]; }

    int64_t dearest(int64_t i) const {
        int64_t most = 0;
        for (int j = 0; j < k; ++j) most = std::max(most, cost_at(i, j));
        return most;
    }

    void prefetch(int64_t i) const {
        __builtin_prefetch(static_cast<const char*>(loss) + i * k * (single ? 4 : 8));
        if (size != nullptr) __builtin_prefetch(size + i);
    }

    int64_t row_bytes() const { return static_cast<int64_t>(k) * (single ? 4 : 8); }
    const char* row_at(int64_t i) const { return static_cast<const char*>(loss) + i * row_bytes(); }

    // What the costs are made of is asked once a row, not once a cell.
    void row(int64_t i, double* l, int64_t* c) const {
        if (single) for (int j = 0; j < k; ++j) l[j] = load(static_cast<const float*>(loss) + i * k + j);
        else std::memcpy(l, row_at(i), static_cast<size_t>(row_bytes()));
        if (matrix != nullptr) {
            std::memcpy(c, matrix + i * k, static_cast<size_t>(k) * sizeof *c);
            return;
        }
        const int64_t w = weight(i);
        for (int j = 0; j < k; ++j) c[j] = w * rate[j];
    }
};

// The same table with its sizes summed up in one scan; equal sizes are found and kept as one number.
inline Table measured(Table t) {
    if (t.matrix != nullptr || t.n == 0) return t;
    if (t.size != nullptr && t.top_size == 0) {
        int64_t divisor = 0, sum = 0, high = t.weight(0), low = high;
        for (int64_t i = 0; i < t.n; ++i) {
            const int64_t size = t.weight(i);
            sum += size;
            if (divisor != 1) divisor = std::gcd(divisor, size);
            high = std::max(high, size);
            low = std::min(low, size);
        }
        t.total_size = sum;
        t.top_size = high;
        t.least_size = low;
        t.divisor = divisor;
        if (low != high) return t;
        t.one_size = high;
        t.size = nullptr;
    }
    if (t.size == nullptr) {
        t.total_size = t.one_size * t.n;
        t.top_size = t.divisor = t.one_size;
    }
    return t;
}

// Every difference of two costs of one row is a multiple of this (0: all are equal). Throws Late when the clock says so.
inline int64_t cost_step(const Table& t, Watch& watch) {
    int64_t step = 0;
    if (t.matrix == nullptr) {
        for (int j = 1; j < t.k; ++j) step = std::gcd(step, t.rate[j] - t.rate[0]);
        return step * t.divisor;
    }
    for (int64_t i = 0; i < t.n && step != 1; ++i) {
        watch.step(t.k);
        for (int j = 1; j < t.k; ++j) step = std::gcd(step, t.matrix[i * t.k + j] - t.matrix[i * t.k]);
    }
    return step;
}

// The least difference of two costs of a row that is not 0, or less; of compact costs.
inline double least_step(const Table& t) {
    double least = std::numeric_limits<double>::infinity();
    for (int a = 0; a < t.k; ++a)
        for (int b = 0; b < a; ++b)
            if (t.rate[a] != t.rate[b]) least = std::min(least, std::fabs(static_cast<double>(t.rate[a] - t.rate[b])));
    return least * static_cast<double>(t.size == nullptr ? t.one_size : std::max({t.least_size, t.divisor, int64_t{1}}));
}

// Multipliers from low to high.
struct Bracket {
    double low, high;
};

// One hull step of one row, the `order`-th of its walk: to format `after`, which costs dcost > 0 more and saves
// slope * dcost.
struct Step {
    double slope;
    int64_t dcost;
    int64_t row;
    int32_t order, after;   // no bytes of padding: those would be copied apart, and read back together at the price of a stall
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
    if (out.capacity() == 0) out.reserve(1024);   // small tables are all in it, without ten copies on the way there
    for (int32_t order = 0;; ++order) {
        double best = low;
        int64_t dcost = 0;
        int next = -1;
        for (int j = 0; j < k; ++j) {
            const int64_t d = c[j] - c[x];
            if (d <= 0) continue;
            const double s = (l[x] - l[j]) / static_cast<double>(d);
            const bool better = (s > best) | ((next >= 0) & (s == best) & (d > dcost));   // hard to foresee: no branch
            best = better ? s : best;
            dcost = better ? d : dcost;
            next = better ? j : next;
        }
        if (next < 0) return;
        last = std::min(last, best);
        // In place: copied from the stack it would be read back, at once, wider than its bytes were written (a stall of the store).
        Step& step = out.emplace_back();
        step.slope = last;
        step.dcost = dcost;
        step.row = row;
        step.order = order;
        step.after = next;
        x = next;
    }
}

}  // namespace bitwright
