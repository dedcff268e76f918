// Multipliers around the critical one, found by looking at the cost of listed rows.
#pragma once

#include <algorithm>
#include <limits>

#include "pass.hpp"

namespace bitwright {

constexpr int64_t kThinnest = 8;

// Whether a bracket is narrower than this part of its upper end.
inline bool narrower(const Bracket& b, double part) { return b.high < (1 + part) * b.low; }

constexpr double kTied = 0x1p-30;   // slopes no further apart are as good as equal

// In a bracket this wide single precision leaves a tenth of the listed rows unsure; in one that wide it lists about as many as the bracket.
constexpr double kUnsure = 0x1p-15, kSingle = 0x1p-20;

// Ends moved outward by more than the rounding of the pass, and never further than `within`.
inline void widen(Bracket& b, bool precise, Bracket within) {
    const double by = precise ? 1e-12 : 0x1p-20;
    b.high = std::min(b.high * (1 + by), std::isinf(within.high) ? 0x1p900 : within.high);
    b.low = std::max(b.low * (1 - by), within.low);
}

// Best format at `high` (the cheapest where that is infinite): where a walk within a bracket begins.
inline int start(const double* l, const int64_t* c, int k, double high) {
    if (high >= 0x1p800) return cheapest(l, c, k);
    int x = 0;
    for (int j = 1; j < k; ++j)
        if (l[j] + high * static_cast<double>(c[j]) < l[x] + high * static_cast<double>(c[x])) x = j;
    return x;
}

// Cost of rows that no pass is sure of, at one multiplier.
inline int64_t cost_of(const Table& t, double slope) {
    double l[kMaxFormats];
    int64_t c[kMaxFormats], cost = 0;
    for (int64_t i = 0; i < t.n; ++i) {
        t.row(i, l, c);
        cost += c[start(l, c, t.k, slope)];
    }
    return cost;
}

// Cost of the rows of some lists at one multiplier; of many rows estimated, by size, from 64 of every 64 * `every`. Each thread looks at a stretch
// of those of all lists. Sums are of integers, so they are the same for any number of threads. end: throws Late after it.
inline double cost_at(const std::vector<Table>& lists, double slope, bool precise, int64_t every, Crew& crew, double end) {
    constexpr int64_t chunk = 64, many = 1 << 14;
    const int64_t apart = chunk * every, together = every > 1 ? chunk : many;
    struct Part {
        int64_t cost = 0, weight = 0;
    };
    std::vector<int64_t> first{0};   // of each list: how many chunks the lists before it have
    int64_t whole = 0;
    for (const Table& t : lists) {
        first.push_back(first.back() + (t.n + apart - 1) / apart);
        whole += t.total_size;
    }
    const int workers = crew.size();
    std::vector<Part> parts(static_cast<size_t>(workers));
    crew.share(workers, [&](int me) {
        const int64_t from = first.back() * me / workers, to = first.back() * (me + 1) / workers;
        Pass pass(lists[0], nullptr, nullptr, {slope, slope}, precise, std::numeric_limits<int64_t>::max(), nullptr);
        Part sum;
        for (size_t q = 0; q < lists.size(); ++q) {
            const Table& t = lists[q];
            const int64_t begin = (std::max(from, first[q]) - first[q]) * apart, stop = std::min(t.n, (std::min(to, first[q + 1]) - first[q]) * apart);
            if (begin >= stop) continue;
            pass.over(t);
            Tally sure;
            for (int64_t at = begin; at < stop; at += std::max(apart, together)) {
                if (every == 1 && past(end)) throw Late();
                pass.run(at, std::min(stop, at + together), sure, sure.rows);
            }
            sum.cost += sure.cost + cost_of(sure.rows.view(t), slope);
            sum.weight += sure.weight;
        }
        parts[static_cast<size_t>(me)] = sum;
    });
    int64_t cost = 0, weight = 0;
    for (const Part& part : parts) {
        cost += part.cost;
        weight += part.weight;
    }
    const double all = static_cast<double>(cost);
    return every > 1 ? all * (static_cast<double>(whole) / static_cast<double>(std::max<int64_t>(weight, 1))) : all;
}

// Where the steps of some lists' rows lie within a bracket. Nearly equal slopes make cost a cliff, which interpolation finds by halves only.
class Slopes {
  public:
    Slopes(const std::vector<Table>& lists, Bracket b) : lists_(lists), b_(b) {}

