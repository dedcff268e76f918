// The core of a knapsack whose costs are all near multiples of one number: sizes that lie within 1 %, costs off a lattice by a little.
//
// How many such steps a plan takes is a whole number, which the relaxation does not see. Each cost is written as so many steps and
// a rest. With the number of steps fixed the relaxation has two multipliers (one of the number, one of the rests), and its value is convex in
// the number, so that a few numbers are looked at, and all beyond them are no better. What is left open of one of them is a
// knapsack again (a step that costs more than all rests together keeps the number fixed), solved as a part.
#pragma once

#include "part.hpp"
#include "step_bound.hpp"
#include "totals.hpp"

namespace bitwright {

class Steps : private StepBound {
  public:
    // cells: those of one row together.
    Steps(const std::vector<Cell>& cells, double slope, int64_t slack, int64_t step, double end, const Solver& solve)
        : StepBound(cells, slope, slack, step, end), cells_(cells), solve_(solve) {}

    // Lower the gap of `best` (whose cells are numbers of `cells`); complete when no plan is better by more than `within`.
    void run(CoreResult& best, double within, double end) {
        const int64_t first = std::clamp(nearest(slack_, step_), low_, high_);
        int64_t open = 0;
        bool all = true;
        for (const int64_t way : {int64_t{1}, int64_t{-1}}) {
            bool beyond = false;
            for (int64_t number = way > 0 ? first : first - 1; !beyond; number += way) {
                if (number < low_ || number > high_) {
                    beyond = true;
                    break;
                }
                if (std::abs(number - first) > kNumbers || open > kOpen || best.work * static_cast<int64_t>(option_.size()) > kLooked || past(end)) break;
                const bool shut = closed(number, best, within, end);
                open += !shut;
                all = all && shut;
                if (best.gap <= within) {
                    best.complete = true;
                    return;
                }
                // The multipliers of this number bound the next ones as well, by a line.
                beyond = bounded_ && static_cast<double>(way) * ((price_ - slope_) * static_cast<double>(step_) - level_) >= 0;
            }
            all = all && beyond;
        }
        best.complete = all;
    }

  private:
    static constexpr int64_t kNumbers = 256, kOpen = 2, kTangents = 24, kWindow = 1 << 12, kAgain = 2, kRaised = 4, kLooked = 1 << 22;
    static constexpr double kWorth = 0.5, kAdditions = 0x1p24;

    // Whether no plan of this number of steps is better than the best by more than `within`. bounded_: by multipliers alone.
    bool closed(int64_t number, CoreResult& best, double within, double end) {
        bounded_ = false;
        over_.clear();
        under_.clear();
        double low = 0.0, high = slope_ > 0 ? slope_ : 1.0, over, value_low = -kInfinity, over_low = 0.0, most = -kInfinity;
        const auto tried = [&](double price) {
            ++best.work;
            const double found = bound(number, price, over);
            (over > 0 ? over_ : under_) = at_;
            if (found > most) {
                most = found;
                price_ = price;
            }
            bounded_ = found >= best.gap - within;
            if (bounded_) price_ = price;
            return found;
        };
        double value_high = tried(high), over_high = over;
        if (bounded_) return true;
        for (int grown = 0; over_high > 0 && grown < 60; ++grown) {
            low = high;
            value_low = value_high;
            over_low = over_high;
            high *= 4;
            value_high = tried(high);
            over_high = over;
            if (bounded_) return true;
        }
        if (over_high > 0) return false;
        if (low == 0.0) {
            value_low = tried(0.0);
            over_low = over;
            if (bounded_) return true;
        }
        for (int64_t t = 0; t < kTangents && over_low > 0 && over_high < 0 && !past(end); ++t) {
            double price = (value_high - value_low + over_low * low - over_high * high) / (over_low - over_high);
            if (!(price > low && price < high)) price = low + (high - low) / 2;
            const double at_most = value_low + over_low * (price - low), found = tried(price);
            if (bounded_) return true;
            if (at_most - found <= 1e-3 * (best.gap - found) || over == 0) break;
            (over > 0 ? low : high) = price;
            (over > 0 ? value_low : value_high) = found;
            (over > 0 ? over_low : over_high) = over;
        }
        const double chosen = price_;
        double before = kInfinity;   // with a better plan less is of use, and its search goes further
        for (int64_t again = 0; again < kAgain && best.gap < before && !past(end); ++again) {
            before = best.gap;
            price_ = chosen;
            if (searched(number, best, within, end)) return true;
        }
        return false;
    }

