// The certified knapsack solver for one limit: critical slope, LP vertex, core (research/05 section 4).
#pragma once

#include "branch.hpp"
#include "classes.hpp"
#include "counts.hpp"
#include "dense.hpp"
#include "filler.hpp"
#include "looks.hpp"
#include "moduli.hpp"
#include "residues.hpp"
#include "rests.hpp"
#include "steps.hpp"

namespace bitwright {

class Solve : private Looks {
  public:
    Solve(const Table& table, const Options& options, uint8_t* choice) : Looks(table, options, choice) {}

    Answer run() {
        try {
            if (begin()) complete();
        } catch (const Late&) {
            answer_ = unplanned(t_, o_.limit, choice_);
        }
        return answer_;
    }

  private:
    // A first plan. False when nothing fits. Throws Late when there is no time for it.
    bool begin() {
        start_time();
        return first_plan();
    }

    // Search the core of the table looked at: at most `most_rows` rows, those of least penalty per unit of cost first.
    // False when some row was left out.
    // or_nothing: where no more rows and states than that serve for a proof, and not at all otherwise.
    bool search(int64_t most_rows, int64_t states, double tiny, bool or_nothing = false) {
        if (spent()) return false;
        std::vector<Cell> cells;
        int64_t rows = 0;
        Watch watch(end_);
        if (!or_nothing) make_room(cells, base_.table.n, [&](int64_t i) { base_.cells_of(i, answer_.slope, answer_.gap, cells); });
        for (int64_t i = 0; i < base_.table.n; ++i) {
            watch.step(base_.table.k);
            const size_t begin = cells.size();
            base_.cells_of(i, answer_.slope, answer_.gap, cells);
            rows += cells.size() > begin;
            if ((or_nothing && rows > most_rows) || static_cast<int64_t>(cells.size()) > Deviations::kMostCells) return false;
        }
        const Rated rated = by_rate(cells, most_rows, rows, end_);
        const bool whole = rows <= most_rows;
        const CoreTable core = rated.table();
        CoreResult found;
        if (!(whole && states > kTabled && tabled(core, answer_.slope, slack_, answer_.gap, states, end_, found))) {
            // A proof by few states may take a quarter of all work, or an eighth: the searches after it have theirs.
            const Effort effort{states, or_nothing && states <= kMany ? std::min(o_.work - work_, o_.work / (states > kFew ? 4 : 8)) : o_.work - work_, tiny, std::max(0.0, end_ - now()), or_nothing};
            found = CoreSearch(core, answer_.slope, slack_, answer_.gap, effort).run();
            work_ += found.work;
        }
        rated.back(found.cells);
        take(found, cells, rows);
        return whole && found.complete;
    }

    // What a search of some cells found, of so many rows.
    void take(const CoreResult& found, const std::vector<Cell>& cells, int64_t rows) {
        looked_ += found.work;
        answer_.states = std::max(answer_.states, found.states);
        answer_.core = rows;
        if (!(found.gap < answer_.gap)) return;
        answer_.gap = found.gap;
        moves_.clear();
        for (const int64_t q : found.cells) moves_.push_back(cells[static_cast<size_t>(q)]);
    }

    // Branch on the rows that the relaxation splits, of every `every`-th row of the table looked at and the critical one. True when
    // no plan of them all is better.
    bool branched(double tiny, int64_t work, const Branch::Manner& manner, int64_t every = 1) {
        if (spent()) return false;
        const Sample sample = sampled(every);
        if (sample.cut) return false;
        const Effort effort{0, work, tiny, std::max(0.0, end_ - now())};
        Branch branch(sample.cells, answer_.slope, slack_, answer_.gap, effort, manner);
        const CoreResult found = branch.run();
        provable_ = branch.promising() && every == 1;
        take(found, sample.cells, count_rows(sample.cells));
        return found.complete && every == 1;
    }

    // In giants.hpp.
    bool heavy() const;
    bool splits_one_in(int64_t part, int64_t every) const;
    bool branched_near(size_t level, double tiny, double counted);
    bool by_giant(double counted, int64_t every);
    void move_to(int64_t row, int format);

    // In fillings.hpp.
    void combine(int64_t every, double enough), combine_strays(double enough);
    bool by_few_strays(double enough), by_strays(double enough);
    bool by_filling(const std::vector<Cell>& cells, int64_t every, double enough);

