// Branch and bound over the core of a knapsack, for tables where a few units are much larger than the rest.
//
// The relaxation then leaves a gap of the size of one large unit, so nearly every row is in the core and no list of states
// holds it. With the format of the row that the relaxation splits fixed, each way in turn (Dyer, Kayal and Walker 1984), the
// next relaxation splits a smaller one; where the gap has become small the states of core.hpp finish the branch.
#pragma once

#include <functional>
#include <queue>

#include "beam.hpp"
#include "halves.hpp"
#include "large.hpp"
#include "rated.hpp"
#include "relaxed.hpp"

namespace bitwright {

// Adds the cells of other rows than a search was given, of penalties below a gap at a multiplier; the penalties are those there.
using Others = std::function<void(double slope, double gap, std::vector<Cell>& cells)>;

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
        // Where the cells are those of some rows only: the multipliers that settle all others, and their cells of a penalty below a gap at one
        // of these. Such a branch is closed with them, and not before its gap is small or stays.
        Bracket settled{0.0, INFINITY};
        const Others* others = nullptr;
    };

    // cells: those of one row together; gap: that of the best plan in hand.
    Branch(const std::vector<Cell>& cells, double slope, int64_t slack, double gap, const Effort& effort, const Manner& manner)
        : cells_(cells), effort_(effort), manner_(manner), result_{gap, false, 0, 0, {}}, end_(now() + effort.seconds), watch_(end_),
          relaxed_(cells, slope, slack, manner.settled, end_) {
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

    // Whether more work is likely to end with a proof: that is all that was left, and affordable, or bounds climb.
    bool promising() const { return only_proof_ || climbs_; }

    // Cells of other rows in the best plan, beside those of its result.
    const std::vector<Cell>& of_others() const { return of_others_; }

  private:
    struct Node {
        double bound = 0.0;
        int64_t split = -1;   // the row that the relaxation splits, or -1
        bool beyond = false;  // the relaxation's multiplier settles not all other rows
        Relaxed::Fixed fixed;
        bool operator<(const Node& other) const { return bound > other.bound; }
    };

    void search() {
        relaxed_.prepare();
        Node root;
        if (bound(root)) open_.push(std::move(root));
        while (!open_.empty()) {
            const Node node = open_.top();
            if (!(node.bound < result_.gap - effort_.tiny)) break;   // the rest is no better
            if (manner_.others != nullptr && !(node.bound < result_.gap - manner_.within)) {
                least_left_ = std::min(least_left_, node.bound);
                break;
            }
            if (result_.work > effort_.work || vain_ > most_in_vain() || (manner_.others != nullptr && ++nodes_ > kHopeless) || past(end_)) {
                least_left_ = std::min(least_left_, node.bound);
                climbs_ = climbed(node.bound);
                break;
            }
            open_.pop();
            if (node.beyond) {
                least_left_ = std::min(least_left_, node.bound);
                break;
            }
            if (node.split < 0) continue;
            const int64_t row = large_.any() ? large_.next(node.fixed) : node.split;
            if (row < 0 || (!large_.any() && !(manner_.begun && node.fixed.empty()) && worth_a_look(node))) {
                if (finished(node)) continue;
                if (row < 0) least_left_ = std::min(least_left_, node.bound);
            }
            if (only_proof_) return;
            if (row < 0) continue;
            for (int64_t option = relaxed_.begin(row) - 1; option < relaxed_.end(row); ++option) {
                Node child = node;
                child.fixed.emplace_back(row, option < relaxed_.begin(row) ? -1 : option);
                if (bound(child)) open_.push(std::move(child));
            }
        }
        result_.complete = !(least_left_ < result_.gap - manner_.within);
    }

    // Whether a bound has climbed by more than is left of the gap.
    bool climbed(double bound) const { return bound > result_.gap - bound; }

    int64_t most_in_vain() const { return manner_.solve != nullptr ? kLeftOpen : (manner_.search_only ? kVain / 4 : kVain) * kBrief; }

    // With others a branch is bounded in no time, but not closed: that is tried where the one before was, soon, or where the gap has become half of what it
    // was then, or now and then.
    bool worth_a_look(const Node& node) {
        return manner_.others == nullptr || closing_ || 2 * (result_.gap - node.bound) <= looked_ || ++since_ >= kPause;
    }

    // The relaxation with some rows fixed, its filled vertex as a plan. False when no plan there is better than the one in hand.
    bool bound(Node& node) {
        if (!at_vertex(node)) return false;
        node.bound = relaxed_.bound();
        node.split = relaxed_.split();
        node.beyond = relaxed_.beyond();
        if ((node.split >= 0 || node.beyond) && !(node.bound < result_.gap - effort_.tiny)) return false;
        if (relaxed_.room() < 0) return true;
        const double value = relaxed_.fill(node.fixed);
        if (value < result_.gap) {
            at_ = relaxed_.plan(node.fixed, true);
            of_others_.clear();
            take(value);
        }
        result_.work += relaxed_.worked();
        return (node.split >= 0 || node.beyond) && node.bound < result_.gap - effort_.tiny;
    }

    bool at_vertex(const Node& node) {
        const bool found = relaxed_.find(node.fixed);
        result_.work += relaxed_.worked();
        return found;
    }

    void take(double value) {
        result_.gap = value;
        result_.cells.clear();
        for (const int64_t q : at_)
            if (q >= 0) result_.cells.push_back(q);
    }

    // Whether the core closes the branch. Where a plan comes within what counts as none, its bound is all that is left open.
    bool finished(const Node& node) {
        at_vertex(node);
        at_ = relaxed_.plan(node.fixed, false);
        const double slope = relaxed_.slope();
        double at = relaxed_.bound(), gap = result_.gap - at;
        const int64_t rows = relaxed_.rows();
        result_.work += static_cast<int64_t>(cells_.size());
        std::vector<Halves::Option> options;   // those of one row together
        std::vector<char> held(static_cast<size_t>(rows), 0);
        for (const auto& [row, cell] : node.fixed) held[row] = 1;
        for (int64_t g = 0; g < rows; ++g) {
            watch_.step();
            if (held[g]) continue;
            const int64_t x = at_[g];
            for (int64_t q = relaxed_.begin(g) - 1; q < relaxed_.end(g); ++q) {
                const int64_t o = q < relaxed_.begin(g) ? -1 : q, dcost = relaxed_.cost(o) - relaxed_.cost(x);
                if (dcost == 0 || o == x) continue;
                const double penalty = std::max(0.0, relaxed_.loss(o) - relaxed_.loss(x) + slope * static_cast<double>(dcost));
                if (penalty < gap) options.push_back({dcost, penalty, o, g});
            }
        }
        const size_t own = options.size();
        since_ = 0;
        looked_ = gap;
        closing_ = false;
        size_t all = static_cast<size_t>(rows);
        others_.clear();
        if (manner_.others != nullptr && own <= Halves::kNearest) {
            (*manner_.others)(slope, gap, others_);
            for (size_t q = 0; q < others_.size(); ++q) {
                all += q == 0 || others_[q].row != others_[q - 1].row;
                options.push_back({others_[q].dcost, others_[q].penalty, static_cast<int64_t>(q), static_cast<int64_t>(all) - 1});
            }
            result_.work += static_cast<int64_t>(others_.size());
        }
        if (manner_.others != nullptr && options.size() > Halves::kNearest) return false;   // too many for both searches
        // Where all options cost multiples of one number, what is left beyond a multiple is of no use.
        room_ = relaxed_.room();
        const int64_t common = common_step(options, &Halves::Option::dcost, 1), rest = common > 0 ? (room_ % common + common) % common : std::max<int64_t>(0, room_);
        const double worth = slope * static_cast<double>(rest);
        room_ -= rest;
        at += worth;
        gap -= worth;
        if (!(at < result_.gap - manner_.within)) {
            least_left_ = std::min(least_left_, at);
            closing_ = true;
            nodes_ = 0;
            return true;
        }
        const bool halved = manner_.choices > 0;
        CoreResult found = manner_.others != nullptr && options.size() > kFew ? by_size(options, gap) : CoreResult{gap, false, 0, 0, {}};
        if (found.gap > manner_.within || manner_.others == nullptr) {
            CoreResult apart = manner_.solve != nullptr ? by_part(options, found.gap) : halved ? by_halves(options, all, found.gap, at) : by_states(options, found.gap);
            found.complete = apart.complete;
            found.work += apart.work;
            if (apart.gap < found.gap) {
                found.gap = apart.gap;
                found.cells = std::move(apart.cells);
            }
        }
        if (found.gap < gap) {
            of_others_.clear();
            for (const int64_t q : found.cells) {
                const Halves::Option& o = options[static_cast<size_t>(q)];
                if (static_cast<size_t>(q) < own) at_[o.row] = o.cell;
                else of_others_.push_back(others_[static_cast<size_t>(o.cell)]);
            }
            take(at + found.gap);
        }
        looked_ = found.gap + worth;
        const bool closed = found.complete || found.gap <= manner_.within;
        closing_ = closed && found.work <= kSoon;
        if (closed || found.gap < gap) nodes_ = 0;
        if (found.complete || !halved || found.gap > manner_.within) return found.complete;
        least_left_ = std::min(least_left_, at);
        return true;
    }

    // By rows of falling size: where sizes are a heavy tail a few large ones come near, and small ones, which lose next to nothing, fill the rest.
    CoreResult by_size(const std::vector<Halves::Option>& options, double gap) {
        std::vector<Cell> cells;
        cells.reserve(options.size());
        for (const Halves::Option& o : options) cells.push_back({o.row, o.dcost, o.penalty, 0.0, 0});
        CoreResult found{gap, false, 0, 0, {}};
        for (const bool balanced : {false, true})
            if (found.gap > manner_.within && !past(end_)) Beam(cells, relaxed_.slope(), room_).run(found, manner_.within, kFilled, balanced, end_);
        result_.work += found.work;
        return found;
    }

    CoreResult by_halves(std::vector<Halves::Option> options, size_t all, double gap, double at) {
        CoreResult found{gap, false, 0, 0, {}};
        for (size_t q = 0; q < options.size(); ++q) options[q].cell = static_cast<int64_t>(q);
        const Halves halves(std::move(options), all, relaxed_.slope(), room_, end_);
        // Where the bound climbs, so it does for what comes after: a short look, unless the branch can be closed.
        const bool climbs = climbed(at), brief = climbs && !halves.closes(gap, manner_.choices);
        const auto left = halves.run(found, std::max(effort_.tiny, manner_.within - at), manner_.choices, manner_.search_only && !climbs, brief ? 0.0 : kInfinity);
        only_proof_ = left == Halves::Left::kProof;
        vain_ = left == Halves::Left::kMuch && !(found.gap < gap) ? vain_ + (brief ? 1 : kBrief) : 0;
        result_.states = std::max(result_.states, found.states);
        result_.work += found.work;
        return found;
    }

    // As a knapsack of its own. One that stays open leaves no proof: few more are tried.
    CoreResult by_part(const std::vector<Halves::Option>& options, double gap) {
        const CoreResult found = solved_apart(options, relaxed_.slope(), room_, gap, manner_.within, *manner_.solve);
        result_.work += found.work + kPart * static_cast<int64_t>(options.size());
        if (!found.complete) ++vain_;
        return found;
    }

    CoreResult by_states(const std::vector<Halves::Option>& options, double gap) {
        int64_t all;
        const Rated core = by_rate(options, std::numeric_limits<int64_t>::max(), all, end_);
        CoreResult found = CoreSearch(core.table(), relaxed_.slope(), room_, gap, {kStates, kWork, effort_.tiny, std::max(0.0, end_ - now())}).run();
        result_.work += kDearer * found.work;
        core.back(found.cells);
        return found;
    }

    static constexpr int64_t kVain = 48, kBrief = 8;   // looks in a row that gave nothing; brief ones that are as much as one
    // With others: steps of filling a branch by size, and from how many cells on; branches between two looks; branches in a row that gave
    // nothing; work of one that is closed soon.
    static constexpr int64_t kFilled = 1 << 18, kPause = 64, kHopeless = 256, kSoon = 1 << 18;
    static constexpr size_t kFew = 128;
    static constexpr int64_t kLeftOpen = 1, kPart = 16;   // parts left open; what one takes, in steps looked at for each option
    // States and work of the search of one branch; what a state costs, in steps looked at.
    static constexpr int64_t kStates = 1 << 9, kWork = 1 << 15, kDearer = 4;

    const std::vector<Cell>& cells_;
    Effort effort_;
    Manner manner_;
    CoreResult result_;
    double end_, least_left_ = kInfinity;   // least bound of what was left open
    Watch watch_;
    Relaxed relaxed_;
    bool only_proof_ = false, climbs_ = false;
    Large large_;
    int64_t vain_ = 0;   // branches in a row whose halves gave nothing
    // With others: whether the last look closed its branch, the gap that it left, branches since then, and since one that gave something.
    bool closing_ = false;
    double looked_ = kInfinity;
    int64_t since_ = 0, nodes_ = 0;
    int64_t room_ = 0;   // of the branch that is being closed
    std::vector<int64_t> at_;        // of each row its cell, or -1
    std::vector<Cell> others_, of_others_;
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
