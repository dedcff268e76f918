// The core of a large table whose costs are few: a table of totals, from the rows of least penalty on.
//
// With equal sizes, or a few, deviations add up to few different totals, and the least penalty of each is kept (Bellman 1957), not
// lists of states. Rows come by rising penalty, so that the first hundred give a plan near the best one, and the table ends where a
// row alone would pay more than that plan's gap. Totals beyond a window are left out: to leave it and come back takes deviations of
// so much cost both ways, and where the cheapest of them (in part, as in a relaxation) pay more than the gap, nothing was missed.
#pragma once

#include "closer.hpp"
#include "fast512.hpp"

namespace bitwright {

class Totals {
  public:
    // Whether costs are few: the slack and most deviations are at most so many steps.
    static bool serves(const std::vector<Cell>& cells, int64_t slack, int64_t step, int64_t most = kFewest) {
        if (step <= 0 || slack / step > most) return false;
        const auto few = std::count_if(cells.begin(), cells.end(), [&](const Cell& c) { return std::abs(c.dcost) / step <= most; });
        return 8 * few >= 7 * static_cast<int64_t>(cells.size());
    }

    static constexpr size_t kGroups = 1 << 10;

    // cells: those of one row together. step: all costs, and the slack, are multiples of it. rows: at most so many of them, the nearest.
    // widest: of the windows, in steps.
    Totals(const std::vector<Cell>& cells, double slope, int64_t slack, int64_t step, double gap, size_t rows = kGroups, int64_t widest = kWidest)
        : cells_(cells), widest_(widest), price_(slope * static_cast<double>(step)), slack_(slack / step), step_(step), gap_(gap) {
        for (size_t q = 0; q < cells.size(); ++q) {
            if (q == 0 || cells[q].row != cells[q - 1].row) groups_.push_back({kInfinity, q, q});
            groups_.back().end = q + 1;
            groups_.back().least = std::min(groups_.back().least, cells[q].penalty);
        }
        const auto nearer = [](const Group& a, const Group& b) { return a.least != b.least ? a.least < b.least : a.begin < b.begin; };
        if (groups_.size() > rows) {
            std::nth_element(groups_.begin(), groups_.begin() + static_cast<std::ptrdiff_t>(rows), groups_.end(), nearer);
            cut_ = groups_[rows].least;
            groups_.resize(rows);
        }
        std::sort(groups_.begin(), groups_.end(), nearer);
    }

    // The best plan and its gap; complete where none is better. It ends where the gap is at most `enough`, or after `most` additions.
    CoreResult run(double enough, double most) {
        CoreResult best{gap_, false, 0, 0, {}};
        int64_t dearest = slack_;
        for (size_t g = 0; g < std::min(groups_.size(), kFirst); ++g)
            for (size_t q = groups_[g].begin; q < groups_[g].end; ++q) dearest = std::max(dearest, std::abs(cells_[q].dcost / step_));
        // A window that loses nothing at the gap in hand, where that is not much wider than one that costs little; else the little one first.
        for (int64_t window = 2 * dearest, most_of_it = 8 * window; !best.complete && best.gap > enough && window <= widest_ && best.work < static_cast<int64_t>(most);) {
            int64_t safe = window;
            const Ways left = ways(best.gap);
            while (safe <= most_of_it && leaving(safe, left) < best.gap) safe += 1 + safe / 4;   // a window of 2 steps would not grow by a quarter
            const bool much = safe > most_of_it;
            fill(much ? window : safe, enough, most, best);
            window = much ? 2 * window : widest_ + 1;
            most_of_it = widest_;
        }
        return best;
    }

  private:
    static constexpr size_t kFirst = 64;
    static constexpr int64_t kFewest = 1 << 11, kWidest = 1 << 14;
    static constexpr int64_t kTakes = 8;   // of the purse, what an addition takes

    struct Group {
        double least;
        size_t begin, end;
    };

