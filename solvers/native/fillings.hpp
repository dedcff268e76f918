// Of Solve (solve.hpp): what is left of the limit is filled by a few cells.
#pragma once

#include <optional>

#include "solve.hpp"

namespace bitwright {

// Combinations of a few cells of every `every`-th row of the table looked at, and of the critical row. Beside hundreds of giants each gain is little and
// there is hardly an end of them: tables without a purse get one for it.
inline void Solve::combine(int64_t every, double enough) {
    const Sample sample = sampled(every);
    if (sample.cut) return;
    std::optional<Purse> held;
    if (middling()) held.emplace(kAgain >> 2);
    try {
        combined(sample.cells, sample.critical, answer_.slope, slack_, moves_, answer_.gap, enough, end_);
    } catch (const Late&) {
        held.reset();
        if (past(end_)) throw;
    }
}

// By these, and by sums of many, where most cells cost next to nothing of the gap. True when no plan of the rows looked at is better.
inline bool Solve::by_filling(const std::vector<Cell>& cells, int64_t every, double enough) {
    const auto filled = [&] { return closed(soon_filled, enough, 1 + base_.table.n / kNear); };
    const bool few = few_costs(cells);   // which have few sums
    const double before = answer_.gap;
    if (few && (filled() || answer_.gap <= enough)) return true;
    if (!few || answer_.gap == before || mostly_free(cells, answer_.gap)) combine(every, enough);
    return !few && answer_.gap > enough && filled();
}

// Of very many rows a few beside the bracket fill what those within leave.
inline void Solve::combine_strays(double enough) { combined(strays(kStrays >> 5), {}, answer_.slope, slack_, moves_, answer_.gap, enough, end_); }

// Where costs are few, a few rows of all often fill what those of a slope cannot. True when the gap is closed.
inline bool Solve::by_few_strays(double enough) {
    const std::vector<Cell> few = strays(kStrays >> 3);
    take(by_each_cost(few, answer_.slope, slack_, step_, answer_.gap, enough, end_, kTotals), few, count_rows(few));
    return answer_.gap <= enough;
}

// Of the rows looked at and some of all: a better plan, so that less is of use. True when the rows looked at have no better one.
inline bool Solve::by_strays(double enough) {
    const std::vector<Cell> cells = with_strays();
    const CoreResult found = by_each_cost(cells, answer_.slope, slack_, step_, answer_.gap, enough, end_, kTotals);
    take(found, cells, count_rows(cells));
    return found.complete;
}

}  // namespace bitwright
