// A first plan beyond the relaxation's: what is left of the limit is filled by the steepest deviations that fit.
//
// Where a few units are much larger than the rest, the relaxation stops at one of them and leaves room for hundreds of
// small ones. So it is filled; and again with each of the first deviations that did not fit forced in, others undone for
// it, the cheapest for what they save first.
#pragma once

#include "closer.hpp"

namespace bitwright {

class Filler {
  public:
    // cells: those of one row together. Throws Late past `end`.
    Filler(const std::vector<Cell>& cells, double slope, int64_t slack, double end) : cells_(cells), slope_(slope), slack_(slack), end_(end) {
        Watch watch(end);
        for (size_t q = 0; q < cells.size(); ++q) {
            watch.step();
            if (q > 0 && cells[q].row != cells[q - 1].row) ++groups_;
            group_.push_back(groups_);
            if (cells[q].dcost > 0 && cells[q].dloss < 0) up_.push_back(q);
            if (cells[q].dcost < 0) down_.push_back(q);
        }
        std::vector<double> rate(cells.size());   // a division for each comparison would be most of the time
        for (size_t q = 0; q < cells.size(); ++q)
            rate[q] = (cells[q].dcost > 0 ? cells[q].dloss : cells[q].penalty) / std::fabs(static_cast<double>(cells[q].dcost));
        const auto first = [&](size_t a, size_t b) { return rate[a] < rate[b]; };
        for (std::vector<size_t>* side : {&up_, &down_})
            watched(watch, side->size(), first, [&](auto less) { std::stable_sort(side->begin(), side->end(), less); });
    }

    // Lower `gap` (that of `moves`) where a filled plan is better. Throws Late past the end; gap and moves stay a pair.
    void run(std::vector<Cell>& moves, double& gap) const {
        std::vector<size_t> tried;
        State first = empty();
        fill(first, &tried);
        keep(first, moves, gap);
        for (const size_t forced : tried) {
            State s = empty();
            put(s, forced);
            for (const size_t q : down_) {
                if (s.room >= 0) break;
                if (s.at[group_[q]] < 0) put(s, q);
            }
            if (s.room < 0) continue;
            fill(s, nullptr);
            keep(s, moves, gap);
        }
    }

  private:
    static constexpr size_t kForced = 8;

    struct State {
        int64_t room;
        std::vector<int64_t> at;   // the cell of each row, or -1
    };

    State empty() const { return {slack_, std::vector<int64_t>(static_cast<size_t>(groups_) + 1, -1)}; }

    int64_t cost(int64_t q) const { return q < 0 ? 0 : cells_[static_cast<size_t>(q)].dcost; }
    double loss(int64_t q) const { return q < 0 ? 0.0 : cells_[static_cast<size_t>(q)].dloss; }

    void put(State& s, size_t q) const {
        int64_t& at = s.at[group_[q]];
        s.room -= cells_[q].dcost - cost(at);
        at = static_cast<int64_t>(q);
    }

    void fill(State& s, std::vector<size_t>* tried) const {
        Watch watch(end_);
        for (const size_t q : up_) {
            watch.step();
            const int64_t at = s.at[group_[q]];
            if (!(cells_[q].dloss < loss(at))) continue;
            if (cells_[q].dcost - cost(at) <= s.room) put(s, q);
            else if (tried != nullptr && tried->size() < kForced) tried->push_back(q);
        }
    }

    void keep(const State& s, std::vector<Cell>& moves, double& gap) const {
        double value = slope_ * static_cast<double>(s.room);
        for (const int64_t q : s.at) value += q < 0 ? 0.0 : cells_[static_cast<size_t>(q)].penalty;
        if (!(value < gap)) return;
        gap = value;
        moves.clear();
        for (const int64_t q : s.at)
            if (q >= 0) moves.push_back(cells_[static_cast<size_t>(q)]);
    }

    const std::vector<Cell>& cells_;
    double slope_;
    int64_t slack_;
    double end_;
    size_t groups_ = 0;
    std::vector<size_t> group_, up_, down_;
};

// A few cells in the place of `moves`, also with one of the critical row; or those that fill the limit, and a few on top of them. gap and moves stay a pair.
inline void combined(const std::vector<Cell>& cells, const std::vector<Cell>& critical, double slope, int64_t slack, std::vector<Cell>& moves, double& gap, double enough, double end) {
    const Closer closer(cells, slope, slack, end);
    std::vector<Cell> filled = moves;
    double least = gap;
    closer.run(critical, moves, gap, enough);
    if (gap <= enough) return;
    try {
        Filler(cells, slope, slack, end).run(filled, least);
        closer.polish(filled, least, enough);
    } catch (const Late&) {   // the next look at the clock ends the search as well
    }
    if (!(least < gap)) return;
    gap = least;
    moves = std::move(filled);
}

}  // namespace bitwright
