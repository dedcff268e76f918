// The core of a knapsack whose costs have a large common divisor, but for those of some cells.
//
// Once it is settled which of these odd cells are taken, what is left of the limit beyond a multiple of the divisor is of no use to
// the others: a bound that the relaxation does not see (Gomory's group relaxation, 1969). Sets of odd cells come by rising
// bound, each with a search of the other rows, until the next bound is no better than the plan in hand.
#pragma once

#include "branch.hpp"
#include "classes.hpp"
#include "meet.hpp"

namespace bitwright {

class Residues {
  public:
    // merged: of all sets of one residue the one of least penalty alone, where there are too many sets. soon: the other rows are searched only by what takes
    // little, a table of totals where their costs are few.
    struct Manner {
        bool merged, soon;
    };

    // cells: those of one row together; gap: that of the plan in hand.
    Residues(const std::vector<Cell>& cells, double slope, int64_t slack, double gap, const Manner& manner, double end)
        : cells_(cells), rows_(rows_of(cells)), slope_(slope), slack_(slack), merged_(manner.merged), soon_(manner.soon) {
        std::vector<int64_t> tried;
        for (const double most : {kInfinity, kFree * gap})
            for (size_t q = 0; q < kTried && !cells.empty(); ++q) tried.push_back(divisor_from(cells.size() * q / kTried, most));
        std::sort(tried.rbegin(), tried.rend());
        tried.erase(std::unique(tried.begin(), tried.end()), tried.end());
        Sets best;
        int64_t made = 0;
        for (const int64_t divisor : tried) {
            if (made > 4 * kMade || past(end)) break;
            if (!(slope * static_cast<double>(divisor) * kWorth > gap) || !listed(divisor, gap, made)) continue;
            if (best.ways.empty() || sets_.ways[0].bound > best.ways[0].bound) std::swap(best, sets_);
        }
        sets_ = std::move(best);
    }

    bool any() const { return sets_.ways.size() > 1; }

    // The least gap, below that of `best` (whose cells are numbers of `cells`): complete when no plan is better by more than `within`.
    void run(CoreResult& best, double within, int64_t work, double end) const {
        best.complete = false;
        double left = kInfinity;   // least bound of what was not settled
        int64_t searched = 0;
        for (const Way& way : sets_.ways) {
            if (!(std::min(left, way.bound) < best.gap - within)) {
                best.complete = true;
                return;
            }
            if (best.work > work || past(end) || (merged_ && searched++ == kSearched)) return;
            CoreResult found{best.gap - way.bound, false, 0, 0, {}};
            const double before = found.gap;
            const std::vector<int64_t> odd = taken(way);
            const bool closed = search(way.room, odd, found, within, work, end);
            best.work += found.work + 1;
            best.states = std::max(best.states, found.states);
            if (found.gap < before) {
                best.gap = way.bound + found.gap;
                best.cells = odd;
                best.cells.insert(best.cells.end(), found.cells.begin(), found.cells.end());
            }
            // Another set of this residue may do better than the one of least penalty.
            if (!closed || (merged_ && found.gap > within)) left = std::min(left, way.bound);
            if (!closed && !merged_) return;
        }
        best.complete = !merged_;
    }

  private:
    static constexpr size_t kTried = 16, kLooked = 1 << 13;   // the latter: cells that a divisor is found from
    static constexpr double kFree = 1e-6, kAll = 1 << 12;   // sets of odd cells that are all told apart
    static constexpr int64_t kDrop = 64;                    // a cell that leaves less than this part of a divisor is odd
    static constexpr double kWorth = 1 << 14;               // a divisor worth less than this part of the gap tells nothing
    static constexpr size_t kMerged = 1 << 14;
    static constexpr int64_t kMade = 1 << 19, kTakes = 400;   // the latter: of the purse, what a set takes
    static constexpr int64_t kSearched = 8, kTotals = 1 << 12, kBeam = 1 << 20, kLists = 1 << 20, kChoices = 1 << 20, kStates = 1 << 14;

    // The divisor of most cells of at most this penalty, from one of them on.
    int64_t divisor_from(size_t from, double most) const {
        int64_t divisor = 0;
        const size_t every = 1 + cells_.size() / kLooked;
        for (size_t q = 0; q < cells_.size(); q += every) {
            const Cell& cell = cells_[(from + q) % cells_.size()];
            if (cell.penalty > most) continue;
            const int64_t both = std::gcd(divisor, cell.dcost);
            if (both > divisor / kDrop) divisor = both;
        }
        return divisor;
    }

