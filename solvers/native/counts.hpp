// The core of a knapsack whose costs are of a few levels: rows within 1 % of each other, costs of one shape rounded up in bytes.
//
// How many rows take a format of one level of cost is a whole number, which the relaxation does not see; where it is split, most of the gap is
// what one row's step is. So these numbers are branched on, not the formats of rows (as Vance 1998 branches on what many columns share): a bound on
// one of them moves all rows alike, and after a few the relaxation is as good as a plan. Where all numbers are whole and fixed, what is left is a
// knapsack again (rows exchange levels, and rests of little cost fill the limit), solved as a part.
#pragma once

#include <numeric>
#include <queue>

#include "counts_cases.hpp"
#include "counts_plan.hpp"
#include "large.hpp"
#include "table.hpp"

namespace bitwright {

// Levels of cost: of each cell, and of no cell of each row. Neighbours are further apart than costs of one level; or levels are equal costs.
struct CostLevels {
    static constexpr int64_t kApart = 64, kWidth = 8;   // levels are 64th parts of a cost apart, and at most an 8th of it wide
    static constexpr size_t kMost = 128, kShared = 4;   // levels; cells that share one, in the mean

    std::vector<int32_t> of_cell, of_none;
    std::vector<int64_t> cost, first;   // of each level; the least
    bool narrow = true;

    // base: cost of each row where it takes none of its cells.
    CostLevels(const std::vector<Cell>& cells, const std::vector<int64_t>& base, bool equal) {
        std::vector<int64_t> all = base;
        std::vector<int64_t> of;
        size_t row = 0;
        for (size_t q = 0; q < cells.size(); ++q) {
            row += q > 0 && cells[q].row != cells[q - 1].row;
            of.push_back(base[row] + cells[q].dcost);
        }
        all.insert(all.end(), of.begin(), of.end());
        std::sort(all.begin(), all.end());
        for (size_t q = 0; q < all.size(); ++q) {
            if (q == 0 || all[q] - all[q - 1] > (equal ? 0 : all[q - 1] / kApart)) {
                first.push_back(all[q]);
                cost.push_back(all[q]);
            }
            cost.back() = first.back() + (all[q] - first.back()) / 2;
            narrow = narrow && all[q] - first.back() <= first.back() / kWidth;
        }
        narrow = narrow && !cells.empty() && cost.size() <= std::min(kMost, cells.size() / kShared);
        for (const int64_t c : base) of_none.push_back(level(c));
        for (const int64_t c : of) of_cell.push_back(level(c));
    }

    // That of a cost; what is less than all costs of cells counts as their lowest.
    int32_t level(int64_t c) const { return static_cast<int32_t>(std::upper_bound(first.begin() + 1, first.end(), c) - first.begin()) - 1; }
};

class Counts : private CountsPlan {
  public:
    // cases: begun; what is proved on the way.
    Counts(const std::vector<Cell>& cells, const CostLevels& levels, double slope, int64_t slack, double end, const Solver& solve, CountsCases& cases)
        : CountsPlan(cells, levels.of_cell, levels.of_none, static_cast<int32_t>(levels.cost.size()), slope, slack, end), cost_(levels.cost), solve_(solve), cases_(cases), end_(end) {}

    // Lower the gap of `best` (whose cells are numbers of the cells); complete when no plan is better by more than `within`. looks: at
    // so many options.
    void run(CoreResult& best, double within, int64_t looks) {
        std::priority_queue<Node> open;
        open.push({0.0, {}, 0});
        while (!open.empty() && open.top().bound < best.gap - within) {
            Node node = open.top();
            if (looked_ > looks || past(end_)) return;
            open.pop();
            bound(node.bounds, best.gap - within, best.gap);
            node.bound = value_;
            cases_.tell(node.part, value_, price_, of_level_);
            if (!(value_ < best.gap - within)) continue;
            improve(whole(node), best, value_ + within);
            if (!(value_ < best.gap - within) || branched(node, best.gap - value_, open)) continue;
            double before = kInfinity;
            bool shut = false;
            for (int again = 0; again < kAgain && !shut && best.gap < before; ++again) {
                before = best.gap;
                shut = finished(node, best, within);
            }
            if (!shut && node.bound < best.gap - within) return;   // it stays open, and no others make a proof
        }
        best.complete = true;
    }

