// A knapsack within another.
#pragma once

#include <functional>

#include "core.hpp"

namespace bitwright {

// A knapsack within another: losses and costs (rows, k), what a plan must have less loss than, and what difference counts as none.
struct Part {
    std::vector<double> loss;
    std::vector<int64_t> cost;
    int64_t n = 0, limit = 0, finer = std::numeric_limits<int64_t>::max();   // finer: than what its costs are looked at as multiples of
    int k = 0;
    double below = kInfinity, within = 0.0;
    int64_t work = 0;      // that its search took
    bool better = false;   // whether a plan has less
    std::vector<uint8_t> choice;
};
// True when no plan of a part has less loss than `below`, or than the one it found.
using Solver = std::function<bool(Part&)>;

}  // namespace bitwright
