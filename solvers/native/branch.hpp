// Branch and bound over the core of a knapsack, for tables where a few units are much larger than the rest.
//
// The relaxation then leaves a gap of the size of one large unit, so nearly every row is in the core and no list of states
// holds it. With the format of the row that the relaxation splits fixed, each way in turn (Dyer, Kayal and Walker 1984), the
// next relaxation splits a smaller one; where the gap has become small the states of core.hpp finish the branch.
#pragma once

#include <queue>

#include "closer.hpp"
#include "select.hpp"

namespace bitwright {

class Branch {
  public:
    // cells: those of one row together; gap: that of the best plan in hand.
    Branch(const std::vector<Cell>& cells, double slope, int64_t slack, double gap, const Effort& effort)
        : cells_(cells), slope_(slope), slack_(slack), effort_(effort), result_{gap, false, 0, 0, {}} {
        for (size_t q = 0; q < cells.size(); ++q) {
            if (q == 0 || cells[q].row != cells[q - 1].row) start_.push_back(static_cast<int64_t>(q));
        }
        start_.push_back(static_cast<int64_t>(cells.size()));
        prepare();
    }

    // The best plan's gap and cells; complete when no plan is better. work: steps looked at.
    CoreResult run() {
        const double end = now() + effort_.seconds;
        Node root;
        if (bound(root)) open_.push(std::move(root));
        while (!open_.empty()) {
            const Node node = open_.top();
            open_.pop();
            if (!(node.bound < result_.gap - effort_.tiny)) break;   // the rest is no better
            if (result_.work > effort_.work || now() > end) return std::move(result_);
            if (node.split < 0 || finished(node)) continue;
            for (int64_t option = start_[node.split] - 1; option < start_[node.split + 1]; ++option) {
                Node child = node;
                child.fixed.emplace_back(node.split, option < start_[node.split] ? -1 : option);
                if (bound(child)) open_.push(std::move(child));
            }
        }
        result_.complete = true;
        return std::move(result_);
    }

  private:
    struct Node {
        double bound = 0.0;
        int64_t split = -1;   // the row that the relaxation splits, or -1
        std::vector<std::pair<int64_t, int64_t>> fixed;   // row, cell (-1: none)
        bool operator<(const Node& other) const { return bound > other.bound; }
    };

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
        }
        std::sort(steps_.begin(), steps_.end(), Steeper());
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

    // Whether the states of the core close the branch.
    bool finished(const Node& node) {
        Node again = node;
        bound(again, true);
        const double gap = result_.gap - again.bound;
        struct Group { double rate; int64_t row; };
        std::vector<Group> groups;
        const auto penalty = [&](int64_t row, int64_t q) {
            return std::max(0.0, loss(q) - loss(at_[row]) + slope_at_ * static_cast<double>(cost(q) - cost(at_[row])));
        };
        std::vector<char> held(least_.size(), 0);
        for (const auto& [row, cell] : node.fixed) held[row] = 1;
        for (int64_t g = 0; g < rows(); ++g) {
            if (held[g]) continue;
            double least = kInfinity;
            for (int64_t q = start_[g] - 1; q < start_[g + 1]; ++q) {
                const int64_t o = q < start_[g] ? -1 : q, dcost = cost(o) - cost(at_[g]);
                if (dcost == 0 || o == at_[g]) continue;
                const double p = penalty(g, o);
                if (p < gap) least = std::min(least, p / std::fabs(static_cast<double>(dcost)));
            }
            if (least < kInfinity) groups.push_back({least, g});
        }
        result_.work += static_cast<int64_t>(cells_.size());
        std::stable_sort(groups.begin(), groups.end(), [](const Group& a, const Group& b) { return a.rate < b.rate; });
        std::vector<int64_t> start{0}, dcost, options, owner;
        std::vector<double> penalties;
        for (const Group& group : groups) {
            for (int64_t q = start_[group.row] - 1; q < start_[group.row + 1]; ++q) {
                const int64_t o = q < start_[group.row] ? -1 : q, extra = cost(o) - cost(at_[group.row]);
                const double p = penalty(group.row, o);
                if (extra == 0 || o == at_[group.row] || !(p < gap)) continue;
                dcost.push_back(extra);
                penalties.push_back(p);
                options.push_back(o);
                owner.push_back(group.row);
            }
            start.push_back(static_cast<int64_t>(dcost.size()));
        }
        const CoreTable core{static_cast<int64_t>(groups.size()), start.data(), dcost.data(), penalties.data()};
        const CoreResult found = CoreSearch(core, slope_at_, room_, gap, {kStates, kWork, effort_.tiny, effort_.seconds}).run();
        result_.work += kDearer * found.work;
        if (found.gap < gap) {
            for (const int64_t q : found.cells) at_[owner[static_cast<size_t>(q)]] = options[static_cast<size_t>(q)];
            take(again.bound + found.gap);
        }
        return found.complete;
    }

    // States and work of the search of one branch; what a state costs, in steps looked at.
    static constexpr int64_t kStates = 1 << 9, kWork = 1 << 15, kDearer = 4;

    const std::vector<Cell>& cells_;
    double slope_;
    int64_t slack_;
    Effort effort_;
    CoreResult result_;
    std::vector<int64_t> start_, least_, at_;
    std::vector<char> is_fixed_;
    std::vector<Step> steps_;
    int64_t cost_ = 0, room_ = 0;
    double loss_ = 0.0, slope_at_ = 0.0;
    std::priority_queue<Node> open_;
};

}  // namespace bitwright
