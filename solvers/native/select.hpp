// Selection among hull steps in linear time: which are taken within a limit, and at which slope the limit is reached.
#pragma once

#include "table.hpp"

namespace bitwright {

inline bool steeper(const Step& a, const Step& b) {
    if (a.slope != b.slope) return a.slope > b.slope;
    return a.row != b.row ? a.row < b.row : a.order < b.order;
}

// Reorder so that the steps before the returned place are the steepest ones whose total cost fits into `room` (which
// becomes what is left): nth_element instead of sorting.
template <class Room>
size_t weighted_select(std::vector<Step>& steps, Room& room) {
    size_t from = 0, to = steps.size();
    while (to - from > 64) {
        const size_t middle = from + (to - from) / 2;
        std::nth_element(steps.begin() + from, steps.begin() + middle, steps.begin() + to, steeper);
        Room sum = 0;
        for (size_t q = from; q < middle; ++q) sum += static_cast<Room>(steps[q].dcost);
        if (sum <= room) {
            room -= sum;
            from = middle;
        } else {
            to = middle;
        }
    }
    std::sort(steps.begin() + from, steps.begin() + to, steeper);
    while (from < to && static_cast<Room>(steps[from].dcost) <= room) room -= static_cast<Room>(steps[from++].dcost);
    return from;
}

// Slope of the step at which the cumulative cost, by falling slope, passes `target`; `above` when target is negative,
// `below` when all steps fit.
inline double slope_at(std::vector<Step>& steps, double target, double above, double below) {
    if (target < 0) return above;
    const size_t at = weighted_select(steps, target);
    return at < steps.size() ? steps[at].slope : below;
}

}  // namespace bitwright
