// What other formats than a plan's would add to its cost and its gap: the cells that a search looks at.
#pragma once

#include "answer.hpp"
#include "closer.hpp"
#include "rounds.hpp"

namespace bitwright {

// A row that takes another format than in a first plan.
struct Change {
    int64_t row;
    uint8_t format;
};

// cut: there were more cells than are listed.
struct Sample {
    std::vector<Cell> cells, critical;
    bool cut = false;
};

// The bracket of multipliers wide enough for a gap: a row that has one best format in all of it loses more than the gap by any other.
inline Bracket of_use(const Table& t, double slope, double gap) {
    const double reach = gap / std::max(least_step(t), 1e-300);
    Bracket b{std::max(0.0, slope - reach), slope + reach};
    widen(b, false, {0.0, INFINITY});
    return b;
}

// Of the rows of a table, which are numbers `ids` (null: all, in their order) of those that `choice` is of.
struct Deviations {
    static constexpr int64_t kMostCells = 1 << 24;   // 640 MiB: no longer lists are made

    Table table;
    const uint32_t* ids = nullptr;
    const uint8_t* choice = nullptr;

    int64_t number(int64_t i) const { return ids != nullptr ? ids[i] : i; }

    // Deviations of row i with penalty below `gap` at a multiplier; returns their least penalty per unit of cost.
    double cells_of(int64_t i, double slope, double gap, std::vector<Cell>& out) const {
        double l[kMaxFormats];
        int64_t c[kMaxFormats];
        table.row(i, l, c);
        const int x = choice[number(i)];
        double least = kInfinity;
        for (int j = 0; j < table.k; ++j) {
            if (j == x || c[j] == c[x] || std::isinf(l[j])) continue;
            const int64_t dcost = c[j] - c[x];
            const double penalty = std::max(0.0, (l[j] - l[x]) + slope * static_cast<double>(dcost));
            if (!(penalty < gap)) continue;
            out.push_back({number(i), dcost, penalty, l[j] - l[x], j});
            least = std::min(least, penalty / std::fabs(static_cast<double>(dcost)));
        }
        return least;
    }

    // Those of every `every`-th row and of the critical row: that of least penalty per unit of cost. Throws Late past `end`.
    Sample sampled(int64_t every, double slope, double gap, double end) const {
        Sample out;
        std::vector<Cell> row;
        double least = kInfinity;
        int64_t critical = 0;
        Watch watch(end);
        if (every == 1) make_room(out.cells, table.n, [&](int64_t i) { cells_of(i, slope, gap, out.cells); });
        for (int64_t i = 0; i < table.n && !out.cut; ++i) {
            watch.step(table.k);
            row.clear();
            const double rate = cells_of(i, slope, gap, row);
            if (i % every == 0) out.cells.insert(out.cells.end(), row.begin(), row.end());
            out.cut = static_cast<int64_t>(out.cells.size()) > kMostCells;
            if (!(rate < least)) continue;
            least = rate;
            critical = i;
            out.critical = row;
        }
        if (critical % every != 0) out.cells.insert(out.cells.end(), out.critical.begin(), out.critical.end());
        return out;
    }
};

}  // namespace bitwright
