// Equal slopes: each row's dearer format while it fits, in the order of the rows.
//
// Rows from the first on are given the dearer one and rows from the last on the cheaper one, in stretches, as many of either as those passed let
// expect, until they meet: so a table is read once, and what is left to each row is a stretch of it.
#pragma once

#include "around.hpp"
#include "tied256.hpp"
#include "tied512.hpp"

namespace bitwright {

class Fill {
  public:
    // id: as of `Pass`. slope: where formats tie; part: of a slope, by how much those that tie may differ. end: throws Late after it.
    Fill(const Table& t, const uint32_t* id, double slope, double part, Crew& crew, uint8_t* choice, double end)
        : t_(t), id_(id), prices_{TiedPrices(t, slope, part, false), TiedPrices(t, slope, part, true)}, crew_(crew), choice_(choice), end_(end),
          stretch_(std::clamp<int64_t>(t.n / 64, kBlock, 1 << 14) / kBlock * kBlock), parts_(static_cast<size_t>((t.n + stretch_ - 1) / stretch_)) {}

    // 0: filled; 1: the cheaper formats cost more than the limit; -1: the dearer ones less.
    int run(int64_t limit) {
        const int64_t all = static_cast<int64_t>(parts_.size());
        limit_ = limit - prices_[0].least * t_.total_size;
        for (int64_t q = 0; q < kPairs; ++q) both(all * q / kPairs);
        int64_t begin = 0, end = all, least = 0, most = all;   // the last two: where the stretch in which the limit is reached can be
        for (int64_t more = 1;; more *= 2) {
            at_ = meet(begin, end);
            both(at_);
            room_ = left(at_, at_ + 1);
            if (room_ < parts_[at_].of[0].cost) {
                if (at_ == 0) return 1;
                most = end = at_;
                begin = std::max(least, at_ - more);
            } else if (room_ >= parts_[at_].of[1].cost && at_ + 1 < all) {
                settle({{at_, 1}});
                least = begin = at_ + 1;
                end = std::min(most, at_ + 1 + more);
            } else {
                const bool under = room_ > parts_[at_].of[1].cost;
                by_rows();
                return under ? -1 : 0;
            }
        }
    }

    int64_t room() const { return room_; }   // left of the limit
    // Of the plan; the sum of least loss + slope * cost.
    long double loss() const { return total(&TiedSums::loss); }
    long double least(double slope) const { return total(&TiedSums::least) + static_cast<long double>(slope) * prices_[0].least * t_.total_size; }

    // Rows that tie around the one where the limit is reached, up to half of `most` before and after it: what is left is filled by some that are undone
    // for others that are not taken, or by formats of other costs of the rows beside it.
    std::vector<int64_t> beside(int64_t most) const {
        std::vector<int64_t> rows;
        const auto look = [&](int64_t from, int64_t to, int64_t step) {
            for (int64_t i = from, found = 0; i != to && found < most / 2; i += step) {
                if (std::abs(i - from) >= kBeside && format(i, 0) == format(i, 1)) continue;
                rows.push_back(i);
                ++found;
            }
        };
        look(reached_, std::min(t_.n, reached_ + kFar), 1);
        look(reached_ - 1, std::max<int64_t>(-1, reached_ - 1 - kFar), -1);
        std::sort(rows.begin(), rows.end());
        return rows;
    }

  private:
    static constexpr int64_t kBlock = 512, kFar = 1 << 15, kBeside = 1 << 11;
    static constexpr int64_t kPairs = 4;
    static constexpr double kSure = 0.9;   // of the stretches that are expected to be of a kind, those that are passed before the next look

    // A stretch, and whether its dearer formats are wanted.
    struct Wanted {
        int64_t part;
        int dear;
    };
    struct Part {
        TiedSums of[2];   // with its cheaper and its dearer formats
        bool known[2] = {false, false};
    };

    int format(int64_t i, int dear) const {
        double least;
        return tied_row(t_, i, prices_[dear], least);
    }

    // Of the limit, what is left to the stretches begin to end: those before are dear, those after cheap.
    int64_t left(int64_t begin, int64_t end) const {
        int64_t room = limit_;
        for (int64_t q = 0; q < begin; ++q) room -= parts_[q].of[1].cost;
        for (int64_t q = end; q < static_cast<int64_t>(parts_.size()); ++q) room -= parts_[q].of[0].cost;
        return room;
    }

    // What a stretch costs with its cheaper formats, by how much that differs, and how much more its dearer ones cost, by the stretches passed: the last
    // by those that were passed with both, as it may be much less than stretches differ by.
    struct Costs {
        double low = 0.0, off = 0.0, more = 0.0;
    };
    Costs costs() const {
        double pairs = 0.0, more = 0.0, parts = 0.0, sum = 0.0, square = 0.0;
        const size_t whole = static_cast<size_t>(t_.n / stretch_);   // the last one may be shorter
        for (size_t q = 0; q < whole; ++q) {
            const Part& part = parts_[q];
            if (!part.known[0] || !part.known[1]) continue;
            ++pairs;
            more += static_cast<double>(part.of[1].cost - part.of[0].cost);
        }
        more /= std::max(pairs, 1.0);
        for (size_t q = 0; q < whole; ++q) {
            const Part& part = parts_[q];
            if (!part.known[0] && !part.known[1]) continue;
            const double low = part.known[0] ? static_cast<double>(part.of[0].cost) : static_cast<double>(part.of[1].cost) - more;
            ++parts;
            sum += low;
            square += low * low;
        }
        const double low = sum / std::max(parts, 1.0);
        return {low, std::sqrt(std::max(0.0, square / std::max(parts, 1.0) - low * low)), more};
    }

