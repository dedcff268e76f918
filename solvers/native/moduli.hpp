// What is left of the limit by a modulus, where the formats of rows that outweigh the others are fixed (large.hpp): a bound, not a search.
//
// Costs of experts of one shape are few, and what formats on the hull differ by is their modulus: totals are as the other formats and the embedding leave them
// but for a multiple of it, and a rest of the limit that no plan uses costs its price (Gomory's group relaxation 1969). One table of the least penalty
// for each residue (Bellman 1957) tells the least of both together. Anyone can recompute it (bitwright/core/residues.py).
#pragma once

#include <map>
#include <numeric>

#include "counts_cases.hpp"
#include "large.hpp"

namespace bitwright {

class Moduli {
  public:
    // cells: those of one row together; choice: of all rows, what they deviate from.
    Moduli(const std::vector<Cell>& cells, const uint8_t* choice, double slope, int64_t slack, double end)
        : cells_(cells), choice_(choice), rows_(rows_of(cells)), slope_(slope), slack_(slack), large_(cells), watch_(end) {
        is_fixed_.assign(rows_.size(), 0);
        at_.assign(rows_.size(), kNone);
    }

    // Whether no plan is better than `gap` by more than `within`. cases: begun; what is proved. known: a bound of all plans; one that is no higher is of no use.
    bool run(double gap, double within, double known, CountsCases& cases) {
        std::vector<std::pair<int64_t, int64_t>> fixed;
        return visit(0, fixed, gap, within, known, cases) && !(cases.least() < gap - within);
    }

  private:
    static constexpr size_t kNone = std::numeric_limits<size_t>::max();
    static constexpr size_t kFixed = 2, kLeaves = 24, kTried = 4;   // large rows of a case; cases; moduli of a case that are tried
    static constexpr int kHalved = 64;
    static constexpr int64_t kWidth = 1 << 9, kWidest = 1 << 13;   // residues of a table: multiples of a modulus until they are so many
    static constexpr double kFree = 0.125, kAdditions = 0x1p27;    // of the gap, what two formats may cost that are on the hull; of all tables
    static constexpr double kChecked = 0xCp24, kCall = 1 << 10;    // additions that the checker makes, of the 2^28 that it allows; what it counts for a change
    static constexpr int64_t kTakes = 8;                           // of the purse, an addition

    // Cases from a part of the tree on. False where one of them is bounded by no more than is known.
    bool visit(size_t part, std::vector<std::pair<int64_t, int64_t>>& fixed, double gap, double within, double known, CountsCases& cases) {
        const double value = priced();
        cases.tell(part, value, price_, {0.0});
        if (!(value < gap - within)) return true;
        const int64_t row = fixed.size() < kFixed && large_.any() ? large_.next(fixed) : -1;
        if (row < 0) {
            if (++leaves_ > kLeaves) return false;
            return modular(part, value, gap, within, cases) > known;
        }
        const CellRow& own = rows_[static_cast<size_t>(row)];
        std::vector<std::pair<int, size_t>> options{{choice_[cells_[own.begin].row], kNone}};   // by format
        for (size_t q = own.begin; q < own.end; ++q) options.push_back({cells_[q].format, q});
        std::sort(options.begin(), options.end());
        is_fixed_[static_cast<size_t>(row)] = 1;
        for (size_t o = 0; o < options.size(); ++o) {
            size_t one = part;
            if (o + 1 < options.size()) {
                one = cases.split_unit(part, cells_[own.begin].row, options[o].first);
                part = one + 1;
            }
            at_[static_cast<size_t>(row)] = options[o].second;
            fixed.push_back({row, 0});
            const bool any = visit(one, fixed, gap, within, known, cases);
            fixed.pop_back();
            if (!any) return false;
        }
        is_fixed_[static_cast<size_t>(row)] = 0;
        return true;
    }

    int64_t cost(size_t q) const { return q == kNone ? 0 : cells_[q].dcost; }
    double priced(size_t q) const { return q == kNone ? 0.0 : cells_[q].penalty + (price_ - slope_) * static_cast<double>(cells_[q].dcost); }

    // The value at price_, less its rounding, of the best options, which it leaves in at_ (of equal value the cheapest); room_: what they leave of the slack.
    double value() {
        const double nu = price_ - slope_;
        long double sum = 0.0L;
        double most = std::fabs(nu * static_cast<double>(slack_));
        room_ = slack_;
        watch_.step(static_cast<int64_t>(cells_.size()));
        for (size_t g = 0; g < rows_.size(); ++g) {
            size_t& x = at_[g];
            double terms = 0.0;
            if (!is_fixed_[g]) x = kNone;
            for (size_t q = rows_[g].begin; q < rows_[g].end; ++q) {
                terms = std::max(terms, cells_[q].penalty + std::fabs(nu * static_cast<double>(cells_[q].dcost)));
                const double found = priced(q), held = priced(x);
                if (!is_fixed_[g] && (found < held || (found == held && cost(q) < cost(x)))) x = q;
            }
            sum += priced(x);
            most += terms;
            room_ -= cost(x);
        }
        return static_cast<double>(sum - static_cast<long double>(nu) * static_cast<long double>(slack_)) - 0x1p-50 * most;
    }