    // In middling.hpp.
    bool by_few(size_t level, int64_t every, double counted);
    bool by_little(size_t& level, double tiny, double counted, const Branch::Manner& search_only, const Branch::Manner& to_the_end);
    bool again(double counted);

    // In multiples.hpp.
    bool may_round(std::vector<Cell>& cells) const, by_multiples(double counted);

    // In splits.hpp.
    class Listed;
    bool splits(double small) const, small_row(int64_t row) const, parts(double small, int64_t every) const;
    bool told_by_formats(double small, double counted, int64_t every, bool early);
    void by_formats(double counted, int64_t every);

    // By a table of totals from the nearest rows on (totals.hpp). True when no plan of these cells is better.
    bool totalled(const std::vector<Cell>& cells, double enough, double most) {
        if (!(answer_.slope > 0)) return false;
        const CoreResult found = Totals(cells, answer_.slope, slack_, step_, answer_.gap).run(enough, most);
        take(found, cells, count_rows(cells));
        return found.complete;
    }

    // The same where costs are few: a good plan from the cells of this level, and then the proof on the one that has all rows of use.
    bool by_totals(size_t& level, const std::vector<Cell>& cells, double enough) {
        const bool best = totalled(cells, enough, kTotals / 16);
        if (answer_.gap <= enough || (best && (level <= 1 || answer_.gap <= reach(level)))) return best;
        if (t_.n >= kWide && reach(level) < answer_.gap && by_few_strays(enough)) return true;
        // Where very many rows are listed, nearly all of a slope, some rows of all serve as well.
        if (level > 1 && reach(level) < answer_.gap && levels_->table(1).n > kMuchListed) {
            by_strays(enough);
            if (answer_.gap <= enough) return true;
        }
        while (level > 1 && reach(level) < answer_.gap) look_at(--level);
        return totalled(sampled(1).cells, enough, kTotals);
    }

    // The same of all rows of use, and of each cost the nearest (classes.hpp). True when no plan is better.
    bool by_classes(double enough) {
        if (!look_wide(t_.n / 4)) return false;
        const Sample sample = sampled(1);
        if (sample.cut) return false;
        const CoreResult found = by_each_cost(sample.cells, answer_.slope, slack_, step_, answer_.gap, enough, end_);
        take(found, sample.cells, count_rows(sample.cells));
        return found.complete;
    }

    // By a search of the cells of every `every`-th row of the table looked at (residues.hpp, meet.hpp). True when no plan is better.
    template <class Search>
    bool closed(const Search& search, double enough, int64_t every = 1) {
        if (spent()) return false;
        const Sample sample = sampled(every);
        if (sample.cut) return false;
        const CoreResult found = search(sample.cells, answer_.slope, slack_, answer_.gap, enough, end_);
        take(found, sample.cells, count_rows(sample.cells));
        return found.complete && every == 1;
    }

    // By numbers of steps (steps.hpp), each a part.
    auto by_steps() {
        return [this](const std::vector<Cell>& cells, double slope, int64_t slack, double gap, double enough, double end) {
            return stepped(cells, slope, slack, step_, gap, enough, end, o_.finer, [this](Part& part) { return ++parts_ <= kParts && solved(part); });
        };
    }

    // Of costs without their rests (rests.hpp), a part. What it takes, the searches after it are not short of.
    auto without_rests() {
        return [this](const std::vector<Cell>& cells, double slope, int64_t slack, double gap, double enough, double) {
            const Purse own(kAgain);
            return by_rests(cells, slope, slack, gap, enough, [this](Part& part) { return solved(part); });
        };
    }

    // With the formats of rows that outweigh the others fixed in turn (large.hpp), each time a part. True when no plan is better.
    bool by_large(double tiny, double counted) {
        if (o_.depth > 0 || spent()) return false;
        const Sample sample = sampled(1);
        if (sample.cut || !Large(sample.cells).any()) return false;
        const Solver part = [this](Part& one) { return solved(one); };
        const Effort effort{0, kInParts, tiny, std::max(0.0, end_ - now())};
        const CoreResult found = Branch(sample.cells, answer_.slope, slack_, answer_.gap, effort, {0, counted, false, false, &part}).run();
        take(found, sample.cells, count_rows(sample.cells));
        return found.complete;
    }