    // Of some rows of the lists.
    static std::vector<Step> of(const std::vector<Table>& lists, Bracket b, int64_t some) {
        int64_t rows = 0;
        for (const Table& t : lists) rows += t.n;
        const int64_t apart = std::max<int64_t>(1, rows / some);
        double l[kMaxFormats];
        int64_t c[kMaxFormats];
        std::vector<Step> steps;
        for (const Table& t : lists)
            for (int64_t i = apart / 2; i < t.n; i += apart) {
                t.row(i, l, c);
                walk(l, c, t.k, i, start(l, c, t.k, b.high), b.low, steps);
            }
        return steps;
    }

    // The multiplier between two at which `part` of what the steps between them cost is no longer spent; `low` where none is known.
    // side: 1 to be just above the step that is the last of that part, -1 just below: other rows' steps may be as steep.
    double at(double low, double high, double part, int side) {
        if (!known_) find();
        double cost = 0.0;
        const auto begin = std::upper_bound(steps_.begin(), steps_.end(), low * (1 + 2 * kBeside), [](double x, const Step& s) { return x < s.slope; });
        const auto end = std::lower_bound(begin, steps_.end(), high * (1 - 2 * kBeside), [](const Step& s, double x) { return s.slope < x; });
        if (begin == end) return beyond(low, high, begin == steps_.begin(), end == steps_.end());
        for (auto s = begin; s != end; ++s) cost += static_cast<double>(s->dcost);
        double left = part * cost;
        for (auto s = begin; s != end; ++s) {
            left -= static_cast<double>(s->dcost);
            if (left <= 0) return s->slope * (1 + side * kBeside);
        }
        return low;
    }

  private:
    static constexpr int64_t kSome = 256;   // rows looked at
    static constexpr size_t kNext = 8;      // steps beyond the outermost one that tell how far apart slopes lie there
    static constexpr double kBeside = 1e-11;

    // Below (or above) all steps known: as far from them as the next few lie from the first; `low` where that is outside.
    double beyond(double low, double high, bool below, bool above) const {
        if (steps_.empty() || below == above) return low;
        const size_t next = std::min(kNext, steps_.size() - 1);
        const double x = below ? high - (steps_[next].slope - steps_.front().slope) : low + (steps_.back().slope - steps_[steps_.size() - 1 - next].slope);
        return x > low && x < high ? x : low;
    }

    void find() {
        known_ = true;
        steps_ = of(lists_, b_, kSome);
        std::sort(steps_.begin(), steps_.end(), [](const Step& a, const Step& z) { return a.slope < z.slope; });
    }