    // A set of odd cells (each way leads to the one before: -1 none): what they cost of the gap, the part of it that is then certain, and
    // what is left of the limit for the others.
    struct Way {
        double value, bound;
        int64_t room, residue;
        int32_t node;
    };

    struct Node {
        int32_t before;
        int64_t cell;
    };

    // By rising bound.
    struct Sets {
        int64_t divisor = 0;
        std::vector<Way> ways;
        std::vector<Node> node;
    };

    // The sets of odd cells; made: those looked at. False where there are too many.
    bool listed(int64_t divisor, double gap, int64_t& made) {
        double all = 1.0;
        std::vector<std::vector<int64_t>> odd;
        for (const CellRow& row : rows_) {
            bool any = false;
            for (size_t q = row.begin; q < row.end; ++q) {
                if (cells_[q].dcost % divisor == 0) continue;
                if (!any) odd.emplace_back();
                any = true;
                odd.back().push_back(static_cast<int64_t>(q));
            }
            if (!any) continue;
            all *= static_cast<double>(odd.back().size() + 1);
            if (!merged_ && all > kAll) return false;
        }
        if (all == 1.0 || (merged_ && all <= kAll)) return false;
        std::vector<Way>& ways = sets_.ways;
        std::vector<Node>& node = sets_.node;
        sets_.divisor = divisor;
        ways.assign(1, {0.0, 0.0, slack_, 0, -1});
        node.clear();
        const int64_t most = made + kMade;
        std::vector<Way> spare;
        for (const std::vector<int64_t>& options : odd) {
            const size_t count = ways.size();
            for (const int64_t q : options) {
                const Cell& cell = cells_[static_cast<size_t>(q)];
                const int64_t residue = (cell.dcost % divisor + divisor) % divisor;
                const size_t begin = ways.size();
                size_t wrapped = begin;   // where residues begin anew
                for (size_t w = 0; w < count; ++w) {
                    Way way = ways[w];
                    way.value += cell.penalty;
                    if (!(way.value < gap)) continue;
                    way.room -= cell.dcost;
                    if (way.residue >= divisor - residue) way.residue -= divisor - residue;
                    else {
                        way.residue += residue;
                        wrapped = ways.size() + 1;
                    }
                    node.push_back({way.node, q});
                    way.node = static_cast<int32_t>(node.size()) - 1;
                    ways.push_back(way);
                }
                if (merged_) join(ways, count, begin, wrapped);
            }
            made += static_cast<int64_t>(count * options.size());
            spend(static_cast<int64_t>(count * options.size()), kTakes);
            if (merged_ && ways.size() > count) merge(ways, count, spare);
            if (merged_ && (ways.size() > kMerged || made > most)) return false;
        }
        for (Way& way : ways) {
            const int64_t rest = (way.room % divisor + divisor) % divisor;
            way.room -= rest;
            way.bound = way.value + slope_ * static_cast<double>(rest);
        }
        std::stable_sort(ways.begin(), ways.end(), [](const Way& a, const Way& b) { return a.bound < b.bound; });
        return true;
    }

    static bool before(const Way& a, const Way& b) { return a.residue != b.residue ? a.residue < b.residue : a.value < b.value; }

    // The ways of one more cell, from `begin` on, are those of before, whose residues rise, turned round: they join
    // the others of its row, which lie from `first` on.
    static void join(std::vector<Way>& ways, size_t first, size_t begin, size_t wrapped) {
        const auto at = [&](size_t q) { return ways.begin() + static_cast<std::ptrdiff_t>(q); };
        std::rotate(at(begin), at(wrapped), ways.end());
        std::inplace_merge(at(first), at(begin), ways.end(), before);
    }

    // Of equal residues the one of least penalty. all: room for them.
    static void merge(std::vector<Way>& ways, size_t sorted, std::vector<Way>& all) {
        all.clear();
        auto one = ways.cbegin(), other = one + static_cast<std::ptrdiff_t>(sorted);
        const auto middle = other, end = ways.cend();
        while (one != middle || other != end) {
            const Way& next = other == end || (one != middle && !before(*other, *one)) ? *one++ : *other++;
            if (all.empty() || all.back().residue != next.residue) all.push_back(next);
        }
        ways.swap(all);
    }

    std::vector<int64_t> taken(const Way& way) const {
        std::vector<int64_t> cells;
        for (int32_t at = way.node; at >= 0; at = sets_.node[static_cast<size_t>(at)].before) cells.push_back(sets_.node[static_cast<size_t>(at)].cell);
        return cells;
    }

