// Dynamic programming over the core of a multiple-choice knapsack (research/05 section 4, steps 6 and 7).
//
// The same search as solvers/core_table.py, which is its oracle: states (extra cost, penalty) in order of cost, one group
// of deviations after another, with dominance, completion bounds and a beam when too many states are alive.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "clock.hpp"

namespace bitwright {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct CoreTable {
    int64_t rows;
    const int64_t* start;    // rows + 1
    const int64_t* dcost;    // extra cost of each cell, never 0
    const double* penalty;   // >= 0
};

struct Effort {
    int64_t states;   // most states kept after a group
    int64_t work;     // most states expanded in all
    double tiny;      // a gap that counts as zero
    double seconds;
    bool or_nothing = false;   // end where there are more states, rather than with the best of them
};

struct CoreResult {
    double gap;
    bool complete;
    int64_t states, work;
    std::vector<int64_t> cells;
};

// Takes a plan, one option of each row, where it is better than the best found: true then. Options that are no cell have a number below zero.
// dcost: of a cell, by its option's number.
template <class Option, class Cost>
bool take_better(const std::vector<size_t>& plan, const std::vector<Option>& option, const Cost& dcost, double slope, int64_t slack, CoreResult& best) {
    double value = 0.0;
    std::vector<int64_t> cells;
    for (const size_t o : plan) {
        if (option[o].cell < 0) continue;
        cells.push_back(option[o].cell);
        slack -= dcost(o);
        value += option[o].penalty;
    }
    value += slope * static_cast<double>(slack);
    if (slack < 0 || !(value < best.gap)) return false;
    best.gap = value;
    best.cells = std::move(cells);
    return true;
}

class CoreSearch {
  public:
    CoreSearch(const CoreTable& table, double slope, int64_t slack, double gap, const Effort& effort)
        : table_(table), slope_(slope), slack_(slack), effort_(effort), result_{gap, true, 1, 0, {}} {}

    // Where time runs out, the best that was found.
    CoreResult run() {
        end_ = now() + effort_.seconds;
        try {
            search();
        } catch (const Late&) {
            result_.complete = false;
        }
        result_.complete = result_.complete || result_.gap <= effort_.tiny;
        if (best_cell_ >= 0) {
            result_.cells.push_back(best_cell_);
            for (int32_t node = best_parent_; node >= 0; node = parent_[node]) result_.cells.push_back(cell_[node]);
        }
        return std::move(result_);
    }

  private:
    static constexpr double kSeconds = 5e-8;   // for each state that is expanded
    static constexpr int64_t kLook = 1 << 14;  // states expanded between two looks at the clock
    static constexpr int64_t kTakes = 190;     // of the purse, what a state takes

    void search() {
        bounds();
        cost_.assign(1, 0);
        value_.assign(1, 0.0);
        node_.assign(1, -1);
        for (int64_t t = 0; t < table_.rows; ++t) {
            expand(t);
            if (static_cast<int64_t>(next_cost_.size()) > effort_.states) {
                if (effort_.or_nothing) {
                    result_.complete = false;
                    break;
                }
                prune();
            }
            advance();
            result_.states = std::max<int64_t>(result_.states, cost_.size());
            if (cost_.empty() || result_.gap <= effort_.tiny) break;
            const int64_t ahead = t + 1 < table_.rows ? table_.start[t + 2] - table_.start[t + 1] + 1 : 0;
            if (result_.work > effort_.work || kSeconds * static_cast<double>(ahead) * static_cast<double>(cost_.size()) > end_ - now()) {
                result_.complete = result_.complete && t + 1 == table_.rows;
                break;
            }
        }
    }

    // Least penalty, and least penalty per unit of cost added or saved, over the groups t.. (suffix minima).
    void bounds() {
        const int64_t n = table_.rows;
        Watch watch(end_);
        least_.assign(n + 1, kInfinity);
        up_.assign(n + 1, kInfinity);
        down_.assign(n + 1, kInfinity);
        for (int64_t t = n - 1; t >= 0; --t) {
            watch.step();
            least_[t] = least_[t + 1];
            up_[t] = up_[t + 1];
            down_[t] = down_[t + 1];
            for (int64_t q = table_.start[t]; q < table_.start[t + 1]; ++q) {
                const double rate = table_.penalty[q] / std::fabs(static_cast<double>(table_.dcost[q]));
                least_[t] = std::min(least_[t], table_.penalty[q]);
                double& side = table_.dcost[q] > 0 ? up_[t] : down_[t];
                side = std::min(side, rate);
            }
        }
    }

    struct Head {
        int64_t dcost;
        double penalty;
        int64_t cell;
        size_t at;
    };

