// Sums of cells sorted by their cost.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "clock.hpp"

namespace bitwright {

struct CostKey {
    uint64_t cost;
    uint32_t at;
};

// Places of `sums` by rising `cost`, digit by digit: thousands of sums are sorted for each attempt. end: throws Late after it.
template <class Sum>
std::vector<CostKey> by_cost(const std::vector<Sum>& sums, double end) {
    constexpr int digit = 11;
    Watch watch(end);
    const auto [low, high] = std::minmax_element(sums.begin(), sums.end(), [](const Sum& a, const Sum& b) { return a.cost < b.cost; });
    const uint64_t span = static_cast<uint64_t>(high->cost) - static_cast<uint64_t>(low->cost);
    std::vector<CostKey> keys(sums.size()), other(sums.size());
    for (size_t q = 0; q < sums.size(); ++q)
        keys[q] = {static_cast<uint64_t>(sums[q].cost) - static_cast<uint64_t>(low->cost), static_cast<uint32_t>(q)};
    for (int shift = 0; shift < 64 && (span >> shift) != 0; shift += digit) {
        watch.step(static_cast<int64_t>(keys.size()));
        uint32_t place[(1 << digit) + 1] = {};
        const auto of = [shift](const CostKey& key) { return (key.cost >> shift) & ((1 << digit) - 1); };
        for (const CostKey& key : keys) ++place[of(key) + 1];
        for (int d = 0; d < 1 << digit; ++d) place[d + 1] += place[d];
        for (const CostKey& key : keys) other[place[of(key)]++] = key;
        keys.swap(other);
    }
    return keys;
}

}  // namespace bitwright