    // The cost of a step in the knapsack of one number: so much that one step less is worth more than the gap, and one more is more than all
    // rests. The price rises where it is too small for that. False where sums would overflow, or round by more than counts.
    bool apart(int64_t number, const CoreResult& best, double within, double& least) {
        for (int64_t again = 0; again < kRaised; ++again) {
            double over;
            least = bound(number, price_, over);
            const double gap = best.gap - least, nu = price_ - slope_;
            bounded_ = gap <= within;
            if (bounded_) return true;
            double steps = 2.0, low = 0.0, high = 0.0;
            int64_t many = number, room = slack_ - number * step_;
            for (size_t g = 0; g < at_.size(); ++g) {
                const Option& x = option_[at_[g]];
                const double base = priced(x, nu);
                int64_t row = 0, down = 0, up = 0;
                many -= x.many;
                room -= x.rest;
                for (size_t o = start_[g]; o < start_[g + 1]; ++o) {
                    if (!(priced(option_[o], nu) - base < gap)) continue;
                    row = std::max(row, std::abs(option_[o].many - x.many));
                    down = std::min(down, option_[o].rest - x.rest);
                    up = std::max(up, option_[o].rest - x.rest);
                }
                steps += static_cast<double>(row);
                low += static_cast<double>(down);
                high += static_cast<double>(up);
            }
            steps += std::fabs(static_cast<double>(many));
            const double left = static_cast<double>(room), widest = 0x1p61 / steps, needed = std::max(1.0, std::max(high - left, left - low) * 1.01);
            if (!(needed < widest / 4)) return false;
            const double wide = std::min(widest, needed + (price_ > 0 ? 2 * gap / price_ : kInfinity));
            if (price_ * (wide - needed) > 1.5 * gap) {
                apart_ = static_cast<int64_t>(wide);
                return 0x1p-50 * steps * wide * price_ < within;
            }
            price_ = 3 * gap / wide;
        }
        return false;
    }

    // Whether a table of numbers of steps, each of the least penalty, has none of less than `gap` for this one.
    bool tabled(int64_t many, double nu, double gap) const {
        std::vector<Cell> cells;
        for (size_t g = 0; g < at_.size(); ++g) {
            const Option& x = option_[at_[g]];
            const double base = priced(x, nu);
            for (size_t o = start_[g]; o < start_[g + 1]; ++o) {
                const double penalty = std::max(0.0, priced(option_[o], nu) - base);
                if (option_[o].many != x.many && penalty < gap) cells.push_back({static_cast<int64_t>(g), option_[o].many - x.many, penalty, 0.0, 0});
            }
        }
        if (many == 0 || cells.empty() || many < -kWindow || many > kWindow) return many != 0 && cells.empty();
        for (Cell& cell : cells)
            if (many < 0) cell.dcost = -cell.dcost;
        const CoreResult found = Totals(cells, 2 * gap, std::abs(many), 1, gap).run(0.0, kAdditions);
        return found.complete && !(found.gap < gap);
    }