  private:
    static constexpr int kAgain = 2, kRaised = 4;
    static constexpr size_t kFixed = 12;
    static constexpr double kWhole = 1e-7;
    static constexpr int64_t kUnlike = 16;

    struct Node {
        double bound;
        std::vector<Bounds> bounds;
        size_t part;   // of the cases
        bool operator<(const Node& other) const { return bound > other.bound; }
    };

    // The parts of a node of which a number of rows is split, or free where it is whole. False where all are fixed.
    bool branched(const Node& node, double gap, std::priority_queue<Node>& open) {
        size_t split = 0, most = 0;
        // A dear row in part leaves most open; in a part of a problem costs begin at 0, and tell nothing of that.
        const bool weighed = cost_.front() > 0 && cost_.back() > kUnlike * cost_.front();
        double off = 0.0;
        for (size_t l = 0; l < mean_.size(); ++l) {
            const double part = std::fabs(mean_[l] - std::rint(mean_[l])), open = part * (weighed ? static_cast<double>(cost_[l]) : 1.0);
            if (part > kWhole && open > off) {
                off = open;
                split = l + 1;
            }
            if (mean_[l] > mean_[most]) most = l;
        }
        const auto add = [&](size_t at, size_t level, int64_t low, int64_t high) {
            Node part = node;
            part.part = at;
            const auto same = std::find_if(part.bounds.begin(), part.bounds.end(), [&](const Bounds& b) { return b.level == static_cast<int32_t>(level); });
            Bounds& b = same != part.bounds.end() ? *same : part.bounds.emplace_back(Bounds{static_cast<int32_t>(level), 0, rows()});
            b.low = std::max(b.low, low);
            b.high = std::min(b.high, high);
            if (b.low <= b.high) open.push(std::move(part));
            else cases_.none(at);
        };
        if (split > 0) {
            const int64_t down = static_cast<int64_t>(std::floor(mean_[split - 1]));
            const size_t fewer = cases_.split(node.part, split - 1, down);
            add(fewer, split - 1, 0, down);
            add(fewer + 1, split - 1, down + 1, rows());
            return true;
        }
        const auto free = std::find_if(node.bounds.begin(), node.bounds.end(), [](const Bounds& b) { return b.low < b.high; });
        size_t level = most;
        if (free != node.bounds.end()) level = static_cast<size_t>(free->level);
        else if (!node.bounds.empty() && (node.bounds.size() == kFixed || !two_free(node, gap, level))) return false;
        const int64_t whole = std::llrint(mean_[level]);
        const size_t fewer = cases_.split(node.part, level, whole - 1), same = cases_.split(fewer + 1, level, whole);
        add(same, level, whole, whole);
        add(fewer, level, 0, whole - 1);
        add(same + 1, level, whole + 1, rows());
        return true;
    }

    // Whether some row may take options of two levels whose numbers are not fixed; level: that of them with fewer rows.
    bool two_free(const Node& node, double gap, size_t& level) const {
        std::vector<char> fixed(cost_.size(), 0);
        for (const Bounds& b : node.bounds) fixed[static_cast<size_t>(b.level)] = 1;
        for (size_t g = 0; g < at_.size(); ++g) {
            const double base = priced(option_[at_[g]]);
            size_t first = cost_.size();
            for (size_t o = start_[g]; o < start_[g + 1]; ++o) {
                const size_t own = this->level(o);
                if (fixed[own] || own == first || !(priced(option_[o]) - base < gap)) continue;
                if (first < cost_.size()) {
                    level = mean_[own] < mean_[first] ? own : first;
                    return true;
                }
                first = own;
            }
        }
        return false;
    }

