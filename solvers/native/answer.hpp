// What a solve is asked and what it answers; the answer where there was no time to look for one, and the one of all hulls.
#pragma once

#include "select.hpp"

namespace bitwright {

struct Options {
    int64_t limit;
    int threads;
    int64_t full_rows;   // at most this many rows: every hull is walked
    int64_t work;        // states expanded in all
    double seconds, after;   // on the clock; and what the processor needs of them for what comes after
    uint64_t seed;
    Bracket first{0.0, INFINITY};   // where the multiplier is looked for first, where that is narrower
    // Of a part of another problem (part.hpp): how deep it lies, what a plan must have less loss than, what difference counts as none, and
    // than what its costs are looked at as multiples of.
    int depth = 0;
    double below = INFINITY, within = 0.0;
    int64_t finer = std::numeric_limits<int64_t>::max();
};

// kLate: time ran out before a plan was found, and the choice is the best of the uniform plans that fit and the cheapest one.
enum class Status : int32_t { kOptimal = 0, kBounded = 1, kInfeasible = 2, kLate = 3 };

// gap: loss - bound by the gap form. loss, cost: of the choice; passes: reads of the whole table; listed: rows copied out.
// cases: of a plan with a gap, what else bounds all plans (counts_cases.hpp).
struct Answer {
    Status status = Status::kBounded;
    double slope = 0.0, gap = 0.0, bound = 0.0, loss = 0.0;
    int64_t cost = 0, passes = 0, listed = 0, core = 0, states = 0;
    std::vector<double> cases;
};

// What the checker's rounding is relative to, or less: the least priced losses of all rows, and the price of the limit.
inline double magnitude(const Answer& answer, int64_t limit) {
    const double spent = answer.slope * static_cast<double>(limit);
    const double sum = std::max(std::fabs(answer.bound + spent) + spent, std::fabs(answer.loss));
    return std::isfinite(sum) ? sum : 0.0;
}

// A uniform plan or the cheapest formats, where time ran out before any plan was found; bounded by the least loss of each row.
inline Answer unplanned(const Table& t, int64_t limit, uint8_t* choice) {
    struct Total {
        long double loss = 0.0L;
        __int128 cost = 0;
    };
    double l[kMaxFormats];
    int64_t c[kMaxFormats];
    std::vector<Total> of(static_cast<size_t>(t.k));   // of each uniform plan
    Total best;
    long double least = 0.0L;
    for (int64_t i = 0; i < t.n; ++i) {
        t.row(i, l, c);
        const int x = cheapest(l, c, t.k);
        choice[i] = static_cast<uint8_t>(x);
        best.cost += c[x];
        best.loss += l[x];
        double low = l[0];
        for (int j = 0; j < t.k; ++j) {
            of[static_cast<size_t>(j)].loss += l[j];
            of[static_cast<size_t>(j)].cost += c[j];
            low = std::min(low, l[j]);
        }
        least += low;
    }
    Answer answer;
    answer.status = best.cost > limit ? Status::kInfeasible : Status::kLate;
    for (int j = 0; j < t.k; ++j) {
        const Total& uniform = of[static_cast<size_t>(j)];
        if (uniform.cost > limit || !(uniform.loss < best.loss)) continue;
        best = uniform;
        std::fill(choice, choice + t.n, static_cast<uint8_t>(j));
    }
    answer.passes = 1;
    answer.listed = t.n;
    answer.cost = static_cast<int64_t>(best.cost);
    answer.loss = static_cast<double>(best.loss);
    answer.bound = static_cast<double>(least);
    answer.gap = answer.loss - answer.bound;
    return answer;
}

// Room for what `of` adds to a list for each row, as far as every 64th row tells.
template <class List, class Of>
void make_room(List& list, int64_t rows, Of of) {
    constexpr int64_t grown = 1 << 17;   // a longer list would be copied again and again as it grows
    if (rows < grown) return;
    for (int64_t i = 0; i < rows; i += 64) of(i);
    const size_t room = list.size() * 68;
    list = List();
    list.reserve(room);
}

// Every row from its cheapest format on, by its steepest steps; slack: what is left of the limit. False when even the cheapest formats do
// not fit. Throws Late past `end`.
inline bool walked(const Table& t, int64_t limit, uint8_t* choice, double end, Answer& answer, int64_t& slack) {
    double l[kMaxFormats];
    int64_t c[kMaxFormats], cost = 0;
    long double loss = 0.0L;
    std::vector<Step> steps;
    Watch watch(end);
    for (int64_t i = 0; i < t.n; ++i) {
        watch.step(t.k);
        t.row(i, l, c);
        const int x = cheapest(l, c, t.k);
        choice[i] = static_cast<uint8_t>(x);
        cost += c[x];
    }
    ++answer.passes;
    answer.listed = t.n;
    slack = limit - cost;
    if (slack < 0) {
        answer.status = Status::kInfeasible;
        return false;
    }
    const auto steps_of = [&](int64_t i) {
        watch.step(t.k);
        t.row(i, l, c);
        walk(l, c, t.k, i, choice[i], 0.0, steps);
    };
    make_room(steps, t.n, steps_of);
    for (int64_t i = 0; i < t.n; ++i) steps_of(i);
    const size_t count = steps.size(), taken = weighted_select(steps, slack, watch);
    answer.slope = taken < count ? steps[taken].slope : 0.0;
    for (size_t q = 0; q < taken; ++q) {
        watch.step();
        const Step& s = steps[q];
        uint8_t& x = choice[s.row];   // of several steps of one row the dearest counts
        if (t.cost_at(s.row, s.after) > t.cost_at(s.row, x)) x = s.after;
    }
    for (int64_t i = 0; i < t.n; ++i) loss += t.loss_at(i, choice[i]);
    answer.loss = static_cast<double>(loss);
    answer.gap = answer.slope * static_cast<double>(slack);
    answer.bound = answer.loss - answer.gap;
    return true;
}

}  // namespace bitwright
