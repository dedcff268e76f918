// A few rows that outweigh the others: an embedding beside a thousand experts.
//
// A step of such a row leaves a gap that is as large, and with it nearly every other row is in the core. With the formats of these rows
// fixed, by rising bound (branch.hpp), all others are a knapsack whose costs are alike, which every search of a core closes sooner.
#pragma once

#include "beam.hpp"
#include "halves.hpp"
#include "part.hpp"

namespace bitwright {

class Large {
  public:
    Large() = default;

    // cells: those of one row together; rows are numbered in their order.
    explicit Large(const std::vector<Cell>& cells) {
        std::vector<int64_t> span;   // of every row
        for (const CellRow& row : rows_of(cells)) span.push_back(row.span());
        if (span.empty()) return;
        std::vector<int64_t> sorted = span;
        const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
        std::nth_element(sorted.begin(), middle, sorted.end());
        const int64_t least = kTimes * std::max<int64_t>(1, *middle);
        for (size_t g = 0; g < span.size(); ++g)
            if (span[g] >= least) rows_.push_back(static_cast<int64_t>(g));
        std::stable_sort(rows_.begin(), rows_.end(), [&](int64_t a, int64_t b) { return span[static_cast<size_t>(a)] > span[static_cast<size_t>(b)]; });
    }

    // Where there are more than a few, as in a heavy tail, their formats are too many (branch.hpp fixes those that the relaxation splits).
    bool any() const { return !rows_.empty() && rows_.size() <= kFew; }

    // The row to be fixed next, the largest that is not, or -1.
    int64_t next(const std::vector<std::pair<int64_t, int64_t>>& fixed) const {
        for (const int64_t row : rows_)
            if (std::none_of(fixed.begin(), fixed.end(), [&](const auto& one) { return one.first == row; })) return row;
        return -1;
    }

  private:
    static constexpr int64_t kTimes = 8;    // costs of a large row are so many times as far apart as those of the middle one
    static constexpr size_t kFew = 8;

    std::vector<int64_t> rows_;   // by falling span
};

// The best of some options, those of one row together, solved as a knapsack of its own; cells are numbers of options. Complete when no
// plan is better by more than `within`.
inline CoreResult solved_apart(const std::vector<Halves::Option>& options, double slope, int64_t room, double gap, double within, const Solver& solve,
                               int64_t finer = std::numeric_limits<int64_t>::max()) {
    CoreResult found{gap, false, 0, 0, {}};
    std::vector<size_t> start;
    size_t k = 1;   // no option is the first format of each row
    for (size_t q = 0; q < options.size(); ++q) {
        if (q == 0 || options[q].row != options[q - 1].row) start.push_back(q);
        k = std::max(k, q + 2 - start.back());
    }
    start.push_back(options.size());
    const size_t rows = start.size() - 1;
    Part part;
    part.n = static_cast<int64_t>(rows);
    part.k = static_cast<int>(k);
    part.limit = room;
    part.within = within;
    part.finer = finer;
    part.below = gap - slope * static_cast<double>(room);
    part.loss.assign(rows * k, kInfinity);
    part.cost.assign(rows * k, 0);
    for (size_t g = 0; g < rows; ++g) {
        int64_t low = 0;
        for (size_t q = start[g]; q < start[g + 1]; ++q) low = std::min(low, options[q].dcost);
        part.loss[g * k] = 0.0;
        part.cost[g * k] = -low;
        for (size_t q = start[g]; q < start[g + 1]; ++q) {
            const size_t at = g * k + 1 + (q - start[g]);
            part.loss[at] = options[q].penalty - slope * static_cast<double>(options[q].dcost);
            part.cost[at] = options[q].dcost - low;
        }
        part.limit -= low;
    }
    found.complete = rows == 0 || solve(part);
    found.work = part.work;
    if (!part.better) return found;
    int64_t left = room;
    double value = 0.0;
    std::vector<int64_t> cells;
    for (size_t g = 0; g < rows; ++g) {
        if (part.choice[g] == 0) continue;
        cells.push_back(static_cast<int64_t>(start[g] + part.choice[g] - 1));
        value += options[static_cast<size_t>(cells.back())].penalty;
        left -= options[static_cast<size_t>(cells.back())].dcost;
    }
    value += slope * static_cast<double>(left);
    if (left < 0 || !(value < gap)) return found;
    found.gap = value;
    found.cells = std::move(cells);
    return found;
}

}  // namespace bitwright