    // What a level of fixed number costs more than others that its rows may take for less than a gap, as one row's costs tell, so that rests are multiples of what costs are
    // multiples of; implied: its number is what the others leave, where those of all levels of some rows are fixed.
    struct Shift {
        int64_t cost = 0;
        bool known = true, implied = false;
    };
    std::vector<Shift> shifts(const std::vector<Bounds>& fixed, double gap) const {
        std::vector<Shift> shift(cost_.size());
        for (const Bounds& b : fixed) shift[static_cast<size_t>(b.level)].known = false;
        for (size_t done = 0; done < fixed.size(); ++done) {
            bool found = false;
            for (size_t g = 0; g < at_.size() && !found; ++g) {
                size_t some = start_[g + 1], other = some;
                const double base = priced(option_[at_[g]]);
                for (size_t o = start_[g]; o < start_[g + 1]; ++o)
                    if (priced(option_[o]) - base < gap) (shift[level(o)].known ? some : other) = o;
                if (some == start_[g + 1] || other == start_[g + 1]) continue;
                found = true;
                shift[level(other)] = {option_[other].dcost - option_[some].dcost + shift[level(some)].cost, true, false};
            }
            for (const Bounds& b : fixed) {
                Shift& of = shift[static_cast<size_t>(b.level)];
                if (found || of.known) continue;
                of = {0, true, true};
                found = true;
            }
        }
        return shift;
    }

    // Whether no plan of these numbers is better than the best by more than `within`. A unit of a number costs more than all rests together can, and one
    // less is worth more than the gap; the price rises where it is too small for that.
    bool finished(const Node& node, CoreResult& best, double within) {
        for (int again = 0; again < kRaised; ++again) {
            double given = 0.0, size = 0.0;
            for (const Bounds& b : node.bounds) {
                const double worth = of_level_[static_cast<size_t>(b.level)] * static_cast<double>(b.low);
                given += worth;
                size += std::fabs(worth);
            }
            const double found = least(given, size);
            const double gap = best.gap - found;
            if (gap <= within) return true;
            const std::vector<Shift> shift = shifts(node.bounds, gap);
            const std::vector<int64_t> weight = weights(node.bounds, shift, gap);
            if (weight.empty()) return false;
            const auto rest = [&](size_t o) { return option_[o].dcost - shift[level(o)].cost; };
            const auto many = [&](size_t o) { return weight[level(o)]; };
            int64_t number = 0, room = slack_;
            for (const Bounds& b : node.bounds) {
                number += weight[static_cast<size_t>(b.level)] * b.low;
                room -= shift[static_cast<size_t>(b.level)].cost * b.low;
            }
            int64_t divisor = 0;   // of the rests' differences
            double steps = 2.0, low = 0.0, high = 0.0;
            std::vector<Halves::Option> options;
            for (size_t g = 0; g < at_.size(); ++g) {
                const size_t x = at_[g];
                const double base = priced(option_[x]);
                int64_t row = 0, down = 0, up = 0;
                number -= many(x);
                room -= rest(x);
                for (size_t o = start_[g]; o < start_[g + 1]; ++o) {
                    const double penalty = std::max(0.0, priced(option_[o]) - base);
                    if (o == x || !(penalty < gap)) continue;
                    row = std::max(row, std::abs(many(o) - many(x)));
                    down = std::min(down, rest(o) - rest(x));
                    up = std::max(up, rest(o) - rest(x));
                    divisor = std::gcd(divisor, rest(o) - rest(x));
                    options.push_back({0, penalty, static_cast<int64_t>(o), static_cast<int64_t>(g)});
                }
                steps += static_cast<double>(row);
                low += static_cast<double>(down);
                high += static_cast<double>(up);
            }
            steps += std::fabs(static_cast<double>(number));
            const double left = static_cast<double>(room), widest = 0x1p61 / steps, needed = std::max(1.0, std::max(high - left, left - low) * 1.01);
            if (!(needed + static_cast<double>(divisor) < widest / 4)) return false;
            const double wide = std::min(widest, needed + (price_ > 0 ? 2 * gap / price_ : kInfinity));
            if (price_ * (wide - needed) > 1.5 * gap) {
                if (!(0x1p-50 * steps * wide * price_ < within)) return false;
                divisor = std::max<int64_t>(1, divisor);
                const int64_t apart = (static_cast<int64_t>(wide) / divisor + 1) * divisor;
                for (Halves::Option& o : options) {
                    const size_t at = static_cast<size_t>(o.cell), x = at_[static_cast<size_t>(o.row)];
                    o.dcost = apart * (many(at) - many(x)) + rest(at) - rest(x);
                }
                return part(options, apart * number + room, gap, within, best, apart / 2);
            }
            const double raised = 3 * gap / wide;
            for (const Bounds& b : node.bounds) of_level_[static_cast<size_t>(b.level)] -= (raised - price_) * static_cast<double>(shift[static_cast<size_t>(b.level)].cost);
            price_ = raised;
        }
        return false;
    }

