// Nearly equal slopes and costs without a common divisor: the core by two halves (Horowitz and Sahni 1974).
//
// No bound cuts the states of core.hpp there and no totals repeat, but penalties are a budget: a plan better than the one
// in hand pays less than its gap, so each half of the rows pays less than that, and one of them less than half of it. The
// choices of one half are listed up to half a budget, those of the other are looked at up to all of it, each for the
// partner that fits; then the other way round. The budget grows until there are too many choices, or until it is the gap:
// then no plan is better.
#pragma once

#include <array>

#include "by_cost.hpp"
#include "core.hpp"

namespace bitwright {

class Halves {
  public:
    static constexpr size_t kNearest = 1 << 12;   // options looked at, those of least penalty

    // One deviation: what it adds to cost and penalty, and who it is.
    struct Option {
        int64_t dcost;
        double penalty;
        int64_t cell, row;
    };

    // options: of penalties below the gap in hand, in any order; rows are numbered from 0 to `rows` - 1. Throws Late past `end`.
    Halves(std::vector<Option> options, size_t rows, double slope, int64_t slack, double end) : slope_(slope), slack_(slack), end_(end) {
        Watch watch(end);
        // Of equal penalties in no order: those of neighbouring rows may all add to the cost, or all save some.
        const auto mixed = [](const Option& o) { return static_cast<uint64_t>(o.row) * 0x9E3779B97F4A7C15ull; };
        const auto cheaper = [&](const Option& x, const Option& y) {
            if (x.penalty != y.penalty) return x.penalty < y.penalty;
            return x.row == y.row ? x.cell < y.cell : mixed(x) < mixed(y);
        };
        if (options.size() > kNearest) {
            watched(watch, options.size(), cheaper, [&](auto less) { std::nth_element(options.begin(), options.begin() + kNearest, options.end(), less); });
            cut_ = options[kNearest].penalty;
            options.resize(kNearest);
        }
        std::sort(options.begin(), options.end(), cheaper);
        std::vector<int8_t> side(rows, -1);
        int8_t next = 0;
        for (const Option& o : options) {
            if (side[o.row] < 0) {
                side[o.row] = next;
                next ^= 1;
            } else {
                rivals_ = true;
            }
            side_[static_cast<size_t>(side[o.row])].push_back(o);
        }
        std::vector<double> choices(rows, 1.0);
        for (const Option& o : options) choices[o.row] += 1.0;
        for (size_t row = 0; row < rows; ++row)
            if (side[row] >= 0) all_[side[row]] *= choices[row];
    }

    // Whether both halves have at most so many choices that cost less than `gap`: to look at them all is affordable.
    bool closes(double gap, int64_t most) const {
        const double all = static_cast<double>(most);
        if (std::max(all_[0], all_[1]) <= all) return true;
        return gap < cut_ && counted(side_[0], gap, all) == kBins && counted(side_[1], gap, all) == kBins;
    }

    enum class Left { kNothing, kProof, kMuch };   // what there is left to do

    // Lower the gap of `best` until `enough`, or until kQuick choices of a half were looked at; then `most` of them where that is
    // all. search_only: not for a proof alone. far: a gap that this will not make small; it ends after a first look. kNothing: no plan is better (or `enough`); kProof: to look at all is affordable.
    Left run(CoreResult& best, double enough, int64_t most, bool search_only, double far = kInfinity) const {
        try {
            return search(best, enough, most, search_only, far);
        } catch (const Late&) {
            return Left::kMuch;
        }
    }

