// Branch and bound over the core of a knapsack, for tables where a few units are much larger than the rest.
//
// The relaxation then leaves a gap of the size of one large unit, so nearly every row is in the core and no list of states
// holds it. With the format of the row that the relaxation splits fixed, each way in turn (Dyer, Kayal and Walker 1984), the
// next relaxation splits a smaller one; where the gap has become small the states of core.hpp finish the branch.
#pragma once

#include <queue>

#include "closer.hpp"
#include "halves.hpp"
#include "large.hpp"
#include "rated.hpp"
#include "select.hpp"

namespace bitwright {

class Branch {
  public:
    // How a branch is closed: by the states of its core, or by its halves with at most so many `choices` (halves.hpp), up to a
    // difference of plans, `within`, that counts as none. search_only: end where all that is left is to prove it. begun: with nothing
    // fixed, its halves were looked at.
    struct Manner {
        int64_t choices = 0;
        double within = 0.0;
        bool search_only = false, begun = false;
        const Solver* solve = nullptr;   // large rows are fixed first, and what is left is a knapsack that this closes (large.hpp)
    };

    // cells: those of one row together; gap: that of the best plan in hand.
    Branch(const std::vector<Cell>& cells, double slope, int64_t slack, double gap, const Effort& effort, const Manner& manner)
        : cells_(cells), slope_(slope), slack_(slack), effort_(effort), manner_(manner), result_{gap, false, 0, 0, {}}, end_(now() + effort.seconds), watch_(end_) {
        for (size_t q = 0; q < cells.size(); ++q) {
            if (q == 0 || cells[q].row != cells[q - 1].row) start_.push_back(static_cast<int64_t>(q));
        }
        start_.push_back(static_cast<int64_t>(cells.size()));
        if (manner.solve != nullptr) large_ = Large(cells);
    }

    // The best plan's gap and cells; complete when no plan is better. work: steps looked at. Once.
    CoreResult run() {
        try {
            search();
        } catch (const Late&) {
            result_.complete = false;
        }
        return std::move(result_);
    }

  private:
    struct Node {
        double bound = 0.0;
        int64_t split = -1;   // the row that the relaxation splits, or -1
        std::vector<std::pair<int64_t, int64_t>> fixed;   // row, cell (-1: none)
        bool operator<(const Node& other) const { return bound > other.bound; }
    };

    void search() {
        prepare();
        Node root;
        if (bound(root)) open_.push(std::move(root));
        while (!open_.empty()) {
            const Node node = open_.top();
            if (!(node.bound < result_.gap - effort_.tiny)) break;   // the rest is no better
            if (result_.work > effort_.work || vain_ > most_in_vain() || past(end_)) {
                least_left_ = std::min(least_left_, node.bound);
                break;
            }
            open_.pop();
            if (node.split < 0) continue;
            const int64_t row = large_.any() ? large_.next(node.fixed) : node.split;
            if (row < 0 || (!large_.any() && !(manner_.begun && node.fixed.empty()))) {
                if (finished(node)) continue;
                if (row < 0) least_left_ = std::min(least_left_, node.bound);
            }
            if (only_proof_) return;
            if (row < 0) continue;
            for (int64_t option = start_[row] - 1; option < start_[row + 1]; ++option) {
                Node child = node;
                child.fixed.emplace_back(row, option < start_[row] ? -1 : option);
                if (bound(child)) open_.push(std::move(child));
            }
        }
        result_.complete = !(least_left_ < result_.gap - manner_.within);
    }

    int64_t most_in_vain() const { return manner_.solve != nullptr ? kLeftOpen : manner_.search_only ? kVain / 4 : kVain; }

    int64_t rows() const { return static_cast<int64_t>(start_.size()) - 1; }
    int64_t cost(int64_t q) const { return q < 0 ? 0 : cells_[static_cast<size_t>(q)].dcost; }
    double loss(int64_t q) const {
        return q < 0 ? 0.0 : cells_[static_cast<size_t>(q)].penalty - slope_ * static_cast<double>(cells_[static_cast<size_t>(q)].dcost);
    }