    // Settle the stretches begin to end but one, which is left.
    int64_t meet(int64_t begin, int64_t end) {
        while (end - begin > 1) {
            const double some = static_cast<double>(end - begin);
            const Costs cost = costs();
            const double dears = std::clamp((static_cast<double>(left(begin, end)) - some * cost.low) / std::max(cost.more, 1.0), 0.0, some);
            const double off = std::min(some, 2 * std::sqrt(some) * cost.off / std::max(cost.more, 1.0));
            int64_t dear = static_cast<int64_t>(kSure * std::max(0.0, dears - off)), cheap = static_cast<int64_t>(kSure * std::max(0.0, some - dears - off));
            if (dear + cheap == 0) (2 * dears > some ? dear : cheap) = 1;
            std::vector<Wanted> wanted;
            for (int64_t q = 0; q < dear; ++q) wanted.push_back({begin + q, 1});
            for (int64_t q = 0; q < cheap; ++q) wanted.push_back({end - 1 - q, 0});
            settle(wanted);
            begin += dear;
            end -= cheap;
        }
        return begin;
    }

    void both(int64_t part) {
        settle({{part, 1}});
        settle({{part, 0}});
    }

    void settle(const std::vector<Wanted>& wanted) {
        crew_.divide(wanted.size(), [&](size_t q) {
            if (past(end_)) throw Late();
            const int64_t begin = wanted[q].part * stretch_, end = std::min(t_.n, begin + stretch_);
            TiedSums sums;
            uint8_t scratch[kBlock];
            for (int64_t at = begin; at < end; at += kBlock) {
                const int count = static_cast<int>(std::min(kBlock, end - at));
                uint8_t* const to = id_ == nullptr ? choice_ + at : scratch;
                pass(at, count, prices_[wanted[q].dear], to, sums);
                for (int i = 0; id_ != nullptr && i < count; ++i) choice_[id_[at + i]] = to[i];
            }
            if (t_.size == nullptr) sums.cost *= t_.one_size;
            Part& part = parts_[wanted[q].part];
            part.of[wanted[q].dear] = sums;
            part.known[wanted[q].dear] = true;
            release(t_, begin, end);
        });
    }

    // Rows of a block, and the sums of what they cost, of rates alone where sizes are equal.
    void pass(int64_t at, int count, const TiedPrices& p, uint8_t* choice, TiedSums& sums) const {
        int done = 0;
#if BW_FAST
        if (t_.single && (p.first || p.last) && p.small) {
            const int serve = t_.k < 4 && at + count == t_.n ? count - 1 : count;   // of so few formats the next row is read as well
            if (has_avx512()) done = wide(at, serve / 64 * 64, p, choice, sums);
            else if (has_fma() && t_.top_size < kHuge) done = wide(at, serve / 8 * 8, p, choice, sums);
        }
#endif
        for (int i = done; i < count; ++i) {
            double least;
            const int x = tied_row(t_, at + i, p, least);
            choice[i] = static_cast<uint8_t>(x);
            sums.cost += (t_.rate[x] - p.least) * (t_.size == nullptr ? 1 : t_.weight(at + i));
            sums.loss += t_.loss_at(at + i, x);
            sums.least += least;
        }
    }

#if BW_FAST
    int wide(int64_t at, int count, const TiedPrices& p, uint8_t* choice, TiedSums& sums) const {
        const float* loss = static_cast<const float*>(t_.loss) + at * t_.k;
        switch (t_.k) {
#define BW_CASE(K) \
    case K: \
        if (t_.size == nullptr) has_avx512() ? tied_block512<K, true>(loss, nullptr, p, count, choice, sums) : tied_block256<K, true>(loss, nullptr, p, count, choice, sums); \
        else has_avx512() ? tied_block512<K, false>(loss, t_.size + at, p, count, choice, sums) : tied_block256<K, false>(loss, t_.size + at, p, count, choice, sums); \
        return count;
            BW_CASE(2) BW_CASE(3) BW_CASE(4) BW_CASE(5) BW_CASE(6) BW_CASE(7) BW_CASE(8) BW_CASE(9) BW_CASE(10)
            BW_CASE(11) BW_CASE(12) BW_CASE(13) BW_CASE(14) BW_CASE(15) BW_CASE(16)
#undef BW_CASE
            default: return 0;
        }
    }
#endif

    // The stretch where they met, row by row.
    void by_rows() {
        const int64_t begin = at_ * stretch_, end = std::min(t_.n, begin + stretch_);
        TiedSums sums = parts_[at_].of[0];
        room_ -= sums.cost;
        reached_ = end;
        for (int64_t i = begin; i < end; ++i) {
            const int x = format(i, 0), y = format(i, 1);
            const int64_t more = t_.cost_at(i, y) - t_.cost_at(i, x);
            const bool fits = more <= room_;
            if (!fits) reached_ = std::min(reached_, i);
            choice_[id_ == nullptr ? i : id_[i]] = static_cast<uint8_t>(fits ? y : x);
            if (!fits) continue;
            room_ -= more;
            sums.loss += t_.loss_at(i, y) - t_.loss_at(i, x);
        }
        parts_[at_].of[0].loss = sums.loss;
    }

    long double total(double TiedSums::* what) const {
        long double sum = 0.0L;
        for (size_t q = 0; q < parts_.size(); ++q) sum += parts_[q].of[static_cast<int64_t>(q) < at_].*what;
        return sum;
    }

    Table t_;
    const uint32_t* id_;
    TiedPrices prices_[2];
    Crew& crew_;
    uint8_t* choice_;
    double end_;
    int64_t stretch_, limit_ = 0, room_ = 0, at_ = 0, reached_ = 0;
    std::vector<Part> parts_;
};

}  // namespace bitwright