    // One table, of totals no further than `window` from none.
    void fill(int64_t window, double enough, double most, CoreResult& best) {
        std::vector<double> now_at(1, 0.0), next;
        std::vector<std::vector<uint8_t>> taken;
        std::vector<int64_t> lows{0};
        int64_t low = 0, high = 0, at = 0, found = -1;
        size_t g = 0;
        for (; g < groups_.size() && groups_[g].least < best.gap && best.gap > enough && best.work < static_cast<int64_t>(most); ++g) {
            int64_t to_low = low, to_high = high;
            for (size_t q = groups_[g].begin; q < groups_[g].end; ++q) {
                if (!(cells_[q].penalty < best.gap)) continue;
                to_low = std::max(-window, std::min(to_low, low + cells_[q].dcost / step_));
                to_high = std::min(window, std::max(to_high, high + cells_[q].dcost / step_));
            }
            const int64_t width = to_high - to_low + 1, before = best.work;
            next.resize(static_cast<size_t>(width));
            std::fill(next.begin(), next.begin() + (low - to_low), kInfinity);
            std::fill(std::copy(now_at.begin(), now_at.end(), next.begin() + (low - to_low)), next.end(), kInfinity);
            taken.emplace_back(static_cast<size_t>(width), 0);
            for (size_t q = groups_[g].begin; q < groups_[g].end; ++q) {
                if (!(cells_[q].penalty < best.gap)) continue;
                const int64_t shift = cells_[q].dcost / step_, first = std::max(to_low, low + shift), last = std::min(to_high, high + shift);
                if (last < first) continue;
                lower(now_at.data() + (first - shift - low), cells_[q].penalty, static_cast<uint8_t>(q - groups_[g].begin + 1), last - first + 1,
                      next.data() + (first - to_low), taken.back().data() + (first - to_low));
                best.work += last - first + 1;
            }
            spend(best.work - before + width, kTakes);
            now_at.swap(next);
            low = to_low;
            high = to_high;
            lows.push_back(low);
            const double worth = best.gap / price_;   // steps of the slack that are worth the gap
            const int64_t from = worth < 0x1p60 ? std::max(low, slack_ - static_cast<int64_t>(worth) - 1) : low;
            for (int64_t c = from; c <= std::min(high, slack_); ++c) {
                const double gap = now_at[static_cast<size_t>(c - low)] + price_ * static_cast<double>(slack_ - c);
                if (!(gap < best.gap)) continue;
                best.gap = gap;
                at = c;
                found = static_cast<int64_t>(g);
            }
            best.states = std::max(best.states, width);
        }
        const double rest = g < groups_.size() ? groups_[g].least : cut_;
        best.complete = rest >= best.gap && leaving(window, ways(best.gap)) >= best.gap;
        if (found < 0) return;
        best.cells.clear();
        for (int64_t t = found; t >= 0; --t) {
            const uint8_t cell = taken[static_cast<size_t>(t)][static_cast<size_t>(at - lows[static_cast<size_t>(t) + 1])];
            if (cell == 0) continue;
            best.cells.push_back(static_cast<int64_t>(groups_[static_cast<size_t>(t)].begin) + cell - 1);
            at -= cells_[static_cast<size_t>(best.cells.back())].dcost / step_;
        }
    }

    // Deviations of one way by rising penalty for a step: how many steps the first of them move, and what they pay.
    struct Way {
        std::vector<double> rate, steps{0.0}, paid{0.0};

        // Least penalty of deviations, the last of them in part, that move so many steps.
        double moving(double far) const {
            if (!(far > 0)) return 0.0;
            const auto at = static_cast<size_t>(std::lower_bound(steps.begin() + 1, steps.end(), far) - steps.begin()) - 1;
            return at < rate.size() ? paid[at] + rate[at] * (far - steps[at]) : kInfinity;
        }
    };