    const std::vector<Table>& lists_;
    Bracket b_;
    bool known_ = false;
    std::vector<Step> steps_;
};

// The slope that most of the steps of some lists' rows within a bracket have, by what they cost, of some rows looked at; part: how much of it.
struct Common {
    double slope = 0.0, part = 0.0;
};

inline Common common_slope(const std::vector<Table>& lists, Bracket b, int64_t some) {
    constexpr double equal = 1 + 0x1p-44;
    std::vector<Step> steps = Slopes::of(lists, b, some);
    std::sort(steps.begin(), steps.end(), [](const Step& a, const Step& z) { return a.slope < z.slope; });
    Common most;
    double all = 0.0, cost = 0.0;
    for (size_t begin = 0, end = 0; begin < steps.size(); cost -= static_cast<double>(steps[begin++].dcost)) {
        for (; end < steps.size() && steps[end].slope <= equal * steps[begin].slope; ++end) {
            cost += static_cast<double>(steps[end].dcost);
            all += static_cast<double>(steps[end].dcost);
        }
        if (cost > most.part) most = {steps[begin + (end - begin) / 2].slope, cost};
    }
    if (all > 0) most.part /= all;
    return most;
}

// Multipliers within `b` at which the rows of some lists cost about target + margin and target - margin, and seldom less or more. margin: at least
// `share` of what the cost changes by within `b`. Where cost jumps, an end of `b` may stay. Of many rows a part is looked at, and all of
// them once, near the target: what a part says of the change from there is right to a tenth or two. Where no multiplier near it is found and
// they are not very many, all are looked at each time.
// loose: how many margins are near enough. thinnest: of so many rows one is looked at, or more. widest: the dearest step: an end whose cost is
// some of them from the target, though less than the margin, has steps beside it, and is left for one nearer to them. end: throws Late after it.
inline Bracket around(const std::vector<Table>& lists, double target, double margin, double share, Bracket b, Crew& crew, double end, double loose = 2,
                      int64_t thinnest = kThinnest, double widest = INFINITY) {
    constexpr int tries = 10;
    constexpr double steps = 4, most = 0.7;   // of `widest`, what is some of them; of the distance to an end, the margin then
    constexpr int64_t part = 1 << 12, all = 1 << 17;
    struct Point { double x, cost; };
    int64_t rows = 0;
    for (const Table& t : lists) rows += t.n;
    if (b.high >= 0x1p800 || !(b.low < b.high) || rows == 0) return b;
    int64_t every = std::clamp<int64_t>(rows / part, 1, thinnest);
    const bool precise = narrower(b, kUnsure);
    double off = 0.0;
    const auto cost = [&](double x, const Bracket& about) { return cost_at(lists, x, precise || narrower(about, kUnsure), every, crew, end) + off; };
    Slopes slopes(lists, b);
    const auto guess = [&](const Point& a, const Point& z, double goal, int tried, int side) {
        const double at = (a.cost - goal) / std::max(a.cost - z.cost, 1.0);
        if (tried > 1) {
            const double x = slopes.at(a.x, z.x, at, side);
            if (x > a.x && x < z.x) return x;
        }
        // Far apart, cost says little: above the steepest steps it does not change at all.
        if (a.x > 0 && z.x > 4 * a.x) return a.x * std::pow(z.x / a.x, std::clamp(at, 0.3, 0.7));
        return a.x + (tried > 2 && tried % 2 == 1 ? 0.5 : std::clamp(at, 0.02, 0.98)) * (z.x - a.x);   // a step is found by halves only
    };
    Point low{b.low, cost(b.low, b)}, high{b.high, cost(b.high, b)};
    margin = std::max(margin, share * (low.cost - high.cost));
    if (every > 1) {
        Point from = low, to = high, near = low;
        bool found = false;
        for (int q = 0; q < (rows > all ? tries / 2 : tries) && !found; ++q) {
            const double x = guess(from, to, target, q, 0);
            if (!(x > from.x && x < to.x)) break;
            near = {x, cost(x, {from.x, to.x})};
            (near.cost >= target ? from : to) = near;
            found = std::fabs(near.cost - target) < margin;
        }
        if (found || rows > all) {
            off = cost_at(lists, near.x, precise, 1, crew, end) - near.cost;
            low.cost += off;
            high.cost += off;
        } else {   // what is off elsewhere says nothing of what is off at an end
            every = 1;
            low.cost = cost(low.x, b);
            high.cost = cost(high.x, b);
        }
    }
    const auto near = [&](double distance) { return distance > steps * widest ? std::min(margin, most * distance) : margin; };
    const double up = near(target - high.cost), down = near(low.cost - target), middle = (1 + loose) / 2;
    Point inner = low;   // of the multipliers looked at, the nearest below `high` that costs too much for it
    for (int q = 0; q < tries && high.cost < target - loose * up; ++q) {
        const double x = guess(inner, high, target - middle * up, q, 1);
        if (!(x > inner.x && x < high.x)) break;
        const Point p{x, cost(x, {inner.x, high.x})};
        (p.cost <= target - up ? high : inner) = p;
        if (p.cost >= target + down) low = p;
    }
    inner = high;
    for (int q = 0; q < tries && low.cost > target + loose * down; ++q) {
        const double x = guess(low, inner, target + middle * down, q, -1);
        if (!(x > low.x && x < inner.x)) break;
        const Point p{x, cost(x, {low.x, inner.x})};
        (p.cost >= target + down ? low : inner) = p;
    }
    return {low.x, high.x};
}

}  // namespace bitwright