    // Where two plans of equal value have this number of steps, one with too much of rests and one with too little, so have those on the way from one to the other.
    void between(int64_t number, CoreResult& best) const {
        if (over_.size() != at_.size() || under_.size() != at_.size()) return;
        struct Change {
            int64_t many, rest;
            size_t at;
        };
        std::vector<Change> up, down;
        int64_t many = -number, rest = number * step_ - slack_;
        std::vector<size_t> chosen = over_;
        for (size_t g = 0; g < at_.size(); ++g) {
            many += option_[over_[g]].many;
            rest += option_[over_[g]].rest;
            const Change change{option_[under_[g]].many - option_[over_[g]].many, option_[under_[g]].rest - option_[over_[g]].rest, under_[g]};
            if (over_[g] != under_[g]) (change.many > 0 ? up : down).push_back(change);
        }
        const auto less = [](const Change& a, const Change& b) { return a.rest < b.rest; };
        std::sort(up.begin(), up.end(), less);
        std::sort(down.begin(), down.end(), less);
        const auto place = [&](size_t option) { return static_cast<size_t>(std::upper_bound(start_.begin(), start_.end(), option) - start_.begin()) - 1; };
        size_t u = 0, d = 0;
        for (;;) {
            if (many == 0 && rest <= 0) {
                take(chosen, best);
                return;
            }
            const bool rise = many < 0 ? u < up.size() : d >= down.size();
            if (rise ? u >= up.size() : d >= down.size()) return;
            const Change& change = rise ? up[u++] : down[d++];
            chosen[place(change.at)] = change.at;
            many += change.many;
            rest += change.rest;
        }
    }

    // A few options in the place of those of at_, of this number of steps in all.
    void polish(int64_t many, int64_t rest, double price, double nu, double gap, double enough, double end, CoreResult& best) const {
        std::vector<Cell> cells, moves;
        for (size_t g = 0; g < at_.size(); ++g) {
            const Option& x = option_[at_[g]];
            const double base = priced(x, nu);
            for (size_t o = start_[g]; o < start_[g + 1]; ++o) {
                const int64_t dcost = apart_ * (option_[o].many - x.many) + option_[o].rest - x.rest;
                const double penalty = std::max(0.0, priced(option_[o], nu) - base);
                if (dcost != 0 && penalty < gap) cells.push_back({static_cast<int64_t>(g), dcost, penalty, 0.0, static_cast<int>(o - start_[g])});
            }
        }
        try {
            Closer(cells, price, apart_ * many + rest, end).run({}, moves, gap, enough);
        } catch (const Late&) {   // the next look at the clock ends the search as well
        }
        std::vector<size_t> chosen;
        for (const Cell& move : moves) chosen.push_back(start_[static_cast<size_t>(move.row)] + static_cast<size_t>(move.format));
        if (!chosen.empty()) take(chosen, best);
    }

    // The rest of one number as a knapsack of its own, in which a step costs more than all rests: with fewer steps a plan is priced out.
    bool searched(int64_t number, CoreResult& best, double within, double end) {
        const int64_t left = slack_ - number * step_;
        double least;
        if (!apart(number, best, within, least)) return false;
        if (bounded_) return true;
        const double price = price_, nu = price - slope_;
        int64_t many = number, rest = left;
        for (const size_t at : at_) {
            many -= option_[at].many;
            rest -= option_[at].rest;
        }
        if (many == 0 && rest >= 0) take({}, best);
        between(number, best);
        if (best.gap <= within || least >= best.gap - within) return true;
        if (tabled(many, nu, best.gap - least - within)) {
            bounded_ = false;
            return true;
        }
        polish(many, rest, price, nu, best.gap - least, within - least, end, best);
        if (best.gap <= within || least >= best.gap - within) return true;
        if (!(least > kWorth * best.gap)) return false;   // what is left is no smaller than all
        Part part;
        part.within = within;
        part.finer = apart_ / 2;
        part.below = best.gap - least - price * static_cast<double>(apart_ * many + rest);
        std::vector<std::vector<size_t>> options;
        size_t most = 0;
        for (size_t g = 0; g < at_.size(); ++g) {
            std::vector<size_t> some{at_[g]};
            const double base = priced(option_[at_[g]], nu);
            for (size_t o = start_[g]; o < start_[g + 1]; ++o)
                if (o != at_[g] && priced(option_[o], nu) - base < best.gap - least) some.push_back(o);
            if (some.size() == 1) continue;
            most = std::max(most, some.size());
            options.push_back(std::move(some));
        }
        part.n = static_cast<int64_t>(options.size());
        part.k = static_cast<int>(most);
        part.limit = apart_ * many + rest;
        part.loss.assign(options.size() * most, kInfinity);
        part.cost.assign(options.size() * most, 0);
        for (size_t g = 0; g < options.size(); ++g) {
            const Option& x = option_[options[g][0]];
            const double base = priced(x, nu);
            int64_t low = 0;
            for (size_t j = 0; j < options[g].size(); ++j) {
                const Option& option = option_[options[g][j]];
                const int64_t dcost = apart_ * (option.many - x.many) + option.rest - x.rest;
                part.cost[g * most + j] = dcost;
                part.loss[g * most + j] = (j == 0 ? 0.0 : std::max(0.0, priced(option, nu) - base)) - price * static_cast<double>(dcost);
                low = std::min(low, dcost);
            }
            for (size_t j = 0; j < most; ++j) part.cost[g * most + j] -= low;
            part.limit -= low;
        }
        const bool complete = solve_(part);
        if (part.better) {
            std::vector<size_t> chosen;
            for (size_t g = 0; g < options.size(); ++g) chosen.push_back(options[g][part.choice[g]]);
            take(chosen, best);
        }
        return complete || best.gap <= within;
    }