    // The numbers of a node, where they are whole: else none.
    std::vector<Bounds> whole(const Node& node) const {
        std::vector<Bounds> fixed = node.bounds;
        for (const double many : mean_)
            if (std::fabs(many - std::rint(many)) > kWhole) return {};
        for (Bounds& b : fixed) b.low = b.high = std::llrint(mean_[static_cast<size_t>(b.level)]);
        return fixed;
    }

    // A plan of these numbers, and a few options in the place of some of its own.
    void improve(const std::vector<Bounds>& fixed, CoreResult& best, double enough) {
        constexpr int64_t moved = 33;   // rows that change levels: a few moves
        if (fixed.empty()) return;
        const std::vector<size_t> at = planned(fixed);
        if (at.empty()) return;
        take(at, best);
        if (best.gap <= enough) return;
        const std::vector<Shift> shift = shifts(fixed, best.gap - value_);
        std::vector<int64_t> weight(cost_.size(), 0);
        int64_t next = 1, room = slack_, widest = 1;
        for (const Bounds& b : fixed) {
            if (shift[static_cast<size_t>(b.level)].implied) continue;
            weight[static_cast<size_t>(b.level)] = next;
            if (next > (int64_t{1} << 20)) return;
            next *= moved;
        }
        const auto rest = [&](size_t o) { return option_[o].dcost - shift[level(o)].cost; };
        std::vector<Cell> cells, moves;
        double value = slope_ * static_cast<double>(slack_);
        for (size_t g = 0; g < at.size(); ++g) {
            value += option_[at[g]].penalty - slope_ * static_cast<double>(option_[at[g]].dcost);
            room -= option_[at[g]].dcost;
            for (size_t o = start_[g]; o < start_[g + 1]; ++o) {
                if (o == at[g]) continue;
                const double penalty = priced(option_[o]) - priced(option_[at[g]]);
                if (!(penalty < best.gap)) continue;
                widest = std::max(widest, std::abs(rest(o) - rest(at[g])));
                cells.push_back({static_cast<int64_t>(g), rest(o) - rest(at[g]), penalty, 0.0, static_cast<int>(o - start_[g])});
            }
        }
        // `value` is the plan's gap where it fits; what is left of the limit counts at the price.
        value -= price_ * static_cast<double>(room);
        const double wide = std::max(static_cast<double>(2 * moved * widest), 2 * (best.gap - value) / price_);
        if (!(wide < 0x1p60 / static_cast<double>(moved * next))) return;
        const int64_t apart = static_cast<int64_t>(wide);
        for (Cell& cell : cells) {
            const size_t g = static_cast<size_t>(cell.row);
            cell.dcost += apart * (weight[level(start_[g] + static_cast<size_t>(cell.format))] - weight[level(at[g])]);
        }
        double gap = best.gap - value;
        try {
            Closer(cells, price_, room, end_).run({}, moves, gap, enough - value);
        } catch (const Late&) {   // the next look at the clock ends the search as well
        }
        std::vector<size_t> better = at;
        for (const Cell& move : moves) better[static_cast<size_t>(move.row)] = start_[static_cast<size_t>(move.row)] + static_cast<size_t>(move.format);
        take(better, best);
    }