    // Merge of the current states shifted by each deviation of group t (and by none), by rising cost.
    void expand(int64_t t) {
        heads_.assign(1, Head{0, 0.0, -1, 0});
        for (int64_t q = table_.start[t]; q < table_.start[t + 1]; ++q)
            heads_.push_back(Head{table_.dcost[q], table_.penalty[q], q, 0});
        next_cost_.clear();
        next_value_.clear();
        next_from_.clear();
        next_cell_.clear();
        next_bound_.clear();
        const size_t count = cost_.size();
        const bool last = t + 1 == table_.rows;
        const double least = least_[t + 1], up = std::min(slope_, up_[t + 1]), down = down_[t + 1];
        double best_loss = kInfinity;
        const int64_t before = result_.work;
        for (;;) {
            Head* pick = nullptr;
            int64_t cost = 0;
            double value = 0.0;
            for (Head& head : heads_) {
                if (head.at == count) continue;
                const int64_t c = cost_[head.at] + head.dcost;
                const double v = value_[head.at] + head.penalty;
                if (pick == nullptr || c < cost || (c == cost && v < value)) {
                    pick = &head;
                    cost = c;
                    value = v;
                }
            }
            if (pick == nullptr) break;
            const size_t from = pick->at++;
            if ((++result_.work & (kLook - 1)) == 0 && past(end_)) throw Late();
            const double loss = value - slope_ * static_cast<double>(cost);
            if (!(loss < best_loss)) continue;   // a state of no more cost has no more loss
            best_loss = loss;
            const double room = static_cast<double>(slack_ - cost);
            double ahead = 0.0;
            if (room >= 0) {
                const double gap = value + slope_ * room;
                if (gap < result_.gap && pick->cell >= 0) {
                    result_.gap = gap;
                    best_cell_ = pick->cell;
                    best_parent_ = node_[from];
                }
                if (room > 0) ahead = room * up;
            } else {
                ahead = -room * down;
            }
            const double bound = value + std::max(ahead, least);
            if (last || !(bound < result_.gap)) continue;
            next_cost_.push_back(cost);
            next_value_.push_back(value);
            next_from_.push_back(static_cast<int32_t>(from));
            next_cell_.push_back(static_cast<int32_t>(pick->cell));
            next_bound_.push_back(bound);
        }
        spend(result_.work - before, kTakes);
    }

    // Beam: the states of least bound; nothing found later is then a proof.
    void prune() {
        result_.complete = false;
        std::vector<double> sorted(next_bound_);
        const size_t keep = static_cast<size_t>(effort_.states);
        std::nth_element(sorted.begin(), sorted.begin() + keep, sorted.end());
        const double cut = sorted[keep];
        size_t to = 0;
        for (size_t i = 0; i < next_cost_.size(); ++i) {
            if (!(next_bound_[i] < cut)) continue;
            next_cost_[to] = next_cost_[i];
            next_value_[to] = next_value_[i];
            next_from_[to] = next_from_[i];
            next_cell_[to] = next_cell_[i];
            next_bound_[to] = next_bound_[i];
            ++to;
        }
        next_cost_.resize(to);
        next_value_.resize(to);
        next_from_.resize(to);
        next_cell_.resize(to);
    }

    // The new states become the current ones; states whose bound the gap in hand has overtaken since are left out.
    void advance() {
        next_node_.clear();
        size_t to = 0;
        for (size_t i = 0; i < next_cost_.size(); ++i) {
            if (!(next_bound_[i] < result_.gap)) continue;
            int32_t node = node_[next_from_[i]];
            if (next_cell_[i] >= 0) {
                parent_.push_back(node);
                cell_.push_back(next_cell_[i]);
                node = static_cast<int32_t>(parent_.size()) - 1;
            }
            next_node_.push_back(node);
            next_cost_[to] = next_cost_[i];
            next_value_[to] = next_value_[i];
            ++to;
        }
        next_cost_.resize(to);
        next_value_.resize(to);
        cost_.swap(next_cost_);
        value_.swap(next_value_);
        node_.swap(next_node_);
        if (parent_.size() > collect_at_) collect();
    }

    // Keep only the nodes that a living state (or the best plan) descends from; order is kept, so parents come first.
    void collect() {
        std::vector<int32_t> place(parent_.size(), -1);
        auto mark = [&](int32_t node) {
            for (; node >= 0 && place[node] < 0; node = parent_[node]) place[node] = 0;
        };
        for (int32_t node : node_) mark(node);
        mark(best_parent_);
        int32_t to = 0;
        for (size_t i = 0; i < parent_.size(); ++i) {
            if (place[i] < 0) continue;
            parent_[to] = parent_[i] < 0 ? -1 : place[parent_[i]];
            cell_[to] = cell_[i];
            place[i] = to++;
        }
        parent_.resize(to);
        cell_.resize(to);
        for (int32_t& node : node_)
            if (node >= 0) node = place[node];
        if (best_parent_ >= 0) best_parent_ = place[best_parent_];
        collect_at_ = std::max<size_t>(1 << 20, 2 * parent_.size());
    }

    CoreTable table_;
    double slope_;
    int64_t slack_;
    Effort effort_;
    CoreResult result_;
    double end_ = 0.0;
    std::vector<double> least_, up_, down_;
    std::vector<Head> heads_;
    std::vector<int64_t> cost_, next_cost_;
    std::vector<double> value_, next_value_, next_bound_;
    std::vector<int32_t> node_, next_node_, next_from_, next_cell_, parent_, cell_;
    int64_t best_cell_ = -1;
    int32_t best_parent_ = -1;
    size_t collect_at_ = 1 << 20;
};

}  // namespace bitwright
