// What a search by numbers of rows proves (counts.hpp), so that anyone can recompute it: a tree of cases.
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
        part_.assign(1, {0.0, price, std::vector<double>(others_.size(), 0.0), 0, 0, 0});
    }

    // What multipliers bound a case by; the better ones stay.
    void tell(size_t at, double value, double price, const std::vector<double>& of_level) {
        Case& one = part_[at];
        if (!(value > one.value)) return;
        one.value = value;
        one.price = price;
        one.of_level = of_level;
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

    // No plan is of a case.
    void none(size_t at) { part_[at].value = std::numeric_limits<double>::infinity(); }

    // What they bound all plans by.
    double least() const { return part_.empty() ? 0.0 : worth(0); }

    // How many levels have a least cost, and these; then from the root on, the side of fewer rows first, level and `most` of a split,
    // or -1, the price of the limit, and those of all levels. Splits that do not raise the least value are left out. Empty where nothing is proved, or by
    // more than `most` numbers, which it takes time to check.
    std::vector<double> numbers(double most) const {
        std::vector<double> out;
        const double least = this->least();
        if (!(least > 0)) return out;
        out.push_back(static_cast<double>(first_.size()));
        for (const int64_t cost : first_) {
            if (cost > kExact) return {};
            out.push_back(static_cast<double>(cost));
        }
        write(0, least, out);
        if (out.size() > kMost || static_cast<double>(out.size()) > most) out.clear();
        return out;
    }

  private:
    static constexpr int64_t kExact = int64_t{1} << 53;

    struct Case {
        double value, price;
        std::vector<double> of_level;
        size_t fewer, level;   // fewer: 0 where it is not split
        int64_t most;
    };

    double worth(size_t at) const {
        const Case& one = part_[at];
        return one.fewer == 0 ? one.value : std::max(one.value, std::min(worth(one.fewer), worth(one.fewer + 1)));
    }

    void write(size_t at, double least, std::vector<double>& out) const {
        const Case& one = part_[at];
        if (one.fewer == 0 || one.value >= least) {
            out.push_back(-1.0);
            out.push_back(one.price);
            out.insert(out.end(), one.of_level.begin(), one.of_level.end());
            return;
        }
        out.push_back(static_cast<double>(one.level));
        out.push_back(static_cast<double>(one.most + others_[one.level]));
        write(one.fewer, least, out);
        write(one.fewer + 1, least, out);
    }

    std::vector<int64_t> first_, others_;
    std::vector<Case> part_;
};

}  // namespace bitwright
