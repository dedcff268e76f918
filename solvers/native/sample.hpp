// A bracket of the critical slope from a sample of the rows (research/05 section 4, step 1).
#pragma once

#include "rounds.hpp"
#include "select.hpp"

namespace bitwright {

// Steps of every row of a table within the bracket. Returns the cost of the starting formats.
inline int64_t walk_rows(const Table& t, Bracket b, std::vector<Step>& steps, std::vector<uint8_t>& from, Watch& watch) {
    double l[kMaxFormats];
    int64_t c[kMaxFormats], cost = 0;
    from.resize(static_cast<size_t>(t.n));
    for (int64_t i = 0; i < t.n; ++i) {
        t.row(i, l, c);
        const int x = start(l, c, t.k, b.high);
        from[i] = static_cast<uint8_t>(x);
        cost += c[x];
        walk(l, c, t.k, i, x, b.low, steps);
        watch.step(t.k);
    }
    return cost;
}

class Sampler {
  public:
    // Of a small sample: deviation of a row's part of the target, the dearest step, the steepest, a slope above all, the critical one.
    struct Spread {
        double deviation = 0.0, widest = 0.0, steepest = 0.0, above = 0.0, middle = 0.0;
    };

    // crew: for what reads the whole table. end: throws Late after it.
    Sampler(uint64_t seed, Crew& crew, double end) : state_(seed), end_(end), crew_(crew), watch_(end) {}

    uint64_t random() { return mixed(state_ += 0x9E3779B97F4A7C15ull); }

    const Spread& spread() const { return spread_; }   // of the last sample

    // Slopes at the target +- 2.5 standard deviations of a sample of about n^(2/3) rows (Floyd-Rivest, on slopes). The
    // sample itself is bracketed by a sample of it, and so on, so that only a part of its hulls is walked; where rounds follow, none of it
    // but those of a few hundred rows.
    Bracket bracket(const Table& t, int64_t limit, Bracket within, bool rounds) {
        const double root = std::cbrt(static_cast<double>(t.n)), sigmas = 2.5;
        // Where rounds follow, their first one needs no more than a wide bracket.
        const int64_t wanted = rounds ? std::max(kFirst, t.n / 2048) : static_cast<int64_t>(2 * root * root) + 64;
        const int64_t m = std::min({t.n, wanted, t.mapped ? int64_t{1} << 16 : int64_t{1} << 21});
        const double ratio = static_cast<double>(limit) / static_cast<double>(std::max<int64_t>(t.total_size, 1));
        std::vector<Rows> drawn;
        std::vector<Table> samples;
        const bool sized = t.size != nullptr && t.total_size > 0 && !rounds;
        together_ = sized ? 1 : std::max<int64_t>(1, 128 / t.row_bytes());
        double free = 1.0;
        for (int64_t count = m;; count = rounds ? kGlance : std::max<int64_t>(kPilot, count / kThinned)) {
            const Table& from = samples.empty() ? t : samples.back();
            if (samples.empty() && sized) {
                const Table even = with_one_size(t);
                drawn.push_back(by_size(t, even, count, free));
                samples.push_back(drawn.back().view(even));
            } else {
                drawn.push_back(draw(from, count));
                samples.push_back(drawn.back().view(from));
            }
            if (count <= (rounds ? kGlance : kPilot)) break;
        }
        std::vector<Step> steps;   // of the smallest sample
        int64_t base = 0;
        Spread spread = piloted(samples.back(), ratio, within, steps, base);
        Bracket b = within;
        for (size_t at = samples.size(); at-- > 0;) {
            // A few thousand rows say too little of a heavy tail.
            if (at + 2 == samples.size()) spread.deviation = deviation(samples[at], ratio, spread.middle);
            double margin = 2 * spread.widest;   // what this sample and all it is drawn from may be off by
            for (size_t q = 0; q <= at; ++q)
                margin += sigmas * spread.deviation * static_cast<double>(samples[at].n) * std::sqrt((q == 0 ? free : 1.0) / static_cast<double>(samples[q].n));
            if (at + 1 == samples.size()) {
                const double target = ratio * static_cast<double>(samples[at].total_size) - static_cast<double>(base);
                b = sized ? past_large(steps, target, margin, spread.above, b.low, samples[at]) : slopes_around(steps, target, margin, spread.above, b.low, watch_);
                b.high = std::max(b.high, spread.steepest > 0 ? std::ldexp(spread.steepest, -30) : spread.above);   // the multiplier may well be zero
            } else {
                const double target = ratio * static_cast<double>(samples[at].total_size);
                b = rounds ? around({samples[at]}, target, margin, 0.0, b, alone_, end_, 1.25) : refined(samples[at], ratio, margin, b, sized);
            }
        }
        // Near an end of the range of budgets few rows of the smallest sample say anything of what rounds may be off by.
        if (rounds && b.low <= within.low) {
            const Table& first = samples.front();
            const Bracket at = around({first}, ratio * static_cast<double>(first.total_size), 0.0, 0.0, b, alone_, end_);
            spread.deviation = deviation(first, ratio, at.high);
        }
        spread_ = spread;
        return b;
    }