  private:
    Left search(CoreResult& best, double enough, int64_t most, bool search_only, double far) const {
        for (const int64_t cap : {kFirst, kSecond, kQuick, most}) {
            const bool few = std::max(all_[0], all_[1]) <= static_cast<double>(cap);   // whatever they cost
            const double wide = std::min(cut_, few ? best.gap : affordable(best.gap, static_cast<double>(cap)));
            if (cap > kQuick && (wide < best.gap || search_only)) return wide < best.gap ? Left::kMuch : Left::kProof;
            if (wide > 0) {
                const double narrow = few ? wide : std::max(wide / 2, std::min(wide, affordable(wide, kListed)));
                meet({side_[0], narrow, side_[0].size()}, {side_[1], wide, side_[1].size()}, best);
                if (narrow < wide) meet({side_[1], narrow, side_[1].size()}, {side_[0], wide, side_[0].size()}, best);
            } else {   // too many options that cost nothing: some of them
                size_t some = 0;
                while ((int64_t{2} << some) <= cap) ++some;
                meet({side_[0], best.gap, some}, {side_[1], best.gap, some}, best);
            }
            best.complete = best.gap <= wide;
            if (best.complete || best.gap <= enough) return Left::kNothing;
            if (past(end_) || best.gap > far) return Left::kMuch;
        }
        return Left::kMuch;
    }

    static constexpr int64_t kFirst = 1 << 12, kSecond = 1 << 14, kQuick = 1 << 15;
    static constexpr double kListed = 1 << 13;
    static constexpr int64_t kLook = 1 << 15;   // choices between two looks at the clock
    static constexpr int64_t kTakes = 40;      // of the purse, what a choice takes that is looked at
    static constexpr int64_t kDearer = 16;   // what listing a choice takes, in choices looked at
    static constexpr int kBins = 256, kSpread = 32;   // places for each choice that is listed

    using Side = std::vector<Option>;   // by rising penalty

    void look() const {
        if (past(end_)) throw Late();
    }

    // The largest budget (at most `gap`) for which neither half has more than `most` choices.
    double affordable(double gap, double most) const {
        for (double budget = gap; budget > gap * 0x1p-64;) {
            const int bins = std::min(counted(side_[0], budget, most), counted(side_[1], budget, most));
            if (bins == kBins) return budget;
            if (bins > kBins / 8) return budget * bins / kBins;
            budget *= std::max(0.25, static_cast<double>(bins + 1) / kBins);   // so coarse a count says more than there are
        }
        return 0.0;
    }

    // How many of kBins equal parts of a budget may be spent: counted with penalties rounded down to whole parts.
    static int counted(const Side& s, double budget, double most) {
        std::array<double, kBins> upto;   // choices that spend no more than this part
        upto.fill(1.0);
        int top = kBins;
        for (const Option& o : s) {
            if (top == 0 || !(o.penalty < budget * top / kBins)) break;
            const int by = static_cast<int>(o.penalty / budget * kBins);
            for (int b = top - 1; b >= by; --b) upto[b] += upto[b - by];
            while (top > 0 && upto[top - 1] > most) --top;
        }
        return top;
    }

    // Choices of a half that spend less than `budget`, of its first options.
    struct Part {
        const Side& side;
        double budget;
        size_t options;
    };

    // Visit every one of them but none, from option q on; no deeper than the logarithm of their number, since all parts of one
    // are others.
    template <class Visit>
    void visit(const Part& part, size_t q, int64_t cost, double spent, std::vector<size_t>& path, Visit& visited) const {
        const Side& s = part.side;
        const size_t count = std::min(part.options, s.size());
        path.push_back(0);
        for (; q < count; ++q) {
            const Option& o = s[q];
            const double value = spent + o.penalty;
            if (!(value < part.budget)) break;
            if (rivals_ && taken(s, path, o.row)) continue;
            path.back() = q;
            visited(cost + o.dcost, value);
            if (q + 1 < count && value + s[q + 1].penalty < part.budget) visit(part, q + 1, cost + o.dcost, value, path, visited);
        }
        path.pop_back();
    }

    static bool taken(const Side& s, const std::vector<size_t>& path, int64_t row) {
        for (size_t p = 0; p + 1 < path.size(); ++p)
            if (s[path[p]].row == row) return true;
        return false;
    }

