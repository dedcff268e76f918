// A first plan where slopes are equal or nearly so: the limit is filled by rows of falling size.
//
// No bound tells one state from another there, so a beam that keeps those of least bound keeps no better ones. States are
// spread over what can still be brought to the limit instead (Balas and Zemel 1980 fill a core likewise): one in each of
// equal stretches of cost, that of least penalty. As the rows become smaller the stretches do, down to single totals.
#pragma once

#include "closer.hpp"

namespace bitwright {

// Cells of one row, and the most that they add to the cost and take from it.
struct CellRow {
    size_t begin, end;
    int64_t up = 0, down = 0;
    int64_t span() const { return std::max(up, down); }
};

inline std::vector<CellRow> rows_of(const std::vector<Cell>& cells) {
    std::vector<CellRow> rows;
    for (size_t q = 0; q < cells.size(); ++q) {
        if (q == 0 || cells[q].row != cells[q - 1].row) rows.push_back({q, q});
        CellRow& row = rows.back();
        row.end = q + 1;
        row.up = std::max(row.up, cells[q].dcost);
        row.down = std::max(row.down, -cells[q].dcost);
    }
    return rows;
}

class Beam {
  public:
    // cells: those of one row together.
    Beam(const std::vector<Cell>& cells, double slope, int64_t slack) : cells_(cells), rows_(rows_of(cells)), slope_(slope), slack_(slack) {
        std::stable_sort(rows_.begin(), rows_.end(), [](const CellRow& a, const CellRow& b) { return a.span() > b.span(); });
    }

    // Lower the gap of `best` (whose cells are numbers of `cells`) to `enough`, or as far as it goes, in about `work` steps. balanced:
    // the cost on the way stays within a few rows of the limit, so stretches are narrower.
    void run(CoreResult& best, double enough, int64_t work, bool balanced, double end) {
        const int64_t count = static_cast<int64_t>(rows_.size());
        const int64_t most = std::clamp<int64_t>(work / std::max<int64_t>(1, static_cast<int64_t>(cells_.size())), 64, kStates);
        int64_t up = 0, down = 0;   // of the rows ahead
        for (const CellRow& row : rows_) {
            up += row.up;
            down += row.down;
        }
        states_.assign(1, {0, 0.0, -1, -1});
        parent_.clear();
        cell_.clear();
        for (int64_t t = 0; t < count && !states_.empty(); ++t) {
            const CellRow& row = rows_[static_cast<size_t>(t)];
            up -= row.up;
            down -= row.down;
            const double ahead = t + 1 < count ? static_cast<double>(rows_[static_cast<size_t>(t) + 1].span()) : 0.0;
            const double reach = balanced ? kBalance * ahead * std::sqrt(static_cast<double>(count - t)) : kInfinity;
            const double worth = slope_ > 0 ? best.gap / slope_ : kInfinity;
            const double low = static_cast<double>(slack_) - worth - std::min(static_cast<double>(up), reach);
            const double high = static_cast<double>(slack_) + std::min(static_cast<double>(down), reach);
            spread(row, low, high, most, best);
            if (best.gap <= enough || past(end)) break;
        }
        if (last_cell_ < 0) return;
        best.cells.assign(1, last_cell_);
        for (int64_t node = last_parent_; node >= 0; node = parent_[static_cast<size_t>(node)]) best.cells.push_back(cell_[static_cast<size_t>(node)]);
        last_cell_ = -1;
    }

  private:
    static constexpr int64_t kStates = 1 << 13, kTakes = 40;   // the latter: of the purse, what a state takes
    static constexpr double kBalance = 2;

    struct State {
        int64_t cost;
        double value;
        int32_t node, cell;   // the node it comes from; the cell that is taken, or -1
    };

    // The states after one more row: in each of `most` stretches from low to high that of least penalty.
    void spread(const CellRow& row, double low, double high, int64_t most, CoreResult& best) {
        const double per = static_cast<double>(most) / (high - low + 1);
        next_.assign(static_cast<size_t>(most), {0, kInfinity, -1, -1});
        for (size_t q = row.begin; q <= row.end; ++q) {
            const bool none = q == row.end;
            const int64_t dcost = none ? 0 : cells_[q].dcost;
            const double penalty = none ? 0.0 : cells_[q].penalty;
            const int32_t cell = none ? -1 : static_cast<int32_t>(q);
            for (const State& s : states_) {
                const State n{s.cost + dcost, s.value + penalty, s.node, cell};
                const double cost = static_cast<double>(n.cost);
                if (!(n.value < best.gap) || !(cost >= low && cost <= high)) continue;
                State& held = next_[static_cast<size_t>(std::min<int64_t>(most - 1, static_cast<int64_t>((cost - low) * per)))];
                if (n.value < held.value) held = n;
                if (none || n.cost > slack_) continue;
                const double gap = n.value + slope_ * static_cast<double>(slack_ - n.cost);
                if (!(gap < best.gap)) continue;
                best.gap = gap;
                last_cell_ = cell;
                last_parent_ = s.node;
            }
        }
        best.work += static_cast<int64_t>(states_.size() * (row.end - row.begin + 1));
        spend(static_cast<int64_t>(states_.size() * (row.end - row.begin + 1)) + most, kTakes);
        states_.clear();
        for (State n : next_) {
            if (!(n.value < best.gap)) continue;
            if (n.cell >= 0) {
                parent_.push_back(n.node);
                cell_.push_back(n.cell);
                n.node = static_cast<int32_t>(parent_.size()) - 1;
            }
            states_.push_back(n);
        }
        best.states = std::max(best.states, static_cast<int64_t>(states_.size()));
    }

    const std::vector<Cell>& cells_;
    std::vector<CellRow> rows_;
    double slope_;
    int64_t slack_;
    std::vector<State> states_, next_;
    std::vector<int32_t> parent_, cell_;
    int64_t last_cell_ = -1, last_parent_ = -1;
};

}  // namespace bitwright
