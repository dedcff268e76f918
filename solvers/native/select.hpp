// Selection among hull steps in linear time: which are taken within a limit, and at which slope the limit is reached.
#pragma once

#include "clock.hpp"
#include "table.hpp"

namespace bitwright {

// A type, not a function: a comparison called through a pointer would cost more than it does.
struct Steeper {
    bool operator()(const Step& a, const Step& b) const {
        if (a.slope != b.slope) return a.slope > b.slope;
        return a.row != b.row ? a.row < b.row : a.order < b.order;
    }
};

// Exchange two steps by halves of 16 bytes. A copy by members would write some of them alone, and the next exchange, which reads
// them together, would wait for the store.
inline void exchange(Step& a, Step& b) {
    typedef int64_t Half __attribute__((vector_size(16)));
    static_assert(sizeof(Step) == 2 * sizeof(Half));
    Half of_a[2], of_b[2];
    std::memcpy(of_a, &a, sizeof a);
    std::memcpy(of_b, &b, sizeof b);
    std::memcpy(&a, of_b, sizeof a);
    std::memcpy(&b, of_a, sizeof b);
}

// Move the steps between two places that are steeper than `pivot` to the front: where they end; `cost` becomes their sum.
// Lomuto's partition without branches: slopes are in no order, so each would be guessed wrong half the time.
template <class Room>
size_t part(std::vector<Step>& steps, size_t from, size_t to, const Step& pivot, Room& cost, Watch& watch) {
    constexpr std::ptrdiff_t many = 1 << 14;
    const double slope = pivot.slope;
    const int64_t place = pivot.row * kMaxFormats + pivot.order;
    Step *const first = steps.data() + from, *const last = steps.data() + to, *end = first;
    Room sum{0};
    for (Step* s = first; s != last;) {
        Step* const stop = s + std::min(many, last - s);
        watch.step(stop - s);
        for (; s != stop; ++s) {
            const bool before = (s->slope > slope) | ((s->slope == slope) & (s->row * kMaxFormats + s->order < place));
            sum += static_cast<Room>(s->dcost & -static_cast<int64_t>(before));
            exchange(*s, *end);
            end += before;
        }
    }
    cost = sum;
    return static_cast<size_t>(end - steps.data());
}

// Reorder the steps from `from` on so that those before the returned place are the steepest ones whose total cost fits into
// `room` (which becomes what is left; throws Late when the clock says so): parted again and again by a middle one of nine, where that goes well, instead of sorted.
template <class Room>
size_t weighted_select(std::vector<Step>& steps, Room& room, Watch& watch, size_t from = 0) {
    size_t to = steps.size();
    for (int luck = 64; to - from > 24; --luck) {
        size_t middle;
        Room sum = 0;
        if (luck > 0) {
            Step some[9];
            for (size_t q = 0; q < 9; ++q) some[q] = steps[from + (to - from - 1) * q / 8];
            std::nth_element(some, some + 4, some + 9, Steeper());
            middle = part(steps, from, to, some[4], sum, watch);
        } else {   // in linear time whatever the order
            middle = from + (to - from) / 2;
            watched(watch, to - from, Steeper(), [&](auto less) {
                std::nth_element(steps.begin() + from, steps.begin() + middle, steps.begin() + to, less);
            });
            for (size_t q = from; q < middle; ++q) sum += static_cast<Room>(steps[q].dcost);
        }
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
inline Bracket slopes_around(std::vector<Step>& steps, double target, double margin, double above, double below, Watch& watch) {
    const auto slope = [&](size_t at) { return at < steps.size() ? steps[at].slope : below; };
    Bracket b{above, above};
    double room = target - margin;
    size_t at = 0;
    if (room >= 0) {
        at = weighted_select(steps, room, watch);
        b.high = slope(at);
    }
    room += 2 * margin;
    if (room >= 0) b.low = slope(weighted_select(steps, room, watch, at));
    return b;
}

}  // namespace bitwright
