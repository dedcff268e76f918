// Of Solve (solve.hpp): tables of 8,192 to 262,143 rows, too many for all of the searches, but not for a little of one after the other where much is open.
#pragma once

#include "solve.hpp"

namespace bitwright {

// Where most rows looked at have nearly one slope a few cells fill the gap, and where they are few, of many costs, their steps are counted. True when no plan is better.
inline bool Solve::by_few(size_t level, int64_t every, double counted) {
    const std::vector<Cell> cells = sampled(every).cells;
    const auto near = [this](const Cell& c) {
        return c.penalty <= kNearlyFree * answer_.gap && c.penalty <= kNearSlope * answer_.slope * std::fabs(static_cast<double>(c.dcost));
    };
    if (2 * std::count_if(cells.begin(), cells.end(), near) > static_cast<int64_t>(cells.size())) by_filling(cells, every, counted);
    if (answer_.gap <= counted) return true;
    if (every > 1 || count_rows(cells) >= kNear || few_costs(cells)) return false;
    const Purse purse(kAgain >> 4);
    return (closed(by_steps(), counted) && answer_.gap <= reach(level)) || answer_.gap <= counted;
}

// Of each search as much as takes little, where it may well be enough. True when no plan is better.
inline bool Solve::by_little(size_t& level, double tiny, double counted, const Branch::Manner& search_only, const Branch::Manner& to_the_end) {
    const auto enough = [&](bool complete) { return complete || answer_.gap <= counted; };
    if (enough(search(int64_t{1} << 60, kMany, tiny, true))) return true;
    const double before = answer_.gap;
    if (enough(branched(tiny, kProved >> 3, to_the_end))) return true;
    if (count_rows(sampled(1).cells) < kWalk) {
        const Purse purse(kAgain >> 3);
        if (enough(closed(by_steps(), counted)) || enough(closed(filled, counted))) return true;
    }
    if (enough(branched(tiny, kSearched, search_only, std::max<int64_t>(1, base_.table.n / kSampled)))) return true;
    if (!(answer_.gap < before)) return false;
    look_far(level);   // of a smaller gap, so fewer rows
    return enough(search(kWalk, kFew << 3, tiny, true));
}

// What the states left open. True when no plan is better.
inline bool Solve::again(double counted) {
    o_.work += work_;   // what they took is no reason to end
    for (const bool counts : {true, false}) {
        const Purse purse(kAgain);
        if ((counts ? closed(by_counts(kLooks), counted) : closed(filled, counted)) || answer_.gap <= counted) return true;
    }
    return false;
}

}  // namespace bitwright
