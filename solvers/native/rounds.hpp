// The first pass over a large table, in rounds that narrow its bracket of multipliers on the way.
//
// Every stretch of the table gives a 128th of its rows to the first round and four times as much to each next one. What
// was passed is a sample of what was not (a systematic one, Cochran, Sampling Techniques, 1977, chapter 8), so after each
// round the bracket becomes as narrow as that sample allows, and rows that were listed for the wider one are looked at
// again. So nearly no row is read for the bracket alone, and few are copied out.
#pragma once

#include "pass.hpp"

namespace bitwright {

// Ends moved outward by more than the rounding of the pass, and never further than `within`.
inline void widen(Bracket& b, bool precise, Bracket within) {
    const double by = precise ? 1e-13 : 4 * 0x1p-20;
    b.high = std::min(b.high * (1 + by), std::isinf(within.high) ? 0x1p900 : within.high);
    b.low = std::max(b.low * (1 - by), within.low);
}

inline uint64_t mixed(uint64_t z) {   // the last steps of splitmix64 (Steele, Lea, Flood 2014)
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
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

// Cost of all rows at one multiplier. end: throws Late after it.
inline double cost_at(const Table& t, double slope, int threads, double end) {
    const Tally sure = fused_pass(t, nullptr, nullptr, {slope, slope}, false, t.n, threads, nullptr, end);
    return static_cast<double>(sure.cost + cost_of(sure.rows.view(t), slope));
}

// The same, estimated from 64 rows of every 64 * `every`, by size.
inline double cost_near(const Table& t, double slope, int64_t every) {
    constexpr int64_t chunk = 64;
    Pass pass(t, nullptr, nullptr, {slope, slope}, t.n, nullptr);
    Tally sure;
    for (int64_t begin = 0; begin < t.n; begin += chunk * every) pass.run(begin, std::min(t.n, begin + chunk), sure, sure.rows);
    const double cost = static_cast<double>(sure.cost + cost_of(sure.rows.view(t), slope));
    return cost * (static_cast<double>(t.total_size) / static_cast<double>(std::max<int64_t>(sure.weight, 1)));
}

// Multipliers within `b` at which the rows cost about target + margin and target - margin, and seldom less or more. margin: at least
// `share` of what the cost changes by within `b`. Where cost jumps, an end of `b` may stay. Of many rows a part is looked at, and all of
// them once, near the target: what a part says of the change from there is right to a tenth or two.
// loose: how many margins are near enough. end: throws Late after it.
inline Bracket around(const Table& t, double target, double margin, double share, Bracket b, int threads, double end, double loose = 2) {
    constexpr int tries = 10;
    constexpr int64_t part = 1 << 12, thinnest = 8;
    struct Point { double x, cost; };
    if (b.high >= 0x1p800 || !(b.low < b.high) || t.n == 0) return b;
    const int64_t every = std::clamp<int64_t>(t.n / part, 1, thinnest);
    double off = 0.0;
    const auto cost = [&](double x) { return every > 1 ? cost_near(t, x, every) + off : cost_at(t, x, threads, end); };
    const auto guess = [](const Point& a, const Point& z, double goal, int tried) {
        const double at = (a.cost - goal) / std::max(a.cost - z.cost, 1.0);
        // Far apart, cost says little: above the steepest steps it does not change at all.
        if (a.x > 0 && z.x > 4 * a.x) return a.x * std::pow(z.x / a.x, std::clamp(at, 0.3, 0.7));
        return a.x + (tried > 2 && tried % 2 == 1 ? 0.5 : std::clamp(at, 0.02, 0.98)) * (z.x - a.x);   // a step is found by halves only
    };
    Point low{b.low, cost(b.low)}, high{b.high, cost(b.high)};
    margin = std::max(margin, share * (low.cost - high.cost));
    if (every > 1) {
        Point from = low, to = high, near = low;
        for (int q = 0; q < tries / 2; ++q) {
            const double x = guess(from, to, target, q);
            if (!(x > from.x && x < to.x)) break;
            near = {x, cost(x)};
            (near.cost >= target ? from : to) = near;
            if (std::fabs(near.cost - target) < margin) break;
        }
        off = cost_at(t, near.x, threads, end) - near.cost;
        low.cost += off;
        high.cost += off;
    }
    const double middle = (1 + loose) / 2 * margin;
    Point inner = low;   // of the multipliers looked at, the nearest below `high` that costs too much for it
    for (int q = 0; q < tries && high.cost < target - loose * margin; ++q) {
        const double x = guess(inner, high, target - middle, q);
        if (!(x > inner.x && x < high.x)) break;
        const Point p{x, cost(x)};
        (p.cost <= target - margin ? high : inner) = p;
        if (p.cost >= target + margin) low = p;
    }
    inner = high;
    for (int q = 0; q < tries && low.cost > target + loose * margin; ++q) {
        const double x = guess(low, inner, target + middle, q);
        if (!(x > low.x && x < inner.x)) break;
        const Point p{x, cost(x)};
        (p.cost >= target + margin ? low : inner) = p;
    }
    return {low.x, high.x};
}

class Rounds {
  public:
    static constexpr int64_t kLeast = 1 << 12;   // rows that make two stretches

    // ratio: what a unit of size may cost. deviation: of a row's part of the target, where known; widest: its dearest step. turn: where the
    // parts of each stretch begin. least: rows to be listed at the end, or more. end: throws Late after it.
    Rounds(const Table& t, double ratio, double deviation, double widest, uint64_t turn, int64_t least, int threads, uint8_t* choice, double end)
        : t_(t), ratio_(ratio), deviation_(deviation), widest_(widest), turn_(turn), least_(least), threads_(threads), choice_(choice), end_(end),
          part_(kPart * std::clamp<int64_t>(t.n / (kLots * kPart * kParts), 1, kWidest)), stretches_(t.n / (part_ * kParts)),
          off_(static_cast<size_t>(stretches_), 0.0) {}

    // As `fused_pass`; `b` becomes narrower. most: rows listed at once; `top` of them were.
    Tally run(Bracket& b, int64_t most, int64_t& top) {
        Tally all;
        long double loss = 0.0L;
        int from = 0;
        expect(t_, true);
        for (const int to : {1, 4, kJudged, 64, kParts}) {
            if (to == kParts) expect(t_, false);
            pass(from, to, b, most, all, loss);
            top = std::max(top, all.rows.n);
            if (all.over || to == kParts) break;
            from = to;
            const double share = static_cast<double>(passed_) / static_cast<double>(t_.n);
            const double target = ratio_ * static_cast<double>(weight_) - static_cast<double>(all.cost);
            // No fewer rows than the last level takes: those just outside matter to the core.
            const double held = std::min(0.45, 0.5 * share * static_cast<double>(least_) / static_cast<double>(std::max<int64_t>(all.rows.n, 1)));
            Bracket inner = around(all.rows.view(t_), target, margin(share), std::max(kTolerance, held), b, threads_, end_, kLoose);
            widen(inner, false, b);
            keep(all, inner, loss);
            b = inner;
            // Slopes are nearly equal, and no bracket would be narrow; or stretches are not alike.
            all.over = all.rows.n > passed_ - passed_ / 4 || (to == kJudged && all.rows.n > passed_ / kUnlike);
            if (all.over) break;
        }
        all.loss = static_cast<double>(loss);
        return all;
    }

  private:
    static constexpr int kParts = 128, kJudged = 16, kMany = 512, kUnlike = 5;
    static constexpr int64_t kPart = 16, kLots = 64, kWidest = 512;   // rows of a part, times up to kWidest in large tables
    static constexpr double kSigmas = 3, kTolerance = 0.02, kLoose = 1.3;

    // What the rows passed may be off by, where the rest of the table is as they are: by the deviation between neighbouring stretches, which
    // sees rows that are alike, or, where stretches are few, that of rows where it is greater.
    double margin(double share) const {
        double square = 0.0;
        for (size_t s = 1; s < off_.size(); ++s) square += 0.5 * (off_[s] - off_[s - 1]) * (off_[s] - off_[s - 1]);
        square *= static_cast<double>(passed_) / static_cast<double>(std::max<int64_t>(settled_, 1));
        const double rows = stretches_ < kMany ? deviation_ * deviation_ * static_cast<double>(passed_) : 0.0;
        return 2 * widest_ + kSigmas * std::sqrt((1 - share) * std::max(square, rows));
    }

    // The rows listed that a narrower bracket does not settle, in their own place: as many bytes again would be taken for a copy.
    void keep(Tally& all, Bracket b, long double& loss) const {
        const Table listed = all.rows.view(t_);
        Pass over(listed, all.rows.id.data(), all.rows.chosen.data(), b, listed.n, choice_);
        all.rows.n = all.rows.total_size = 0;
        Tally sum;
        over.run(0, listed.n, sum, all.rows);
        all.cost += sum.cost;
        loss += sum.loss;
    }

    // Rows a..b and c..d.
    struct Runs {
        int64_t a, b, c, d;
        void fetch(const Table& t) const {
            bitwright::fetch(t, a, b);
            bitwright::fetch(t, c, d);
        }
    };

    // Parts from..to of a stretch, which is gone round: two runs at most.
    Runs runs_of(int64_t s, int from, int to) const {
        const int64_t first = s * kParts * part_, turn = static_cast<int64_t>(mixed(static_cast<uint64_t>(s) + turn_) % kParts);
        const auto at = [&](int64_t part) { return first + part * part_; };
        const int64_t begin = turn + from, end = turn + to;
        return {at(std::min<int64_t>(begin, kParts)), at(std::min<int64_t>(end, kParts)),
                at(std::max<int64_t>(begin - kParts, 0)), at(std::max<int64_t>(end - kParts, 0))};
    }

    // Parts from..to of every stretch (and the rows after the last one in the last round).
    void pass(int from, int to, Bracket b, int64_t most, Tally& all, long double& loss) {
        const int crew_size = static_cast<int>(std::min<int64_t>(threads_, stretches_));
        const bool last = to == kParts;
        struct Made {
            Rows rows;
            long double loss = 0.0L;
            int64_t cost = 0, weight = 0, passed = 0, before = 0;
            int failed = 0;
        };
        std::vector<Made> made(static_cast<size_t>(crew_size));
        made[0].before = all.rows.n;   // the first worker adds to the list that is there
        made[0].rows = std::move(all.rows);
        all.rows = Rows();
        std::vector<double> sums(static_cast<size_t>(stretches_), 0.0);
        double rest = 0.0;
        const auto work = [&](int me) {
            Made& out = made[me];
            try {
                Pass over(t_, nullptr, nullptr, b, most, choice_);
                out.rows.expect(t_, std::max(out.before, t_.n / crew_size / 64));
                const auto rows = [&](int64_t begin, int64_t end, Tally& sum) {
                    if (begin >= end) return true;
                    const bool fine = over.run(begin, end, sum, out.rows);
                    out.passed += end - begin;
                    release(t_, begin, end);
                    return fine;
                };
                const int64_t begin = stretches_ * me / crew_size, end = stretches_ * (me + 1) / crew_size;
                for (int64_t s = begin; s < end; ++s) {
                    if (past(end_)) {
                        out.failed = 3;
                        return;
                    }
                    const Runs runs = runs_of(s, from, to);
                    if (s == begin) runs.fetch(t_);
                    if (s + 1 < end) runs_of(s + 1, from, to).fetch(t_);
                    const int64_t listed = out.rows.total_size;
                    Tally sum;
                    if (!rows(runs.a, runs.b, sum) || !rows(runs.c, runs.d, sum)) {
                        out.failed = 1;
                        return;
                    }
                    out.cost += sum.cost;
                    out.weight += sum.weight;
                    sums[s] = sum.loss;
                    off_[s] += static_cast<double>(sum.cost) - ratio_ * static_cast<double>(sum.weight - (out.rows.total_size - listed));
                }
                if (last && me == crew_size - 1) {
                    Tally sum;
                    if (!rows(stretches_ * kParts * part_, t_.n, sum)) out.failed = 1;
                    out.cost += sum.cost;
                    rest = sum.loss;
                }
            } catch (const std::bad_alloc&) {
                out.failed = 2;
            }
        };
        std::vector<std::thread> crew;
        for (int me = 1; me < crew_size; ++me) crew.emplace_back(work, me);
        work(0);
        for (std::thread& one : crew) one.join();
        for (const double sum : sums) loss += sum;
        loss += rest;
        for (Made& one : made) {
            if (one.failed == 2) throw std::bad_alloc();
            if (one.failed == 3) throw Late();
            all.over = all.over || one.failed != 0;
            all.cost += one.cost;
            weight_ += one.weight;
            passed_ += one.passed;
            settled_ += one.passed - (one.rows.n - one.before);
            if (&one == &made[0]) all.rows = std::move(one.rows);
            else all.rows.append(t_, one.rows);
            one.rows = Rows();
        }
        all.over = all.over || all.rows.n > most;
    }

    Table t_;
    double ratio_, deviation_, widest_;
    uint64_t turn_;
    int64_t least_;
    int threads_;
    uint8_t* choice_;
    double end_;
    int64_t part_, stretches_, weight_ = 0, passed_ = 0, settled_ = 0;
    std::vector<double> off_;   // of each stretch: cost of the settled rows less their part of the target
};

}  // namespace bitwright