    bool part(std::vector<Halves::Option>& options, int64_t room, double gap, double within, CoreResult& best, int64_t finer) {
        options.erase(std::remove_if(options.begin(), options.end(), [](const Halves::Option& o) { return o.dcost == 0; }), options.end());
        const CoreResult found = solved_apart(options, price_, room, gap, within, solve_, finer);
        best.work += found.work;
        if (!(found.gap < gap)) return found.complete;
        std::vector<size_t> at = at_;
        for (const int64_t q : found.cells) at[static_cast<size_t>(options[static_cast<size_t>(q)].row)] = static_cast<size_t>(options[static_cast<size_t>(q)].cell);
        return (take(at, best) || found.gap > gap - within) && found.complete;   // as good as the best one, but for the sums' rounding
    }

    // Numbers of which no sum of as many as rows may change levels is zero, but for none: so one number stands for those of all levels. Empty
    // where they are too large.
    std::vector<int64_t> weights(const std::vector<Bounds>& fixed, const std::vector<Shift>& shift, double gap) const {
        std::vector<int64_t> in(cost_.size(), 0), out(cost_.size(), 0), weight(cost_.size(), 0);
        for (size_t g = 0; g < at_.size(); ++g) {
            const size_t own = level(at_[g]);
            const double base = priced(option_[at_[g]]);
            std::vector<size_t> others;
            for (size_t o = start_[g]; o < start_[g + 1]; ++o) {
                const size_t level = this->level(o);
                if (level != own && priced(option_[o]) - base < gap && std::find(others.begin(), others.end(), level) == others.end()) others.push_back(level);
            }
            for (const size_t level : others) ++in[level];
            out[own] += !others.empty();
        }
        int64_t next = 1;
        for (const Bounds& b : fixed) {
            const size_t level = static_cast<size_t>(b.level);
            if (shift[level].implied) continue;
            int64_t held = 0;
            for (size_t g = 0; g < at_.size(); ++g) held += option_[at_[g]].level == b.level;
            weight[level] = next;
            const int64_t most = std::max({in[level], out[level], std::abs(held - b.low)}) + std::abs(held - b.low) + 1;
            if (next > (int64_t{1} << 50) / most) return {};
            next *= most;
        }
        return weight;
    }

    // True where the plan is better than the best one.
    bool take(const std::vector<size_t>& at, CoreResult& best) const {
        return take_better(at, option_, [&](size_t o) { return option_[o].dcost; }, slope_, slack_, best);
    }

    const std::vector<int64_t>& cost_;
    const Solver& solve_;
    CountsCases& cases_;
    double end_;
};

// By numbers of rows at each level of cost, of the rows of a table whose plan is `choice`. Complete when no plan is better than the gap that is found by
// more than `enough`. equal: levels are equal costs. looks: at options. cases: what is proved
// about all plans, where it is better.
inline CoreResult by_numbers(const Table& table, const uint8_t* choice, const std::vector<Cell>& cells, double slope, int64_t slack, double gap, double enough, double end,
                             bool equal, int64_t looks, const Solver& solve, CountsCases& cases) {
    CoreResult found{gap, false, 0, 0, {}};
    std::vector<int64_t> base;   // cost of each row in the plan
    double l[kMaxFormats];
    int64_t c[kMaxFormats];
    for (size_t q = 0; q < cells.size(); ++q) {
        if (q > 0 && cells[q].row == cells[q - 1].row) continue;
        table.row(cells[q].row, l, c);
        base.push_back(c[choice[cells[q].row]]);
    }
    const CostLevels levels(cells, base, equal);
    if (!levels.narrow || !(slope > 0)) return found;
    std::vector<int64_t> others(levels.cost.size(), 0);
    std::vector<char> held(static_cast<size_t>(table.n), 0);
    for (const Cell& cell : cells) held[static_cast<size_t>(cell.row)] = 1;
    for (int64_t i = 0; i < table.n; ++i)
        if (!held[static_cast<size_t>(i)]) ++others[static_cast<size_t>(levels.level(table.cost_at(i, choice[i])))];
    CountsCases told;
    told.begin({levels.first.begin() + 1, levels.first.end()}, std::move(others), slope);
    try {
        Counts(cells, levels, slope, slack, end, solve, told).run(found, enough, looks);
    } catch (const Late&) {   // what was found stays
    }
    if (told.least() > cases.least()) cases = std::move(told);
    return found;
}

}  // namespace bitwright