  private:
    static constexpr int64_t kGlance = 256, kPilot = 1024, kFirst = 4096, kThinned = 8;   // rows of the smallest sample; each is this much smaller
    static constexpr double kOften = 0x1p-5;      // of all costs: a step that is more is of rows with equal slopes
    static constexpr int64_t kShared = 1 << 15;   // rows of a sample that several threads pass over sooner
    static constexpr int64_t kGiven = 1 << 17;   // rows after which the pages of a file are given back

    // `together_` rows from each of equal stretches of the table, about m in all.
    Rows draw(const Table& t, int64_t m) {
        constexpr int ahead = 16;
        const int64_t line = together_, lines = t.n / line;
        m = std::min(lines, (m + line - 1) / line);
        Rows rows;
        rows.reserve(t, m * line);
        const double stretch = static_cast<double>(lines) / static_cast<double>(m);
        int64_t next[ahead], given = 0;
        expect(t, true);
        for (int64_t q = 0; q < m + ahead; ++q) {
            for (int64_t r = 0; q >= ahead && r < line; ++r) rows.add(t, next[q % ahead] + r, 0);
            if (q >= m) continue;
            const double share = static_cast<double>(random() >> 11) * 0x1p-53;
            const int64_t i = line * std::min(lines - 1, static_cast<int64_t>((static_cast<double>(q) + share) * stretch));
            next[q % ahead] = i;
            if (q % 1024 == 1023 && i > given) {   // a fault maps the pages around it as well
                release(t, given, next[(q + 1) % ahead]);
                given = next[(q + 1) % ahead];
            }
            if (t.mapped) continue;
            t.prefetch(i);
        }
        release(t, given, t.n);
        expect(t, false);
        return rows;
    }

    // The table with every size counted as their mean.
    static Table with_one_size(Table t) {
        t.size = nullptr;
        t.one_size = t.top_size = t.divisor = std::max<int64_t>(1, t.total_size / t.n);
        return t;
    }

    // About m rows, each as often as its size has it: rows at equal stretches of the sum of the sizes of each chunk, from a random one on
    // (systematic sampling with probability proportional to size, Madow 1949). Where sizes differ much a few rows are most of that sum, and a
    // sample of rows would say little of it. `even`: `with_one_size`; losses are scaled to that size, so that slopes stay. free: the part of the
    // sample that chance has a say in: a row of e stretches is drawn e times but for a fraction p, whose variance is p (1 - p).
    Rows by_size(const Table& t, const Table& even, int64_t m, double& free) {
        const double stretch = static_cast<double>(t.total_size) / static_cast<double>(m);
        const uint64_t turn = random();
        const int64_t chunks = (t.n + kGiven - 1) / kGiven;
        const int workers = static_cast<int>(std::min<int64_t>(chunks, crew_.size()));
        std::vector<Rows> lists(static_cast<size_t>(workers));
        std::vector<double> by_chance(static_cast<size_t>(chunks), 0.0);
        expect(even, true);   // of losses a few rows, of sizes all
        crew_.share(workers, [&](int me) {
            for (int64_t c = chunks * me / workers; c < chunks * (me + 1) / workers; ++c) {
                if (past(end_)) throw Late();
                const int64_t begin = c * kGiven, end = std::min(t.n, begin + kGiven);
                const double first = static_cast<double>(mixed(turn + static_cast<uint64_t>(c)) >> 11) * 0x1p-53 * stretch;
                by_chance[static_cast<size_t>(c)] = add_by_size(t, even, begin, end, first, stretch, lists[static_cast<size_t>(me)]);
                release(t, begin, end);
            }
        });
        expect(even, false);
        Rows rows = joined(even, lists, crew_);
        free = std::accumulate(by_chance.begin(), by_chance.end(), 0.0) / static_cast<double>(std::max<int64_t>(rows.n, 1));
        return rows;
    }

    // Those of one chunk, the first of them at `next` of the sum of its sizes.
    static double add_by_size(const Table& t, const Table& even, int64_t begin, int64_t end, double next, double stretch, Rows& rows) {
        struct Drawn {
            int64_t row, times;
        };
        constexpr int ahead = 16;
        constexpr int64_t block = 16;
        Drawn drawn[ahead];
        int64_t count = 0, before = 0;
        double by_chance = 0.0;
        const auto take = [&](const Drawn& d) {
            const auto size = static_cast<double>(t.weight(d.row));
            const double whole = size / stretch, p = whole - static_cast<double>(static_cast<int64_t>(whole));
            by_chance += static_cast<double>(d.times) * p * (1 - p) / whole;
            rows.reserve(even, rows.n + d.times);
            rows.add(even, d.row, 0);
            scale(even, rows.n - 1, rows, static_cast<double>(even.one_size) / size);
            for (int64_t q = 1; q < d.times; ++q) rows.again(even);
        };
        for (int64_t at = begin; at < end; at += block) {
            const int64_t stop = std::min(end, at + block);
            int64_t sum = 0;
            for (int64_t i = at; i < stop; ++i) sum += load(t.size + i);
            auto goal = static_cast<int64_t>(next);   // a whole number is above `next` where it is above this
            for (int64_t i = at, to = before; before + sum > goal && i < stop; ++i) {
                to += load(t.size + i);
                if (to <= goal) continue;
                if (count >= ahead) take(drawn[count % ahead]);
                int64_t times = 0;
                for (; to > goal; goal = static_cast<int64_t>(next += stretch)) ++times;
                drawn[count++ % ahead] = {i, times};
                if (!t.mapped) even.prefetch(i);
            }
            before += sum;
        }
        for (int64_t q = std::max<int64_t>(0, count - ahead); q < count; ++q) take(drawn[q % ahead]);
        return by_chance;
    }