    // By numbers of rows at each level of cost (counts.hpp), what is left of each a part; in a part of that kind levels are equal costs.
    auto by_counts(int64_t looks) {
        return [this, looks](const std::vector<Cell>& cells, double slope, int64_t slack, double gap, double enough, double end) {
            return by_numbers(t_, choice_, cells, slope, slack, gap, enough, end, o_.finer < std::numeric_limits<int64_t>::max(), looks, [this](Part& part) { return solved(part); }, cases_);
        };
    }

    // By a table of more totals than a long table allows. True when no plan is better.
    bool by_wide_totals(double counted) {
        if (!(answer_.slope > 0) || spent()) return false;
        const Sample sample = sampled(1);
        if (sample.cut || !Totals::serves(sample.cells, slack_, step_, kWideCost)) return false;
        const double most = o_.depth > 0 ? kWideTotals / 2 : kWideTotals;
        const CoreResult found = Totals(sample.cells, answer_.slope, slack_, step_, answer_.gap, kWalk, kWideTable).run(counted, most);
        take(found, sample.cells, count_rows(sample.cells));
        return found.complete;
    }

    // A part by all of this.
    bool solved(Part& part) {
        const Options options{part.limit, 1, o_.full_rows, o_.work >> kLess, std::max(0.0, end_ - now()), 0.0, o_.seed,
                              {0.0, INFINITY}, o_.depth + 1, part.below, part.within, part.finer};
        part.choice.assign(static_cast<size_t>(part.n), 0);
        const Table table{part.loss.data(), false, part.n, part.k, part.cost.data(), nullptr, 1, nullptr};
        Solve solve(table, options, part.choice.data());
        const Answer answer = solve.run();
        part.work = solve.looked_;
        looked_ += part.work;
        part.better = answer.status != Status::kInfeasible && answer.loss < part.below;
        return answer.status == Status::kOptimal || answer.status == Status::kInfeasible;
    }

    // Costs move in steps: what is left of the limit beyond a whole number of them is of no use to any choice.
    double useless() {
        Watch watch(end_);
        try {
            step_ = cost_step(t_, watch);
        } catch (const Late&) {
            step_ = 1;
        }
        const int64_t rest = step_ > 0 ? slack_ % step_ : slack_;
        slack_ -= rest;
        return answer_.slope * static_cast<double>(rest);
    }

    void complete() {
        for (const Change& one : searched()) choice_[one.row] = one.format;
    }

    // A better plan: what it changes of the first one, in turn.
    std::vector<Change> searched() {
        answer_.cost = o_.limit - slack_;
        lost_ = useless();
        answer_.gap = std::max(answer_.slope * static_cast<double>(slack_), answer_.gap - lost_);
        if (o_.depth > 0) answer_.gap = std::min(answer_.gap, o_.below - answer_.bound - lost_);
        try {
            answer_.status = search_core() ? Status::kOptimal : Status::kBounded;
        } catch (const Late&) {
            answer_.status = Status::kBounded;
        }
        if (answer_.status == Status::kBounded) answer_.cases = cases_.numbers((begin_ + o_.seconds - now()) / kUnplanned, static_cast<double>(t_.n * t_.k));
        const bool other = !other_.changes.empty() && answer_.gap == other_.gap;
        answer_.gap += lost_;
        if (other) {
            answer_.cost = other_.cost;
            answer_.loss = other_.loss;
            return std::move(other_.changes);
        }
        std::vector<Change> changes;
        for (const Cell& move : moves_) {
            changes.push_back({move.row, static_cast<uint8_t>(move.format)});
            answer_.cost += move.dcost;
            answer_.loss += move.dloss;
        }
        return changes;
    }