    // The cells that are not odd, of rows without a cell of `odd`; best.cells become numbers of all cells. True when no plan of theirs is
    // better by more than `within`.
    bool search(int64_t room, const std::vector<int64_t>& odd, CoreResult& found, double within, int64_t work, double end) const {
        std::vector<Cell> even;
        std::vector<int64_t> number;
        std::vector<char> fixed(cells_.size(), 0);
        for (const int64_t q : odd) fixed[static_cast<size_t>(q)] = 1;
        for (const CellRow& row : rows_) {
            if (std::find(fixed.begin() + static_cast<std::ptrdiff_t>(row.begin), fixed.begin() + static_cast<std::ptrdiff_t>(row.end), 1) != fixed.begin() + static_cast<std::ptrdiff_t>(row.end)) continue;
            for (size_t q = row.begin; q < row.end; ++q) {
                if (cells_[q].dcost % sets_.divisor != 0 || !(cells_[q].penalty < found.gap)) continue;
                even.push_back(cells_[q]);
                number.push_back(static_cast<int64_t>(q));
            }
        }
        const bool closed = searched(even, room, found, within, work, end);
        for (int64_t& q : found.cells) q = number[static_cast<size_t>(q)];
        return closed;
    }

    bool searched(const std::vector<Cell>& even, int64_t room, CoreResult& found, double within, int64_t work, double end) const {
        if (room >= 0 && slope_ * static_cast<double>(room) < found.gap) found.gap = slope_ * static_cast<double>(room);   // none of them
        if (found.gap <= within) return true;
        if (std::abs(room) / sets_.divisor <= kTotals && Totals::serves(even, room, sets_.divisor)) {
            const CoreResult few = by_each_cost(even, slope_, room, sets_.divisor, found.gap, within, end);
            if (keep(few, found, within)) return true;
        }
        Beam(even, slope_, room).run(found, within, kBeam, false, end);
        if (found.gap <= within || soon_) return found.gap <= within;
        for (const bool by_size : {false, true}) {
            Meet(even, slope_, room, by_size).run(found, kLists / 8, kLists, end);
            if (found.complete || found.gap <= within) return true;
        }
        int64_t all;
        const Rated core = by_rate(even, std::numeric_limits<int64_t>::max(), all, kInfinity);
        CoreResult next = CoreSearch(core.table(), slope_, room, found.gap, {kStates, kLists, within, std::max(0.0, end - now()), true}).run();
        core.back(next.cells);
        if (!keep(next, found, within) && !merged_)
            keep(Branch(even, slope_, room, found.gap, {0, work / 4, within / 8, std::max(0.0, end - now())}, {kChoices, within, false}).run(), found, within);
        return found.complete || found.gap <= within;
    }

    // What one more search has found, in `found`. True when no more is to be looked for.
    static bool keep(const CoreResult& next, CoreResult& found, double within) {
        if (next.gap < found.gap) found.cells = next.cells;
        found.gap = std::min(found.gap, next.gap);
        found.work += next.work;
        found.states = std::max(found.states, next.states);
        found.complete = next.complete;
        return found.complete || found.gap <= within;
    }

    const std::vector<Cell>& cells_;
    std::vector<CellRow> rows_;
    double slope_;
    int64_t slack_;
    bool merged_, soon_;
    Sets sets_;
};

// By sets that are all told apart. Complete when no plan is better than the gap that is found by more than `enough`. Of long tables: by what takes little.
inline CoreResult told_apart(const std::vector<Cell>& cells, double slope, int64_t slack, double gap, double enough, double end) {
    constexpr int64_t work = 1 << 20;
    CoreResult found{gap, false, 0, 0, {}};
    const Residues residues(cells, slope, slack, gap, {false, true}, end);
    if (residues.any()) residues.run(found, enough, work, end);
    return found;
}

// By both kinds of sets. Complete when no plan is better than the gap that is found by more than `enough`.
inline CoreResult residual(const std::vector<Cell>& cells, double slope, int64_t slack, double gap, double enough, double end) {
    constexpr int64_t work = 1 << 22;
    CoreResult found{gap, false, 0, 0, {}};
    for (const bool merged : {false, true}) {
        const Residues residues(cells, slope, slack, found.gap, {merged, false}, end);
        if (residues.any()) residues.run(found, enough, found.work + work, end);
        if (found.complete || found.gap <= enough) break;
    }
    return found;
}

}  // namespace bitwright
