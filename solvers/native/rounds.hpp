// The first pass over a large table, in rounds that narrow its bracket of multipliers on the way.
//
// Every stretch of the table gives a 128th of its rows to the first round and four times as much to each next one. What
// was passed is a sample of what was not (a systematic one, Cochran, Sampling Techniques, 1977, chapter 8), so after each
// round the bracket becomes as narrow as that sample allows, and rows that were listed for the wider one are looked at
// again. So nearly no row is read for the bracket alone, and few are copied out.
#pragma once

#include "around.hpp"

namespace bitwright {

inline uint64_t mixed(uint64_t z) {   // the last steps of splitmix64 (Steele, Lea, Flood 2014)
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

class Rounds {
  public:
    static constexpr int64_t kLeast = 1 << 12;   // rows that make two stretches

    // ratio: what a unit of size may cost. deviation: of a row's part of the target, where known; widest: its dearest step. turn: where the
    // parts of each stretch begin. least: rows to be listed at the end, or more. end: throws Late after it.
    Rounds(const Table& t, double ratio, double deviation, double widest, uint64_t turn, int64_t least, Crew& crew, uint8_t* choice, double end)
        : t_(t), ratio_(ratio), deviation_(deviation), widest_(widest), turn_(turn), least_(least), crew_(crew), choice_(choice), end_(end),
          part_(kPart * std::clamp<int64_t>(t.n / (kLots * kPart * kParts), 1, kWidest)), stretches_(t.n / (part_ * kParts)),
          lists_(static_cast<size_t>(std::min(lists_of(t.n), stretches_))), off_(static_cast<size_t>(stretches_), 0.0) {}

    // As `fused_pass`; `b` becomes narrower. most: rows listed at once; `top` of them were.
    Tally run(Bracket& b, int64_t most, int64_t& top) {
        Tally all;
        long double loss = 0.0L;
        int from = 0;
        expect(t_, true);
        bool precise = narrower(b, kSingle);
        for (const int to : {1, 4, kJudged, 64, kParts}) {
            if (to == kParts) expect(t_, false);
            pass(from, to, b, precise, most, all, loss);
            top = std::max(top, listed());
            all.over = all.over || listed() > most;
            if (all.over || to == kParts) break;
            from = to;
            for (int again = kAgain; again > 0; --again) {   // nearly equal slopes: a bracket that holds them all becomes narrower several times
                const double share = static_cast<double>(passed_) / static_cast<double>(t_.n);
                const double target = ratio_ * static_cast<double>(weight_) - static_cast<double>(all.cost);
                // No fewer rows than the last level takes: those just outside matter to the core.
                const double held = std::min(0.45, 0.5 * share * static_cast<double>(least_) / static_cast<double>(std::max<int64_t>(listed(), 1)));
                std::vector<Table> lists;
                for (const Rows& list : lists_) lists.push_back(list.view(t_));
                Bracket inner = around(lists, target, margin(share), held, b, crew_, end_, kLoose, kThinnest, much() ? widest_ : INFINITY);
                precise = narrower(inner, kSingle);
                widen(inner, precise, b);
                keep(inner, precise, all, loss);
                const double was = b.high - b.low;
                b = inner;
                // Slopes that are equal: what is left of the table is filled as fast (fill.hpp).
                if (narrower(b, kTied) && listed() > passed_ / kSparse) {
                    lists.clear();
                    for (const Rows& list : lists_) lists.push_back(list.view(t_));
                    all.over = common_slope(lists, b, kLooked).part > kMostly;
                }
                if (all.over) break;
                if (listed() <= passed_ - passed_ / 4 || !(b.high - b.low < was / 2)) break;
            }
            // Slopes that are equal, or stretches that are not alike.
            all.over = all.over || (listed() > passed_ / kUnlike && (to >= kJudged || narrower(b, kTied)));
            if (all.over) break;
        }
        all.loss = static_cast<double>(loss);
        all.rows = joined(t_, lists_, crew_);
        return all;
    }

  private:
    // How many lists a table has: more threads cannot share it, and each list costs some 20 us. They do not depend on the number of threads, so
    // their order, and the plan where slopes are equal, is the same for any number of them.
    static int64_t lists_of(int64_t n) {
        int64_t lists = 8;
        while (lists < 64 && n >= lists << 20) lists *= 2;
        return lists;
    }
    static constexpr int kParts = 128, kJudged = 16, kMany = 512, kUnlike = 5, kAgain = 6;
    static constexpr int64_t kSparse = 1 << 10, kLooked = 64;   // of slopes that are equal: of so many rows one is listed, or more; rows looked at
    static constexpr double kMostly = 0.5;                      // and the part of them that are of one slope, in cost
    static constexpr int64_t kPart = 16, kLots = 64, kWidest = 512;   // rows of a part, times up to kWidest in large tables
    // With 3 deviations about one solve in a hundred missed the critical slope and passed over the table once more.
    static constexpr double kSigmas = 3.5, kLoose = 1.3;

    // What the rows passed may be off by, where the rest of the table is as they are: by the deviation between neighbouring stretches, which
    // sees rows that are alike, or, where stretches are few, that of rows where it is greater. Where much is listed (nearly equal slopes near an
    // end of the range of budgets) what is settled is unlike it: the deviation of rows alone counts.
    double margin(double share) const {
        double square = 0.0;
        for (size_t s = 1; s < off_.size(); ++s) square += 0.5 * (off_[s] - off_[s - 1]) * (off_[s] - off_[s - 1]);
        square *= static_cast<double>(passed_) / static_cast<double>(std::max<int64_t>(settled_, 1));
        if (much()) square = 0.0;
        const double rows = much() || stretches_ < kMany ? deviation_ * deviation_ * static_cast<double>(passed_) : 0.0;
        return 2 * widest_ + kSigmas * std::sqrt((1 - share) * std::max(square, rows));
    }

    bool much() const { return listed() > passed_ / 8; }

    int64_t listed() const {
        int64_t rows = 0;
        for (const Rows& list : lists_) rows += list.n;
        return rows;
    }

    // What was passed and settled for one list; over: it holds too many rows.
    struct Settled {
        int64_t cost = 0, weight = 0, passed = 0, listed = 0;
        bool over = false;
    };

    // The rows listed that a narrower bracket does not settle, in their own place: as many bytes again would be taken for a copy.
    void keep(Bracket b, bool precise, Tally& all, long double& loss) {
        std::vector<Tally> settled(lists_.size());
        crew_.divide(lists_.size(), [&](size_t q) {
            Rows& rows = lists_[q];
            const Table was = rows.view(t_);
            Pass over(was, rows.id.data(), rows.chosen.data(), b, precise, was.n, choice_);
            rows.n = rows.total_size = 0;
            over.run(0, was.n, settled[q], rows);
        });
        for (const Tally& one : settled) {
            all.cost += one.cost;
            loss += one.loss;
        }
    }

    // Rows a..b and c..d.
    struct Runs {
        int64_t a, b, c, d;
        void fetch(const Table& t) const {
            bitwright::fetch(t, a, b);
            bitwright::fetch(t, c, d);
        }
    };

    // Parts from..to of a stretch, which is gone round: two runs at most.
    Runs runs_of(int64_t s, int from, int to) const {
        const int64_t first = s * kParts * part_, turn = static_cast<int64_t>(mixed(static_cast<uint64_t>(s) + turn_) % kParts);
        const auto at = [&](int64_t part) { return first + part * part_; };
        const int64_t begin = turn + from, end = turn + to;
        return {at(std::min<int64_t>(begin, kParts)), at(std::min<int64_t>(end, kParts)),
                at(std::max<int64_t>(begin - kParts, 0)), at(std::max<int64_t>(end - kParts, 0))};
    }

    // Parts from..to of every stretch (and the rows after the last one in the last round).
    void pass(int from, int to, Bracket b, bool precise, int64_t most, Tally& all, long double& loss) {
        const auto lists = static_cast<int64_t>(lists_.size());
        const int workers = static_cast<int>(std::min<int64_t>(crew_.size(), lists));
        std::vector<Settled> settled(lists_.size());
        std::vector<double> sums(static_cast<size_t>(stretches_) + 1, 0.0);   // of each stretch, and of the rows after them
        crew_.share(workers, [&](int me) {
            Pass over(t_, nullptr, nullptr, b, precise, most, choice_);
            for (int64_t q = lists * me / workers; q < lists * (me + 1) / workers; ++q) {
                Rows& list = lists_[q];
                Settled& out = settled[q];
                const int64_t before = list.n, begin = stretches_ * q / lists, end = stretches_ * (q + 1) / lists;
                list.expect(t_, t_.n / lists / 64);
                const auto rows = [&](int64_t first, int64_t last, Tally& sum) {
                    if (first >= last || out.over) return;
                    out.over = !over.run(first, last, sum, list);
                    out.passed += last - first;
                    release(t_, first, last);
                };
                for (int64_t s = begin; s < end && !out.over; ++s) {
                    if (past(end_)) throw Late();
                    const Runs runs = runs_of(s, from, to);
                    if (s == begin) runs.fetch(t_);
                    if (s + 1 < end) runs_of(s + 1, from, to).fetch(t_);
                    const int64_t listed = list.total_size;
                    Tally sum;
                    rows(runs.a, runs.b, sum);
                    rows(runs.c, runs.d, sum);
                    out.cost += sum.cost;
                    out.weight += sum.weight;
                    sums[s] = sum.loss;
                    off_[s] += static_cast<double>(sum.cost) - ratio_ * static_cast<double>(sum.weight - (list.total_size - listed));
                }
                if (to == kParts && q == lists - 1) {
                    Tally sum;
                    rows(stretches_ * kParts * part_, t_.n, sum);
                    out.cost += sum.cost;
                    sums[stretches_] = sum.loss;
                }
                out.listed = list.n - before;
                if (out.over) return;
            }
        });
        for (const double sum : sums) loss += sum;
        for (const Settled& one : settled) {
            all.over = all.over || one.over;
            all.cost += one.cost;
            weight_ += one.weight;
            passed_ += one.passed;
            settled_ += one.passed - one.listed;
        }
    }

    Table t_;
    double ratio_, deviation_, widest_;
    uint64_t turn_;
    int64_t least_;
    Crew& crew_;
    uint8_t* choice_;
    double end_;
    int64_t part_, stretches_, weight_ = 0, passed_ = 0, settled_ = 0;
    std::vector<Rows> lists_;
    std::vector<double> off_;   // of each stretch: cost of the settled rows less their part of the target
};

}  // namespace bitwright
