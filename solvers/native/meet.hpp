// The core of a knapsack by two lists of totals, from both ends of its rows (Horowitz and Sahni 1974, with dominance).
//
// Halves (halves.hpp) list choices; here equal totals are one state, and one that costs and loses no less than another is
// none. So rows that are alike are few states, however many they are, when they stand together; and rows whose costs have
// a large common divisor are, when the others come into the other list.
#pragma once

#include "beam.hpp"

namespace bitwright {

class Meet {
  public:
    // cells: those of one row together. by_size: not rows that are alike, but the largest together, after those that move the cost
    // the way that few rows can: for a plan where a proof is out of reach.
    Meet(const std::vector<Cell>& cells, double slope, int64_t slack, bool by_size) : cells_(cells), rows_(rows_of(cells)), slope_(slope), slack_(slack) {
        struct Key { int64_t divisor; std::vector<int64_t> costs; CellRow row; };
        const auto adds = [](const CellRow& row) { return row.up > 0; };
        const bool few_add = 2 * std::count_if(rows_.begin(), rows_.end(), adds) < static_cast<int64_t>(rows_.size());
        std::vector<Key> keys;
        for (const CellRow& row : rows_) {
            Key key{0, {}, row};
            if (by_size) key.costs = {(few_add ? row.up : row.down) > 0 ? 0 : 1, -row.span()};
            for (size_t q = row.begin; q < row.end && !by_size; ++q) {
                key.divisor = std::gcd(key.divisor, cells[q].dcost);
                key.costs.push_back(cells[q].dcost);
            }
            keys.push_back(std::move(key));
        }
        std::stable_sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) {
            return a.divisor != b.divisor ? a.divisor > b.divisor : a.costs < b.costs;
        });
        up_.assign(1, 0);
        down_.assign(1, 0);
        for (size_t g = 0; g < keys.size(); ++g) {
            rows_[g] = keys[g].row;
            up_.push_back(up_.back() + rows_[g].up);
            down_.push_back(down_.back() + rows_[g].down);
        }
    }

    // The least gap, below that of `best` (whose cells are numbers of `cells`): complete when no plan is better. most: states of a list;
    // work: states made in all. Where those are too few, the best of the rows that were listed; past `end`, maybe nothing.
    void run(CoreResult& best, int64_t most, int64_t work, double end) const {
        try {
            search(best, most, work, end);
        } catch (const Late&) {
            best.complete = false;
        }
    }

  private:
    static constexpr double kSeconds = 1e-7;   // for each total that is made
    static constexpr int64_t kTakes = 40;      // of the purse, what it takes beside its sorting

    struct State {
        int64_t cost;
        double value;
        int32_t node, cell;
    };
    struct List {
        std::vector<State> states;   // by rising cost and falling loss
        std::vector<int32_t> parent, cell;
    };

    void search(CoreResult& best, int64_t most, int64_t work, double end) const {
        List first = start(), last = start();
        size_t from = 0, to = rows_.size();
        int64_t made = 0;
        while (from < to && made < work) {
            const bool front = first.states.size() <= last.states.size();
            List& list = front ? first : last;
            const CellRow& row = rows_[front ? from : to - 1];
            const double seconds = kSeconds * static_cast<double>(list.states.size() * (row.end - row.begin + 1));
            if (static_cast<int64_t>(list.states.size()) > most || seconds > end - now()) break;
            if (front) {
                ++from;
                extend(list, row, up_.back() - up_[from], down_.back() - down_[from], best.gap, end, made);
            } else {
                --to;
                extend(list, row, up_[to], down_[to], best.gap, end, made);
            }
        }
        best.work += made;
        best.states = std::max(best.states, static_cast<int64_t>(first.states.size() + last.states.size()));
        join(first, last, best);
        best.complete = from == to;
    }

    static List start() { return {{{0, 0.0, -1, -1}}, {}, {}}; }
    double loss(const State& s) const { return s.value - slope_ * static_cast<double>(s.cost); }

    // One more row. up, down: what the rows outside the list can add and take.
    void extend(List& list, const CellRow& row, int64_t up, int64_t down, double gap, double end, int64_t& made) const {
        Watch watch(end);
        const double worth = slope_ > 0 ? gap / slope_ : kInfinity;
        const double low = static_cast<double>(slack_) - worth - static_cast<double>(up), high = static_cast<double>(slack_) + static_cast<double>(down);
        std::vector<State> all;
        all.reserve(list.states.size() * (row.end - row.begin + 1));
        for (size_t q = row.begin; q <= row.end; ++q) {
            const int64_t dcost = q < row.end ? cells_[q].dcost : 0;
            const double penalty = q < row.end ? cells_[q].penalty : 0.0;
            watch.step(static_cast<int64_t>(list.states.size()));
            for (const State& s : list.states) {
                const State n{s.cost + dcost, s.value + penalty, s.node, q < row.end ? static_cast<int32_t>(q) : -1};
                const double cost = static_cast<double>(n.cost);
                if (n.value < gap && cost >= low && cost <= high) all.push_back(n);
            }
        }
        made += static_cast<int64_t>(list.states.size() * (row.end - row.begin + 1));
        spend(static_cast<int64_t>(list.states.size() * (row.end - row.begin + 1)), kTakes);
        list.states.clear();
        if (all.empty()) return;
        double least = kInfinity;
        for (const CostKey& key : by_cost(all, end)) {
            const State& s = all[key.at];
            if (!(loss(s) < least)) continue;
            least = loss(s);
            if (!list.states.empty() && list.states.back().cost == s.cost) list.states.back() = s;
            else list.states.push_back(s);
        }
        for (State& s : list.states) {
            if (s.cell < 0) continue;
            list.parent.push_back(s.node);
            list.cell.push_back(s.cell);
            s.node = static_cast<int32_t>(list.parent.size()) - 1;
        }
    }

    // The best pair: a dearer state of a list loses less, so the dearest that fits is the best one.
    void join(const List& first, const List& last, CoreResult& best) const {
        const State *one = nullptr, *other = nullptr;
        size_t j = last.states.size();
        for (const State& s : first.states) {
            while (j > 0 && last.states[j - 1].cost > slack_ - s.cost) --j;
            if (j == 0) break;
            const State& t = last.states[j - 1];
            const double gap = s.value + t.value + slope_ * static_cast<double>(slack_ - s.cost - t.cost);
            if (!(gap < best.gap)) continue;
            best.gap = gap;
            one = &s;
            other = &t;
        }
        if (one == nullptr) return;
        best.cells.clear();
        for (const auto& [state, list] : {std::pair{one, &first}, std::pair{other, &last}})
            for (int32_t node = state->node; node >= 0; node = list->parent[static_cast<size_t>(node)])
                best.cells.push_back(list->cell[static_cast<size_t>(node)]);
    }

    const std::vector<Cell>& cells_;
    std::vector<CellRow> rows_;
    double slope_;
    int64_t slack_;
    std::vector<int64_t> up_, down_;   // of the rows before each
};

// By states spread over what can be brought to the limit, then by lists of totals: in about `work` steps each. Complete when no plan is better.
inline CoreResult filled_within(const std::vector<Cell>& cells, double slope, int64_t slack, double gap, double enough, double end, int64_t work) {
    CoreResult found{gap, false, 0, 0, {}};
    for (const bool balanced : {false, true})
        if (found.gap > enough && !past(end)) Beam(cells, slope, slack).run(found, enough, work, balanced, end);
    for (const bool by_size : {false, true})
        if (found.gap > enough && !found.complete && !past(end)) Meet(cells, slope, slack, by_size).run(found, work / 16, work, end);
    return found;
}
inline CoreResult filled(const std::vector<Cell>& cells, double slope, int64_t slack, double gap, double enough, double end) {
    return filled_within(cells, slope, slack, gap, enough, end, 1 << 22);
}
// With a 32nd of the steps, which are enough where all slopes are equal.
inline CoreResult soon_filled(const std::vector<Cell>& cells, double slope, int64_t slack, double gap, double enough, double end) {
    return filled_within(cells, slope, slack, gap, enough, end, 1 << 17);
}

}  // namespace bitwright