    // Search for the least gap, by what takes least first. True when none is smaller.
    bool search_core() {
        double scale = std::fabs(answer_.loss) + answer_.slope * static_cast<double>(o_.limit);
        if (!std::isfinite(scale)) scale = 0.0;
        const bool part = o_.depth > 0;
        const double tiny = part ? o_.within / 8 : kTiny * scale, small = kSmall * std::fabs(answer_.loss), counted = part ? o_.within : kCounted * magnitude(answer_, o_.limit);
        const Branch::Manner to_the_end{kChoices, counted, false};
        Branch::Manner search_only{kChoices, counted, true};
        if (answer_.gap <= tiny || past(end_)) return answer_.gap <= tiny;
        size_t level = levels_ != nullptr ? levels_->depth() : 0;
        while (level > 0 && base_.table.n < kNear) look_at(--level);
        const auto done = [&](bool complete) { return answer_.gap <= counted || (complete && answer_.gap <= reach(level)); };
        const auto is_open = [&] { return !part && answer_.gap - cases_.least() > kStated * std::fabs(answer_.loss); };   // the gap that is stated is not small
        const auto moduli = [&](const std::vector<Cell>& c, double slope, int64_t slack, double gap, double enough, double end) { return by_moduli(c, choice_, slope, slack, gap, enough, end, cases_); };
        const int64_t every = base_.table.n > kWalk ? base_.table.n / kSampled : 1;
        if (told_by_formats(small, counted, every, true)) return answer_.gap - least_ <= counted;
        double branched_at = INFINITY;   // the gap from which branching to the end was no proof: from a smaller one it may be
        // Costs in a matrix, and the relaxation splits a row that is much of them: no search of states is short there (giants.hpp).
        if (used_.partial() && splits_one_in(kHeavy << 2, 1) && (branched_near(level, tiny, counted) || by_giant(counted, 1) || answer_.gap <= counted)) return true;
        bool best = false, none = false, served = false;   // of the table looked at: whether its best plan is known; whether none has less than the first; whether costs are few
        {
            std::vector<Cell> cells = sampled(every).cells;
            if (used_.partial() || (every > 1 ? every * count_rows(cells) <= 2 * kWalk : count_rows(cells) <= kNear)) {
                none = search(middling() ? kWalk : kNear, middling() && !used_.partial() ? kFew << 3 : kFew, tiny, true);
                if (done(none)) return true;
                cells = sampled(every).cells;
            }
            const bool free = mostly_free(cells, answer_.gap) && !splits_one_in(kMuch, every);   // what such a row leaves open is its formats' to close
            served = levels_ != nullptr && every == 1 && Totals::serves(cells, slack_, step_);
            if (served && !free) {
                best = by_totals(level, cells, counted);
                if (done(best)) return true;
                if (best && t_.n >= kLong && answer_.gap <= small) return false;
                if (t_.n >= kWide && answer_.slope > 0) {
                    if (done(by_strays(counted)) || by_classes(counted)) return true;
                    look_at(level);
                    if (answer_.gap <= counted) return true;
                }
            }
            if (free && done(by_filling(cells, every, counted))) return true;
            if (!free && t_.n >= kLong && !best) {
                take(halved(cells, answer_.slope, slack_, answer_.gap, counted, kChoices, kFar * counted, end_), cells, count_rows(cells));
                search_only.begun = answer_.gap > counted;
            }
            if (!best && t_.n >= kLong && answer_.gap > small && t_.top_size / kHeavy <= t_.total_size / t_.n) combine_strays(counted);
            if (answer_.gap <= counted) return true;
        }
        if (by_multiples(counted)) return true;
        const int64_t searched = t_.n >= kLong ? std::min(kSearched, t_.n / 128) : used_.partial() ? kSearched >> 2 : kSearched;
        if (levels_ != nullptr && !best && !none && heavy() && (level == 0 || every == 1)) {
            if ((level > 0 && branched_near(level, tiny, counted)) || answer_.gap <= counted || by_giant(counted, every) || answer_.gap <= counted) return true;
            if (done(branched(tiny, searched >> 3, search_only, every))) return true;   // nearly equal slopes: a few rows fill what is left
        } else if (!best && !none) {
            // First a little of it, unless costs are few: where that does not close the gap, the states of all rows looked at may be few.
            const bool states = middling() && levels_ != nullptr && every == 1;
            if (states && !served && done(branched(tiny, searched >> 3, search_only))) return true;
            best = states && search(kWalk, served ? kFew << 3 : kFew, tiny, true);
            if (done(best) || (middling() && by_few(level, every, counted))) return true;
            if (!best && done(branched(tiny, searched, search_only, every))) return true;
            // Before sets of odd cells: those are many where such a proof is likely.
            if (!best && provable_ && level == 0) {
                branched_at = answer_.gap;
                if (done(branched(tiny, less(kProved), to_the_end))) return true;
            }
        }
        if (answer_.gap <= small && t_.n >= kLong) return false;
        if (told_by_formats(small, counted, every, false)) return answer_.gap - least_ <= counted;
        if (by_multiples(counted)) return true;
        look_far(level);
        if (done(search(kNear, kFew, tiny, true)) || done(search(middling() ? kWalk : kNear, kFew << 3, tiny, true))) return true;
        if (middling() && levels_ == nullptr && done(by_little(level, tiny, counted, search_only, to_the_end))) return true;
        const bool short_table = t_.n < kWalk, few = short_table || (middling() && count_rows(sampled(1).cells) < kWalk);   // rows of use
        if (short_table && ((!part && done(closed(without_rests(), counted))) || (o_.depth < kDeep && done(closed(by_counts(kLooks), counted))))) return true;
        if ((short_table || (few && answer_.gap > small)) && done(closed(residual, counted))) return true;
        if (answer_.gap < branched_at && done(branched(tiny, less(kProved), to_the_end))) return true;
        if (few && (done(by_large(tiny, counted)) || done(by_wide_totals(counted)))) return true;
        if (few && is_open() && done(closed(moduli, counted))) return false;   // proved by what the certificate holds, not by a search
        if (few && ((o_.depth < kDeep && done(closed(by_steps(), counted))) || done(closed(o_.depth > 0 ? soon_filled : filled, counted)))) return true;
        if (few && is_open() && done(closed(by_counts(kLooks << 4), counted))) return true;
        if (!spent() && by_states(level, tiny, small, counted)) return true;
        return middling() && answer_.gap > kWanted * std::fabs(answer_.loss) && again(counted);
    }