    // A choice that is listed: its options are numbers first to last of a common array.
    struct Listed {
        int64_t cost;
        double value;
        size_t first, last;
    };

    // The best pair of a choice of `a`, which are listed, and one of `b`.
    void meet(const Part& a, const Part& b, CoreResult& best) const {
        std::vector<size_t> path, options;
        std::vector<Listed> list{{0, 0.0, 0, 0}};
        auto add = [&](int64_t cost, double value) {
            if (list.size() % kLook == 0) look();
            list.push_back({cost, value, options.size(), options.size() + path.size()});
            options.insert(options.end(), path.begin(), path.end());
        };
        visit(a, 0, 0, 0.0, path, add);
        int64_t count = static_cast<int64_t>(list.size());
        best.work += (kDearer - 1) * count;
        spend(count, kDearer * kTakes);
        // One that costs no less and loses no less than another is of no use: so the dearest that fits is the best (of equal costs the last
        // one kept loses least).
        std::vector<Listed> kept;
        double least = kInfinity;
        for (const CostKey& key : by_cost(list, end_)) {
            const Listed& x = list[key.at];
            const double loss = x.value - slope_ * static_cast<double>(x.cost);
            if (!(loss < least)) continue;
            least = loss;
            kept.push_back(x);
        }
        list.swap(kept);
        // A partner leaves no more of the slack than the gap is worth: one bit tells whether there may be one.
        const double worth = slope_ > 0 ? best.gap / slope_ : kInfinity;
        int shift = 0, places = 6;
        while (shift < 62 && std::ldexp(1.0, shift) < worth + 1) ++shift;
        while ((size_t{1} << places) < kSpread * list.size()) ++places;
        const uint64_t mask = (uint64_t{1} << (places - 6)) - 1;
        std::vector<uint64_t> bits(mask + 1);
        const auto mark = [&](uint64_t p) { bits[(p >> 6) & mask] |= uint64_t{1} << (p & 63); };
        for (const Listed& x : list) {
            mark(static_cast<uint64_t>(x.cost >> shift));
            mark(static_cast<uint64_t>(x.cost >> shift) + 1);
        }
        const Listed* partner = nullptr;
        double least_gap = best.gap;
        std::vector<size_t> chosen;
        path.clear();
        auto match = [&](int64_t cost, double value) {
            if (++count % kLook == 0) {
                spend(kLook, kTakes);
                look();
            }
            const int64_t room = slack_ - cost;
            const uint64_t p = static_cast<uint64_t>(room >> shift);
            if (((bits[(p >> 6) & mask] >> (p & 63)) & 1) == 0) return;
            const auto dearer = std::upper_bound(list.begin(), list.end(), room, [](int64_t c, const Listed& x) { return c < x.cost; });
            if (dearer == list.begin()) return;
            const Listed& x = *(dearer - 1);
            const double gap = value + x.value + slope_ * static_cast<double>(room - x.cost);
            if (!(gap < least_gap)) return;
            least_gap = gap;
            partner = &x;
            chosen = path;
        };
        match(0, 0.0);
        visit(b, 0, 0, 0.0, path, match);
        best.work += count;
        spend(count % kLook, kTakes);
        best.states = std::max(best.states, count);
        if (partner == nullptr) return;
        best.gap = least_gap;
        best.cells.clear();
        for (const size_t q : chosen) best.cells.push_back(b.side[q].cell);
        for (size_t q = partner->first; q < partner->last; ++q) best.cells.push_back(a.side[options[q]].cell);
    }

    Side side_[2];
    double slope_;
    int64_t slack_;
    double end_;
    double cut_ = kInfinity;   // the least penalty that was left out
    bool rivals_ = false;      // some row has several options
    double all_[2] = {1.0, 1.0};   // choices of each half, whatever they cost
};

}  // namespace bitwright