    static void scale(const Table& t, int64_t row, Rows& rows, double by) {
        char* at = rows.loss.data() + row * t.row_bytes();
        for (int j = 0; j < t.k; ++j) {
            if (t.single) reinterpret_cast<float*>(at)[j] = static_cast<float>(reinterpret_cast<float*>(at)[j] * by);
            else reinterpret_cast<double*>(at)[j] *= by;
        }
    }

    // steps, base: as of `walk_rows`.
    Spread piloted(const Table& f, double ratio, Bracket within, std::vector<Step>& steps, int64_t& base) {
        std::vector<uint8_t> from;
        base = walk_rows(f, within, steps, from, watch_);
        Spread out;
        for (const Step& step : steps) {
            out.steepest = std::max(out.steepest, step.slope);
            out.widest = std::max(out.widest, static_cast<double>(step.dcost));
        }
        out.above = std::isinf(within.high) ? (out.steepest > 0 ? std::ldexp(out.steepest, 20) : 1.0) : within.high;
        // Ratio estimator: average cost per unit of size, so it does not matter which sizes were drawn.
        const double target = ratio * static_cast<double>(f.total_size) - static_cast<double>(base);
        out.middle = slopes_around(steps, target, 0.0, out.above, within.low, watch_).low;
        out.deviation = deviation(f, ratio, out.middle);
        return out;
    }

    // Of a row's part of the target at a multiplier, about. Rows drawn together may be alike: their sums count, not each alone.
    double deviation(const Table& f, double ratio, double slope) {
        std::vector<uint8_t> x(static_cast<size_t>(f.n));
        fused_pass(f, nullptr, nullptr, {slope, slope}, true, f.n, alone_, x.data(), end_);
        double square = 0.0, sum = 0.0;
        for (int64_t i = 0; i < f.n; ++i) {
            sum += (static_cast<double>(f.rate[x[i]]) - ratio) * static_cast<double>(f.weight(i));
            if ((i + 1) % together_ != 0 && i + 1 != f.n) continue;
            square += sum * sum;
            sum = 0.0;
        }
        return std::sqrt(square / static_cast<double>(f.n));
    }

    // Slopes at the target +- margin of a sample, from its rows that are not settled within a bracket.
    Bracket refined(const Table& s, double ratio, double margin, Bracket b, bool sized) {
        Bracket wide = b;
        widen(wide, false, {0.0, INFINITY});
        const Tally tally = fused_pass(s, nullptr, nullptr, wide, false, s.n, s.n < kShared ? alone_ : crew_, nullptr, end_);
        std::vector<Step> steps;
        std::vector<uint8_t> from;
        const int64_t base = walk_rows(tally.rows.view(s), wide, steps, from, watch_);
        const double target = ratio * static_cast<double>(s.total_size) - static_cast<double>(tally.cost + base);
        return sized ? past_large(steps, target, margin, b.high, b.low, s) : slopes_around(steps, target, margin, b.high, b.low, watch_);
    }

    // `slopes_around` in a sample drawn by size, where a large row is there often. Where an end is such a row's step, the bracket is to hold the slopes
    // that are critical with its format fixed, too (splits.hpp).
    Bracket past_large(std::vector<Step>& steps, double target, double margin, double above, double below, const Table& s) {
        Bracket b = slopes_around(steps, target, margin, above, below, watch_);
        const double up = often(steps, b.high), down = often(steps, b.low), most = kOften * static_cast<double>(s.total_size) * static_cast<double>(*std::max_element(s.rate, s.rate + s.k));
        if (up > 0 && up < most) b.high = slopes_around(steps, target - up, margin, above, below, watch_).high;
        if (down > 0 && down < most) b.low = slopes_around(steps, target + down, margin, above, below, watch_).low;
        return b;
    }

    // What the steps of this slope cost, where there are several.
    static double often(const std::vector<Step>& steps, double slope) {
        int64_t cost = 0, count = 0;
        for (const Step& step : steps) {
            cost += step.slope == slope ? step.dcost : 0;
            count += step.slope == slope;
        }
        return count > 1 ? static_cast<double>(cost) : 0.0;
    }

    uint64_t state_;
    double end_;
    Crew& crew_;
    Crew alone_{1};   // most samples are small
    int64_t together_ = 1;   // rows drawn together: those of two lines of the cache, which cost little more to fetch than one row
    Watch watch_;
    Spread spread_;
};

}  // namespace bitwright