    // way: 1, those that add steps, or -1, those that save steps. Of those that pay less than the gap.
    Way way(int to, double gap) const {
        std::vector<std::pair<double, double>> by_rate;
        for (const Group& group : groups_)
            for (size_t q = group.begin; q < group.end; ++q) {
                const double moved = static_cast<double>(to * (cells_[q].dcost / step_));
                if (moved > 0 && cells_[q].penalty < gap) by_rate.emplace_back(cells_[q].penalty / moved, moved);
            }
        std::sort(by_rate.begin(), by_rate.end());
        Way way;
        for (const auto& [rate, moved] : by_rate) {
            way.rate.push_back(rate);
            way.steps.push_back(way.steps.back() + moved);
            way.paid.push_back(way.paid.back() + rate * moved);
        }
        return way;
    }

    // Both ways of a gap: looked at for one window after another.
    struct Ways {
        double gap;
        Way up, down;
    };

    Ways ways(double gap) const { return {gap, way(1, gap), way(-1, gap)}; }

    // Least penalty of a plan of use whose total was beyond the window on the way.
    double leaving(int64_t window, const Ways& ways) const {
        const double back = std::max(0.0, static_cast<double>(window + slack_) - ways.gap / price_);
        const double w = static_cast<double>(window);
        return std::min(ways.up.moving(w) + ways.down.moving(w - static_cast<double>(slack_)), ways.down.moving(w) + ways.up.moving(back));
    }

#if BW_FAST
    BW_AVX512 static int64_t lower512(const double* from, double penalty, uint8_t cell, int64_t count, double* value, uint8_t* cells) {
        int64_t c = 0;
        for (; c + 8 <= count; c += 8) {
            const __m512d v = _mm512_add_pd(_mm512_loadu_pd(from + c), _mm512_set1_pd(penalty)), held = _mm512_loadu_pd(value + c);
            const __mmask8 less = _mm512_cmp_pd_mask(v, held, _CMP_LT_OQ);
            const __m128i was = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(cells + c));
            _mm512_storeu_pd(value + c, _mm512_mask_mov_pd(held, less, v));
            _mm_storel_epi64(reinterpret_cast<__m128i*>(cells + c), _mm_mask_mov_epi8(was, less, _mm_set1_epi8(static_cast<char>(cell))));
        }
        return c;
    }

    BW_AVX2 static int64_t lower256(const double* from, double penalty, uint8_t cell, int64_t count, double* value, uint8_t* cells) {
        const __m256d paid = _mm256_set1_pd(penalty);
        // Of four values, which are less: each 16 bits twice over.
        const auto half = [&](int64_t c) BW_AVX2 {
            const __m256d v = _mm256_add_pd(_mm256_loadu_pd(from + c), paid), held = _mm256_loadu_pd(value + c), less = _mm256_cmp_pd(v, held, _CMP_LT_OQ);
            _mm256_storeu_pd(value + c, _mm256_blendv_pd(held, v, less));
            const __m256i bits = _mm256_castpd_si256(less);
            return _mm_packs_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
        };
        int64_t c = 0;
        for (; c + 8 <= count; c += 8) {
            const __m128i first = half(c), last = half(c + 4), less = _mm_packs_epi16(_mm_packs_epi32(first, last), _mm_setzero_si128());
            __m128i* const at = reinterpret_cast<__m128i*>(cells + c);
            _mm_storel_epi64(at, _mm_blendv_epi8(_mm_loadl_epi64(at), _mm_set1_epi8(static_cast<char>(cell)), less));
        }
        return c;
    }
#endif

    static void lower(const double* from, double penalty, uint8_t cell, int64_t count, double* value, uint8_t* cells) {
        int64_t c = 0;
#if BW_FAST
        if (has_avx512()) c = lower512(from, penalty, cell, count, value, cells);
        else if (BW_HAS_AVX2) c = lower256(from, penalty, cell, count, value, cells);
#endif
        for (; c < count; ++c) {
            const double v = from[c] + penalty;
            const bool less = v < value[c];
            value[c] = less ? v : value[c];
            cells[c] = less ? cell : cells[c];
        }
    }

    const std::vector<Cell>& cells_;
    int64_t widest_;
    double price_;   // of a step
    int64_t slack_, step_;
    double gap_, cut_ = kInfinity;   // the least penalty of a row that was left out
    std::vector<Group> groups_;
};

}  // namespace bitwright