    // Hull steps of every row over its cells and none of them, steepest first. Step::after counts from the row's start (0: none).
    void prepare() {
        double l[kMaxFormats + 1];
        int64_t c[kMaxFormats + 1];
        least_.resize(static_cast<size_t>(rows()));
        steps_.reserve(std::max<size_t>(1024, cells_.size()));   // a list of millions would be copied again and again as it grows
        for (int64_t g = 0; g < rows(); ++g) {
            const int count = static_cast<int>(start_[g + 1] - start_[g]) + 1;
            for (int o = 0; o < count; ++o) {
                const int64_t q = o == 0 ? -1 : start_[g] + o - 1;
                l[o] = loss(q);
                c[o] = cost(q);
            }
            const int x = cheapest(l, c, count);
            least_[g] = x == 0 ? -1 : start_[g] + x - 1;
            cost_ += c[x];
            loss_ += l[x];
            walk(l, c, count, g, x, 0.0, steps_);
            watch_.step(count);
        }
        watched(watch_, steps_.size(), Steeper(), [&](auto less) { std::sort(steps_.begin(), steps_.end(), less); });
        at_.resize(least_.size());
    }

    int64_t option(const Step& s) const { return s.after == 0 ? -1 : start_[s.row] + s.after - 1; }

    // The relaxation with some rows fixed, its filled vertex as a plan. False when no plan there is better than the one in hand.
    // Leaves in at_, slope_at_ and room_ the vertex.
    bool bound(Node& node, bool vertex_only = false) {
        int64_t room = slack_ - cost_;
        double value = slope_ * static_cast<double>(slack_) + loss_;
        at_ = least_;
        is_fixed_.assign(least_.size(), 0);
        for (const auto& [row, cell] : node.fixed) {
            room -= cost(cell) - cost(least_[row]);
            value += loss(cell) - loss(least_[row]);
            at_[row] = cell;
            is_fixed_[row] = 1;
        }
        if (room < 0) return false;
        node.split = -1;
        node.bound = value;
        slope_at_ = 0.0;
        for (const Step& s : steps_) {
            ++result_.work;
            watch_.step(kTakes);
            if (is_fixed_[s.row]) continue;
            if (s.dcost <= room) {
                room -= s.dcost;
                value += loss(option(s)) - loss(at_[s.row]);
                at_[s.row] = option(s);
                continue;
            }
            if (node.split < 0) {
                node.split = s.row;
                node.bound = value - s.slope * static_cast<double>(room);
                slope_at_ = s.slope;
                room_ = room;
                if (vertex_only || !(node.bound < result_.gap - effort_.tiny)) return false;
            }
            is_fixed_[s.row] = 2;   // later steps of the row do not fit either
        }
        if (node.split < 0) node.bound = value;
        if (value < result_.gap) take(value);
        return node.split >= 0 && node.bound < result_.gap - effort_.tiny;
    }

    void take(double value) {
        result_.gap = value;
        result_.cells.clear();
        for (const int64_t q : at_)
            if (q >= 0) result_.cells.push_back(q);
    }

    // Whether the core closes the branch. Where a plan comes within what counts as none, its bound is all that is left open.
    bool finished(const Node& node) {
        Node again = node;
        bound(again, true);
        const double gap = result_.gap - again.bound;
        result_.work += static_cast<int64_t>(cells_.size());
        std::vector<Halves::Option> options;   // those of one row together
        std::vector<char> held(least_.size(), 0);
        for (const auto& [row, cell] : node.fixed) held[row] = 1;
        for (int64_t g = 0; g < rows(); ++g) {
            watch_.step();
            if (held[g]) continue;
            const int64_t x = at_[g];
            for (int64_t q = start_[g] - 1; q < start_[g + 1]; ++q) {
                const int64_t o = q < start_[g] ? -1 : q, dcost = cost(o) - cost(x);
                if (dcost == 0 || o == x) continue;
                const double penalty = std::max(0.0, loss(o) - loss(x) + slope_at_ * static_cast<double>(dcost));
                if (penalty < gap) options.push_back({dcost, penalty, o, g});
            }
        }
        const bool halved = manner_.choices > 0;
        const CoreResult found = manner_.solve != nullptr ? by_part(options, gap) : halved ? by_halves(options, gap, manner_.within - again.bound) : by_states(options, gap);
        if (found.gap < gap) {
            for (const int64_t q : found.cells) at_[options[static_cast<size_t>(q)].row] = options[static_cast<size_t>(q)].cell;
            take(again.bound + found.gap);
        }
        if (found.complete || !halved || found.gap > manner_.within) return found.complete;
        least_left_ = std::min(least_left_, again.bound);
        return true;
    }

