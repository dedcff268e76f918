// What a search by numbers of rows proves (counts.hpp), or a bound by moduli (moduli.hpp), so that anyone can recompute it: a tree of cases.
//
// A case is a set of bounds on numbers of rows, as the splits above it say, and has multipliers of its own, one of the limit and one of each level.
// Their value bounds every plan of the case, whatever they are, and each plan is of some case: the least value bounds all plans. Nothing else of the search
// has to be believed (bitwright/core/cases.py).
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace bitwright {

class CountsCases {
  public:
    static constexpr size_t kMost = 1 << 13;   // numbers of a tree

    // first: least cost of each level but the lowest; others: rows at each level that the search leaves as they are.
    void begin(std::vector<int64_t> first, std::vector<int64_t> others, double price) {
        first_ = std::move(first);
        others_ = std::move(others);
        part_.assign(1, {0.0, price, std::vector<double>(others_.size(), 0.0)});
    }

    // What multipliers bound a case by; the better ones stay. modulus: of what is left of the limit, or 0; moved: cells that it takes time to check.
    void tell(size_t at, double value, double price, const std::vector<double>& of_level, int64_t modulus = 0, double moved = 0.0) {
        Case& one = part_[at];
        if (!(value > one.value)) return;
        one.value = value;
        one.price = price;
        one.of_level = of_level;
        one.modulus = modulus;
        one.moved = moved;
    }

    // A case in two: with at most `most` rows at a level, and with more. The number of the first; the second comes next.
    size_t split(size_t at, size_t level, int64_t most) {
        const size_t fewer = part_.size();
        for (int way = 0; way < 2; ++way) {
            Case child = part_[at];
            part_.push_back(std::move(child));
        }
        part_[at].fewer = fewer;
        part_[at].level = level;
        part_[at].most = most;
        return fewer;
    }

    // A case in two: a row takes a format up to this one, or a later one. As `split`.
    size_t split_unit(size_t at, int64_t row, int format) {
        const size_t fewer = split(at, 0, format);
        part_[at].row = row;
        return fewer;
    }

    // No plan is of a case.
    void none(size_t at) { part_[at].value = std::numeric_limits<double>::infinity(); }

    // What they bound all plans by.
    double least() const { return part_.empty() ? 0.0 : worth(0); }

    // Cells that its tables of residues move, each some time for who checks them.
    double moved() const {
        std::vector<double> out;
        return part_.empty() ? 0.0 : write(0, least(), out);
    }

    // How many levels have a least cost, and these; then from the root on, the side of fewer rows first, level and `most` of a split,
    // or -2, a row and its last format on the first side; or -1, the price of the limit, and those of all levels; or -3, a modulus and the same. Splits that do
    // not raise the least value are left out. Empty where nothing is proved, or where to check it takes more than `most` looks at a cell, of which each number
    // takes one at all `cells` of the table.
    std::vector<double> numbers(double most, double cells) const {
        std::vector<double> out;
        const double least = this->least();
        if (!(least > 0)) return out;
        out.push_back(static_cast<double>(first_.size()));
        for (const int64_t cost : first_) {
            if (cost > kExact) return {};
            out.push_back(static_cast<double>(cost));
        }
        const double moved = write(0, least, out);
        if (out.size() > kMost || static_cast<double>(out.size()) * cells + kMoved * moved > most) out.clear();
        return out;
    }

  private:
    static constexpr int64_t kExact = int64_t{1} << 53;
    static constexpr double kMoved = 400;   // cells looked at in the time of one that is moved

    struct Case {
        double value, price;
        std::vector<double> of_level;
        int64_t modulus = 0;
        double moved = 0.0;
        size_t fewer = 0, level = 0;   // fewer: 0 where it is not split
        int64_t most = 0, row = -1;    // row: -1 where a number is split
    };

    double worth(size_t at) const {
        const Case& one = part_[at];
        return one.fewer == 0 ? one.value : std::max(one.value, std::min(worth(one.fewer), worth(one.fewer + 1)));
    }

    // Returns how many cells are moved.
    double write(size_t at, double least, std::vector<double>& out) const {
        const Case& one = part_[at];
        if (one.fewer == 0 || one.value >= least) {
            out.push_back(one.modulus > 0 ? -3.0 : -1.0);
            if (one.modulus > 0) out.push_back(static_cast<double>(one.modulus));
            out.push_back(one.price);
            out.insert(out.end(), one.of_level.begin(), one.of_level.end());
            return one.moved;
        }
        if (one.row >= 0) {
            out.insert(out.end(), {-2.0, static_cast<double>(one.row), static_cast<double>(one.most)});
        } else {
            out.push_back(static_cast<double>(one.level));
            out.push_back(static_cast<double>(one.most + others_[one.level]));
        }
        const double moved = write(one.fewer, least, out);
        return moved + write(one.fewer + 1, least, out);
    }

    std::vector<int64_t> first_, others_;
    std::vector<Case> part_;
};

}  // namespace bitwright