    // The highest value of a price: where the options pass the limit.
    double priced() {
        double low = 0.0, high = 2 * slope_;
        for (price_ = high; value(), room_ < 0 && high < 0x1p40 * slope_; price_ = high) high *= 2;
        for (int t = 0; t < kHalved; ++t) {
            price_ = low + (high - low) / 2;
            value();
            (room_ < 0 ? low : high) = price_;
        }
        price_ = high;
        return value();
    }

    // What plans of a case are bounded by at its price, with the best of some moduli.
    double modular(size_t part, double value, double gap, double within, CountsCases& cases) {
        const double below = gap - value;
        struct Move {
            double extra;
            int64_t cost;
            size_t row;
        };
        std::vector<Move> moves;
        std::map<int64_t, double> apart;   // what two formats of a row differ by: how free that is, in all rows
        int64_t step = 0;
        for (size_t g = 0; g < rows_.size(); ++g) {
            if (is_fixed_[g]) continue;
            const size_t begin = moves.size();
            const auto add = [&](size_t q) {
                const double extra = std::max(0.0, priced(q) - priced(at_[g]));
                if (cost(q) != cost(at_[g]) && extra < below) moves.push_back({extra, cost(q) - cost(at_[g]), g});
            };
            add(kNone);
            for (size_t q = rows_[g].begin; q < rows_[g].end; ++q) add(q);
            for (size_t m = begin; m < moves.size(); ++m) {
                step = std::gcd(step, moves[m].cost);
                for (size_t o = begin; o <= m; ++o) {   // the last one: with none
                    const double extra = moves[m].extra + (o < m ? moves[o].extra : 0.0);
                    const int64_t by = std::abs(moves[m].cost - (o < m ? moves[o].cost : 0));
                    if (by != 0 && extra < kFree * below) apart[by] += 1.0 - extra / (kFree * below);
                }
            }
        }
        spend(static_cast<int64_t>(moves.size()), kTakes << 6);
        std::vector<std::pair<double, int64_t>> tried;
        for (const auto& [by, weight] : apart) tried.push_back({-weight, by});
        std::sort(tried.begin(), tried.end());
        if (tried.size() > kTried) tried.resize(kTried);
        double best = value, checked = 0.0;
        std::vector<double> least, before;
        for (const auto& [weight, by] : tried) {
            const int64_t width = by / step * std::max<int64_t>(1, kWidth * step / by);
            const double more = static_cast<double>(moves.size()) * static_cast<double>(width);
            const double once = more + kCall * static_cast<double>(moves.size());   // by the checker
            if (width > kWidest || work_ + more > kAdditions || checked_ - checked + once > kChecked) continue;
            work_ += more;
            spend(static_cast<int64_t>(moves.size()) * width, kTakes);
            watch_.look();
            least.assign(static_cast<size_t>(width), kInfinity);
            least[0] = 0.0;
            for (size_t m = 0; m < moves.size(); ++m) {
                if (m == 0 || moves[m].row != moves[m - 1].row) before = least;
                const size_t moved = static_cast<size_t>((moves[m].cost / step % width + width) % width);
                lower(before.data(), moves[m].extra, least.data() + moved, least.size() - moved);
                lower(before.data() + (least.size() - moved), moves[m].extra, least.data(), moved);
            }
            const int64_t over = room_ % step + (room_ % step < 0 ? step : 0), whole = (room_ - over) / step;
            double found = below;
            for (int64_t r = 0; r < width; ++r) {
                const int64_t left = ((whole - r) % width + width) % width;
                found = std::min(found, least[static_cast<size_t>(r)] + price_ * static_cast<double>(left * step + over));
            }
            found *= 1.0 - static_cast<double>(rows_.size() + 8) * 0x1p-52;
            if (!(value + found > best)) continue;
            best = value + found;
            checked_ += once - checked;
            checked = once;
            cases.tell(part, best, price_, {0.0}, width * step, static_cast<double>(moves.size()));
            if (!(best < gap - within)) break;
        }
        return best;
    }

    static void lower(const double* from, double extra, double* to, size_t count) {
        for (size_t r = 0; r < count; ++r) to[r] = std::min(to[r], from[r] + extra);
    }

    const std::vector<Cell>& cells_;
    const uint8_t* choice_;
    std::vector<CellRow> rows_;
    double slope_, price_ = 0.0, work_ = 0.0, checked_ = 0.0;
    int64_t slack_, room_ = 0;
    Large large_;
    Watch watch_;
    std::vector<char> is_fixed_;
    std::vector<size_t> at_;   // of each row, its cell
    size_t leaves_ = 0;
};

// By moduli. Complete when no plan is better than the gap in hand by more than `enough`; cases: what is proved about all plans, where it is better.
inline CoreResult by_moduli(const std::vector<Cell>& cells, const uint8_t* choice, double slope, int64_t slack, double gap, double enough, double end, CountsCases& cases) {
    constexpr int64_t kChecked = 30'000;   // of the purse, what the checker takes for a cell
    CoreResult found{gap, false, 0, 0, {}};
    if (!(slope > 0) || cells.empty()) return found;
    CountsCases told;
    told.begin({}, {0}, slope);
    try {
        found.complete = Moduli(cells, choice, slope, slack, end).run(gap, enough, cases.least(), told);
    } catch (const Late&) {   // what was proved stays
    }
    if (!found.complete) spend(static_cast<int64_t>(told.moved()), kChecked);
    if (told.least() > cases.least()) cases = std::move(told);
    return found;
}

}  // namespace bitwright
