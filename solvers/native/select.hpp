// Selection among hull steps in linear time: which are taken within a limit, and at which slope the limit is reached.
#pragma once

#include "table.hpp"

namespace bitwright {

// A type, not a function: a comparison called through a pointer would cost more than it does.
struct Steeper {
    bool operator()(const Step& a, const Step& b) const {
        if (a.slope != b.slope) return a.slope > b.slope;
        return a.row != b.row ? a.row < b.row : a.order < b.order;
    }
};

// Reorder the steps from `from` on so that those before the returned place are the steepest ones whose total cost fits into
// `room` (which becomes what is left): nth_element instead of sorting.
template <class Room>
size_t weighted_select(std::vector<Step>& steps, Room& room, size_t from = 0) {
    size_t to = steps.size();
    while (to - from > 64) {
        const size_t middle = from + (to - from) / 2;
        std::nth_element(steps.begin() + from, steps.begin() + middle, steps.begin() + to, Steeper());
        Room sum = 0;
        for (size_t q = from; q < middle; ++q) sum += static_cast<Room>(steps[q].dcost);
        if (sum <= room) {
            room -= sum;
            from = middle;
        } else {
            to = middle;
        }
    }
    std::sort(steps.begin() + from, steps.begin() + to, Steeper());
    while (from < to && static_cast<Room>(steps[from].dcost) <= room) room -= static_cast<Room>(steps[from++].dcost);
    return from;
}

// Slopes of the steps at which the cumulative cost, by falling slope, passes target + margin and target - margin; `above` where
// that is negative, `below` where all steps fit.
inline Bracket slopes_around(std::vector<Step>& steps, double target, double margin, double above, double below) {
    const auto slope = [&](size_t at) { return at < steps.size() ? steps[at].slope : below; };
    Bracket b{above, above};
    double room = target - margin;
    size_t at = 0;
    if (room >= 0) {
        at = weighted_select(steps, room);
        b.high = slope(at);
    }
    room += 2 * margin;
    if (room >= 0) b.low = slope(weighted_select(steps, room, at));
    return b;
}

}  // namespace bitwright