    CoreResult by_halves(std::vector<Halves::Option> options, double gap, double enough) {
        CoreResult found{gap, false, 0, 0, {}};
        for (size_t q = 0; q < options.size(); ++q) options[q].cell = static_cast<int64_t>(q);
        const Halves halves(std::move(options), least_.size(), slope_at_, room_, end_);
        const auto left = halves.run(found, std::max(effort_.tiny, enough), manner_.choices, manner_.search_only);
        only_proof_ = left == Halves::Left::kProof;
        vain_ = left == Halves::Left::kMuch && !(found.gap < gap) ? vain_ + 1 : 0;
        result_.states = std::max(result_.states, found.states);
        result_.work += found.work;
        return found;
    }

    // As a knapsack of its own. One that stays open leaves no proof: few more are tried.
    CoreResult by_part(const std::vector<Halves::Option>& options, double gap) {
        const CoreResult found = solved_apart(options, slope_at_, room_, gap, manner_.within, *manner_.solve);
        result_.work += found.work + kPart * static_cast<int64_t>(options.size());
        if (!found.complete) ++vain_;
        return found;
    }

    CoreResult by_states(const std::vector<Halves::Option>& options, double gap) {
        int64_t all;
        const Rated core = by_rate(options, std::numeric_limits<int64_t>::max(), all, end_);
        CoreResult found = CoreSearch(core.table(), slope_at_, room_, gap, {kStates, kWork, effort_.tiny, std::max(0.0, end_ - now())}).run();
        result_.work += kDearer * found.work;
        core.back(found.cells);
        return found;
    }

    static constexpr int64_t kVain = 48, kTakes = 2;   // the latter: of the purse, what a step takes
    static constexpr int64_t kLeftOpen = 1, kPart = 16;   // parts left open; what one takes, in steps looked at for each option
    // States and work of the search of one branch; what a state costs, in steps looked at.
    static constexpr int64_t kStates = 1 << 9, kWork = 1 << 15, kDearer = 4;

    const std::vector<Cell>& cells_;
    double slope_;
    int64_t slack_;
    Effort effort_;
    Manner manner_;
    CoreResult result_;
    double end_, least_left_ = kInfinity;   // least bound of what was left open
    Watch watch_;
    bool only_proof_ = false;
    Large large_;
    int64_t vain_ = 0;   // branches in a row whose halves gave nothing
    std::vector<int64_t> start_, least_, at_;
    std::vector<char> is_fixed_;
    std::vector<Step> steps_;
    int64_t cost_ = 0, room_ = 0;
    double loss_ = 0.0, slope_at_ = 0.0;
    std::priority_queue<Node> open_;
};

// By halves (halves.hpp), as a branch with nothing fixed would be closed, without what branches need.
inline CoreResult halved(const std::vector<Cell>& cells, double slope, int64_t slack, double gap, double enough, int64_t choices, double far, double end) {
    std::vector<Halves::Option> options;
    size_t rows = 0;
    for (size_t q = 0; q < cells.size(); ++q) {
        rows += q == 0 || cells[q].row != cells[q - 1].row;
        if (cells[q].penalty < gap) options.push_back({cells[q].dcost, cells[q].penalty, static_cast<int64_t>(q), static_cast<int64_t>(rows) - 1});
    }
    CoreResult found{gap, false, 0, 0, {}};
    Halves(std::move(options), rows, slope, slack, end).run(found, enough, choices, true, far);
    return found;
}

}  // namespace bitwright
