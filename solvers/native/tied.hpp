// Rows whose best formats tie at a multiplier (equal slopes): of the formats within rounding of the best one, or a little further, the cheapest or
// the dearest, in double precision, for 2 to 16 formats.
//
// Each row gets a format whatever its losses are, so that there is nothing to list; what it loses by it beyond the least loss + slope * cost is seen
// in the sum of those. Products and sums are rounded apart everywhere, so that each machine chooses the same.
#pragma once

#include "table.hpp"

namespace bitwright {

constexpr int kMostTied = 16;
constexpr int64_t kTiedAhead = 1024;   // rows further on to fetch, as in coarse512.hpp
constexpr double kRounded = 0x1p-50;   // of the least u_j = loss_j + slope * cost_j: a price and a product are rounded by 2^-53, and so is their sum

struct TiedPrices {
    double price[kMostTied];   // slope * (rate - least), times the common size where there is one
    double tie = 0.0;          // how much further than the least u_j still ties, the same
    int order[kMostTied];      // the formats; of those that tie the last one in it is chosen
    bool first = false, last = false;   // whether that is the first, or the last, of them
    alignas(64) int32_t rate[kMostTied] = {};   // rate - least, where those are below 2^24; again and again as in fast.hpp
    int64_t least = 0;
    bool small = false;   // whether they are

    // part: of what the steps of a row cost at most, by which slopes that tie may differ.
    TiedPrices(const Table& t, double slope, double part, bool dear) {
        const auto [low, high] = std::minmax_element(t.rate, t.rate + t.k);
        const double scale = t.size == nullptr ? static_cast<double>(t.one_size) : 1.0;
        least = *low;
        small = *high - least < (1 << 24);
        tie = part * slope * static_cast<double>(*high - least) * scale;
        for (int j = 0; j < kMostTied; ++j) {
            price[j] = slope * static_cast<double>(t.rate[std::min(j, t.k - 1)] - least) * scale;
            if (small) rate[j] = static_cast<int32_t>(t.rate[std::min(j % (t.k <= 4 ? 4 : t.k <= 8 ? 8 : kMostTied), t.k - 1)] - least);
            order[j] = j;
        }
        std::stable_sort(order, order + t.k, [&](int a, int b) { return dear ? t.rate[a] < t.rate[b] : t.rate[a] > t.rate[b]; });
        first = last = true;
        for (int j = 0; j < t.k; ++j) {
            last = last && order[j] == j;
            first = first && order[j] == t.k - 1 - j;
        }
    }
};

// Of some rows: what they cost beyond the least rate, what they lose, and the sum of their least u_j.
struct TiedSums {
    int64_t cost = 0;
    double loss = 0.0, least = 0.0;
};

// One row's format. l: its losses; w: its size, or 1 where that is common.
template <class T>
inline int tied_row(const T* l, int k, double w, const TiedPrices& p, double& least) {
    double u[kMostTied];
    for (int j = 0; j < k; ++j) u[j] = static_cast<double>(load(l + j)) + p.price[j] * w;
    least = *std::min_element(u, u + k);
    const double most = least + (std::fabs(least) * kRounded + p.tie * w);
    int x = 0;
    for (int q = 0; q < k; ++q) x = u[p.order[q]] <= most ? p.order[q] : x;
    return x;
}

// The same of row i of a table.
inline int tied_row(const Table& t, int64_t i, const TiedPrices& p, double& least) {
    const double w = t.size == nullptr ? 1.0 : static_cast<double>(t.weight(i));
    return t.single ? tied_row(static_cast<const float*>(t.loss) + i * t.k, t.k, w, p, least) : tied_row(static_cast<const double*>(t.loss) + i * t.k, t.k, w, p, least);
}

}  // namespace bitwright