    // The states of ever more rows, and branches closed by states: where totals repeat, or costs are few.
    bool by_states(size_t level, double tiny, double small, double counted) {
        const int64_t most = o_.work;
        const int64_t stages[3][2] = {{kNear / 16, 1 << 10}, {kNear / 4, 1 << 10}, {kNear, 1 << 13}};
        for (const auto& stage : stages) {
            if (search(stage[0], stage[1], tiny) && answer_.gap <= reach(level)) return true;
            if (&stage == &stages[0] && !spent()) combine(1, counted);
            if (answer_.gap <= counted) return true;
            if (&stage == &stages[1] && base_.table.n < kWalk && branched(tiny, less(kBranched >> 4), {}) && answer_.gap <= reach(level)) return true;
            if (spent()) return false;
            if (&stage != &stages[0] && answer_.gap <= small) o_.work = std::min(o_.work, work_ + most / (answer_.core > kNear ? 16 : 2));
        }
        if (base_.table.n < kWalk && branched(tiny, less(kBranched), {})) return true;
        if (search(int64_t{1} << 60, int64_t{1} << 14, tiny)) return true;
        return !spent() && search(int64_t{1} << 60, int64_t{1} << 20, tiny, true);
    }

    // Of a part, a part of the work.
    int64_t less(int64_t work) const { return o_.depth > 0 ? work >> kLess : work; }

    bool spent() {
        keep_time();
        return work_ >= o_.work || past(end_);
    }

    // A plan of another multiplier.
    struct Other {
        std::vector<Change> changes;
        int64_t cost = 0;
        double loss = 0.0, gap = INFINITY;
    };

    std::vector<Cell> moves_;
    Other other_;        // in place of moves, where the gap is its
    double least_ = 0.0;   // no plan has a smaller gap than this
    bool provable_ = false, told_ = false;   // of all rows looked at, by branching further; by formats
    double lost_ = 0.0, rounded_ = INFINITY;   // of the gap, what no choice can spend; the gap for which multiples were looked for
    CountsCases cases_;
    int64_t work_ = 0, looked_ = 0, step_ = 0, parts_ = 0;   // looked: work of all searches; step: every cost of a deviation is a multiple of it
};

}  // namespace bitwright

#include "fillings.hpp"
#include "giants.hpp"
#include "middling.hpp"
#include "multiples.hpp"
#include "splits.hpp"