    // The plan of at_ with some options in the place of others, where it is better.
    void take(const std::vector<size_t>& options, CoreResult& best) const {
        std::vector<size_t> at = at_;
        for (const size_t o : options) at[static_cast<size_t>(std::upper_bound(start_.begin(), start_.end(), o) - start_.begin()) - 1] = o;
        take_better(at, option_, [&](size_t o) { return cells_[static_cast<size_t>(option_[o].cell)].dcost; }, slope_, slack_, best);
    }

    const std::vector<Cell>& cells_;
    const Solver& solve_;
    int64_t apart_ = 0;
    std::vector<size_t> over_, under_;   // plans of the relaxation with too much of rests, and with room for more
    double price_ = 0.0;   // of a unit of the rests
    bool bounded_ = false;
};

// By numbers of steps. Complete when no plan is better than the gap that is found by more than `enough`.
// unit: all costs are multiples of it. finer: than what they are looked at as near multiples of.
inline CoreResult stepped(std::vector<Cell> cells, double slope, int64_t slack, int64_t unit, double gap, double enough, double end, int64_t finer,
                          const Solver& solve) {
    constexpr int64_t most = 3;   // steps that are tried
    constexpr double seldom = 1.0 / 1024, useful = 64;   // penalties of the gap; steps that it is worth at most
    CoreResult found{gap, false, 0, 0, {}};
    unit = std::max<int64_t>(1, unit);   // in units sums stay small
    for (Cell& cell : cells) cell.dcost /= unit;
    slope *= static_cast<double>(unit);
    slack /= unit;
    std::vector<Cell> cheap;   // where the others are seldom taken, only their costs need be near multiples
    for (const Cell& cell : cells)
        if (cell.penalty < seldom * gap) cheap.push_back(cell);
    std::vector<int64_t> steps;
    if (!cheap.empty()) steps = near_divisors(cheap, finer / unit);
    if (cheap.size() < cells.size())
        for (const int64_t step : near_divisors(cells, finer / unit)) steps.push_back(step);
    std::sort(steps.rbegin(), steps.rend());
    int64_t last = 0, tried = 0;
    for (const int64_t step : steps) {
        if (found.complete || found.gap <= enough || past(end) || tried == most) break;
        if (!(slope * static_cast<double>(step) * useful > found.gap) || (last > 0 && step > last - last / 64)) continue;
        last = step;
        ++tried;
        try {
            Steps(cells, slope, slack, step, end, solve).run(found, enough, end);
        } catch (const Late&) {   // what was found stays
            break;
        }
    }
    return found;
}

}  // namespace bitwright
