// The fused pass over a table: each row's best format within a bracket of multipliers, and the rows that have no single
// best one there, copied out.
#pragma once

#include <cstring>

#include "choose.hpp"
#include "clock.hpp"
#include "coarse256.hpp"
#include "coarse512.hpp"
#include "pages.hpp"
#include "rows.hpp"

namespace bitwright {

// What a pass gives: totals of the rows that have one best format in the bracket, the size of all rows, and the other rows (at most `most`;
// `over` when there were more).
struct Tally {
    int64_t cost = 0, weight = 0;
    double loss = 0.0;
    bool over = false;
    Rows rows;
};

constexpr int64_t kShortTable = 1 << 20;   // of so many rows chunks are shorter, so that each thread has some

// One worker's pass over rows begin..end. `id`: original numbers of the rows, or null; `was`: the formats that stand in the choice of rows
// with numbers, or null where that is not known: their places lie apart, and only what changes is written there.
class Pass {
  public:
    // precise: in double precision.
    Pass(const Table& t, const uint32_t* id, const uint8_t* was, Bracket b, bool precise, int64_t most, uint8_t* choice)
        : t_(t), id_(id), was_(was), b_(b), most_(most), choice_(choice) {
#if BW_FAST
        fast_ = t.single && t.k >= 2 && t.k <= kFastest && BW_HAS_AVX2 && !flushes() &&
                *std::max_element(t.rate, t.rate + t.k) < (1 << 24) &&
                fast_prices(t.rate, t.k, t.size == nullptr ? static_cast<double>(t.one_size) : 1.0,
                            t.size == nullptr ? 1.0 : static_cast<double>(t.top_size), b.low, b.high, prices_);
        fine_ = fast_ && precise && has_fma();
        fast_ = fast_ && fine_ == precise;
        if (fast_ && (wide_ ? fine_ || t.k > 4 || t.size != nullptr : has_fma()) && (fine_ || b.high < (1 + kNarrow) * b.low)) tune();
#endif
    }

    // From now on over rows of another table of the same costs; without numbers.
    void over(const Table& t) { t_ = t; }

    // One chunk: its cost and loss; the listed rows go to `out`, which may be the rows of the table itself, from its start on. False when
    // there are too many of them.
    bool run(int64_t begin, int64_t end, Tally& sums, Rows& out) {
#if BW_FAST
        if (fast_) {
            const int64_t last = t_.k < 4 ? std::min(end, t_.n - 1) : end;   // of so few formats the next row is read as well
            const int64_t lanes = t_.k > 8 ? 16 : 8, whole = begin + std::max<int64_t>(0, last - begin) / lanes * lanes;
            if (!fast_run(begin, whole, sums, out)) return false;
            begin = whole;
        }
#endif
        return t_.single ? doubles<float>(begin, end, sums, out) : doubles<double>(begin, end, sums, out);
    }

  private:
    // Equal sizes are served whatever they are.
    bool huge() const { return t_.size != nullptr && t_.top_size >= kHuge; }

    bool list(int64_t i, uint8_t x, Rows& out) const {
        out.chosen.data()[out.n] = x;
        out.add(t_, i, id_ != nullptr ? id_[i] : static_cast<uint32_t>(i));
        return out.n <= most_;
    }

    // The choice of `count` rows, at most 512, from row `at` on.
    void put(int64_t at, int count, const uint8_t* x) const {
        if (id_ == nullptr) {
            std::memcpy(choice_ + at, x, static_cast<size_t>(count));
        } else if (was_ == nullptr) {
            for (int i = 0; i < count; ++i) choice_[id_[at + i]] = x[i];
        } else {
            uint16_t changed[512 + 32];   // with nothing to branch on: about half of them change
            int many = 0;
#if BW_FAST
            if (packs_) {
                uint64_t bits[8];
                differences512(was_ + at, x, count, bits);
                many = places512(bits, changed);
                count = 0;
            }
#endif
            for (int i = 0; i < count; ++i) {
                changed[many] = static_cast<uint16_t>(i);
                many += was_[at + i] != x[i];
            }
            for (int q = 0; q < many; ++q) choice_[id_[at + changed[q]]] = x[changed[q]];
        }
    }

#if BW_FAST
    // The rows that the sieve left, by the checks of fast.hpp, with nothing to branch on: a row that is certain after all is
    // written over by the next one.
    template <int K, bool kEqual, bool kFine>
    BW_AVX2_FMA void look(int64_t at, const uint16_t* place, int many, const uint8_t* choice, int64_t& cost, double& sum, Rows& out) const {
        const float* loss = static_cast<const float*>(t_.loss);
        char* rows = out.loss.data();
        int64_t *sizes = out.size.data(), n = out.n, spent = 0, weight = 0;
        uint32_t* ids = out.id.data();
        uint8_t* formats = out.chosen.data();
        __m128d lost = _mm_setzero_pd();
        for (int p = 0; p < many; ++p) {
            const int q = place[p], x = choice[q];
            const int64_t i = at + q, size = kEqual ? 1 : load(t_.size + i);
            const float best = loss[i * K + x];
            bool sure;
            if constexpr (kFine) sure = fine_best<K>(loss + i * K, static_cast<double>(best), finer_.of[x], static_cast<double>(size));
            else sure = one_best<K, kEqual>(loss + i * K, best, prices_.of[x], static_cast<float>(size));
            const int64_t listed = !sure;
            std::memcpy(rows + n * (4 * K), loss + i * K, 4 * K);
            ids[n] = id_ != nullptr ? id_[i] : static_cast<uint32_t>(i);
            formats[n] = static_cast<uint8_t>(x);
            if constexpr (!kEqual) {
                sizes[n] = size;
                weight += -listed & size;
            }
            spent += (listed - 1) & (t_.rate[x] * size);
            lost = _mm_add_sd(lost, _mm_and_pd(_mm_set_sd(static_cast<double>(best)), _mm_castsi128_pd(_mm_cvtsi64_si128(listed - 1))));
            n += listed;
        }
        out.n = n;
        out.total_size += weight;
        cost += spent;
        sum += _mm_cvtsd_f64(lost);
    }

    bool fast_run(int64_t begin, int64_t end, Tally& sums, Rows& out) {
        switch (t_.k) {
#define BW_CASE(K) \
    case K: \
        return t_.size == nullptr ? blocks<K, true>(begin, end, sums, out) : blocks<K, false>(begin, end, sums, out);
            BW_CASE(2) BW_CASE(3) BW_CASE(4) BW_CASE(5) BW_CASE(6) BW_CASE(7) BW_CASE(8) BW_CASE(9) BW_CASE(10)
            BW_CASE(11) BW_CASE(12) BW_CASE(13) BW_CASE(14) BW_CASE(15) BW_CASE(16)
#undef BW_CASE
            default: return false;
        }
    }

    // The sieve, where its prices can be made: its centre is the middle one of the rates that some rows of the whole table choose, so that what it
    // leaves is the same for any number of threads.
    void tune() {
        constexpr int places = 8, together = 8;
        if (t_.n < 2 * places * together) return;
        const int64_t apart = (t_.n - together) / (places - 1);
        const double middle = (b_.low + b_.high) / 2, scale = t_.size == nullptr ? static_cast<double>(t_.one_size) : 1.0;
        double r[kMaxFormats], w[together];
        for (int j = 0; j < t_.k; ++j) r[j] = static_cast<double>(t_.rate[j]);
        int64_t rate[places * together];
        Lanes lanes;
        for (int q = 0; q < places; ++q) {
            for (int i = 0; i < together; ++i) w[i] = static_cast<double>(t_.weight(q * apart + i));
            choose_for<float>(t_.k)(static_cast<const float*>(t_.loss) + q * apart * t_.k, w, r, {middle, middle}, together, lanes);
            for (int i = 0; i < together; ++i) rate[q * together + i] = t_.rate[lanes.high[i]];
        }
        int64_t* const centre = rate + places * together / 2;
        std::nth_element(rate, centre, rate + places * together);
        const auto priced = [&](auto prices, auto& to) {
            return prices(t_.rate, t_.k, scale, t_.size == nullptr ? 0 : t_.top_size, b_.low, b_.high, *centre, to);
        };
        sieved_ = fine_ ? priced(fine_prices, finer_) : priced(coarse_prices, sieve_);
    }

    // By the sieve in double precision; what it cannot take goes the way of other tables.
    template <int K, bool kEqual>
    bool fine_blocks(int64_t begin, int64_t end, Tally& sums, Rows& out) {
        const float* loss = static_cast<const float*>(t_.loss);
        FastBlock b;
        uint8_t scratch[512];
        int count;
        for (int64_t at = begin; at < end; at += count) {
            count = static_cast<int>(std::min<int64_t>(512, end - at));
            const int64_t *size = kEqual ? nullptr : t_.size + at, ahead = end - at > 2 * kAhead ? kAhead : 0;
            uint8_t* choice = id_ == nullptr && choice_ != nullptr ? choice_ + at : scratch;
            bool sieved = sieved_ && count >= 32;
            if (sieved) {
                const bool wide = wide_ && count >= 64;
                count = wide ? count / 64 * 64 : count / 32 * 32;
                std::memset(b.unsure, 0, sizeof b.unsure);
                sieved = wide ? coarse_block512<K, kEqual>(loss + at * K, size, finer_, count, ahead, choice, b)
                              : coarse_block256<K, kEqual>(loss + at * K, size, finer_, count, ahead, choice, b);
            }
            if (!sieved) {
                if (!doubles<float>(at, at + count, sums, out)) return false;
                continue;
            }
            if (choice == scratch && choice_ != nullptr) put(at, count, scratch);   // before the list, as in `blocks`
            out.reserve(t_, out.n + count);
            uint16_t place[512 + 32];
            const int64_t before = out.n, one = kEqual ? t_.one_size : 1;
            look<K, kEqual, true>(at, place, places(b.unsure, place), choice, b.cost, b.loss, out);
            sums.cost += b.cost * one;
            sums.loss += b.loss;
            sums.weight += kEqual ? count * one : b.weight;
            if constexpr (kEqual) out.total_size += (out.n - before) * one;
            if (out.n > most_) return false;
        }
        return true;
    }

    template <int K, bool kEqual>
    bool blocks(int64_t begin, int64_t end, Tally& sums, Rows& out) {
        if (fine_) return fine_blocks<K, kEqual>(begin, end, sums, out);
        const float* loss = static_cast<const float*>(t_.loss);
        FastBlock b;
        uint8_t scratch[512];
        const int64_t before = out.n;
        int64_t cost = 0, weight = 0;
        int looked = 0;   // rows that the sieve left, above what it is worth
        bool coarse = true;
        const bool some_huge = !kEqual && huge();
        for (int64_t at = begin; at < end; at += 512) {
            const int count = static_cast<int>(std::min<int64_t>(512, end - at));
            uint8_t* choice = id_ == nullptr && choice_ != nullptr ? choice_ + at : scratch;
            std::memset(b.unsure, 0, sizeof b.unsure);
            const int64_t *size = kEqual ? nullptr : t_.size + at, ahead = end - at > 2 * kAhead ? kAhead : 0;
            bool sieved = false;
            if (coarse && sieved_ && count % 64 == 0) {
                sieved = wide_ ? coarse_block512<K, kEqual>(loss + at * K, size, sieve_, count, ahead, choice, b)
                               : coarse_block256<K, kEqual>(loss + at * K, size, sieve_, count, ahead, choice, b);
                if (!sieved) std::memset(b.unsure, 0, sizeof b.unsure);
            }
            const bool narrow = !sieved && !(wide_ && count % 16 == 0);
            if (!sieved) {
                coarse = false;
                if (narrow) fast_block<K, kEqual>(loss + at * K, size, prices_, count, some_huge, choice, b);
                else fast_block16<K, kEqual>(loss + at * K, size, prices_, count, ahead, choice, b);
            }
            cost += b.cost;
            weight += b.weight;
            sums.loss += b.loss;
            if (choice == scratch && choice_ != nullptr) put(at, count, scratch);   // before the list, which may take the place of these rows
            out.reserve(t_, out.n + count);
            uint16_t place[512 + 32];
            const int many = packs_ ? places512(b.unsure, place) : places(b.unsure, place);
            const bool all = !sieved && !(narrow && some_huge);   // whether all of them are listed
            if (!all) look<K, kEqual, false>(at, place, many, choice, cost, sums.loss, out);
            if (sieved) {
                looked = std::max(0, looked + many - kLooked<K, kEqual>);
                coarse = looked <= 4 * kLooked<K, kEqual>;
            }
            for (int p = 0; all && p < many; ++p) {
                const int q = place[p];
                const int64_t i = at + q;
                std::memcpy(out.loss.data() + out.n * (4 * K), loss + i * K, 4 * K);
                if constexpr (!kEqual) {
                    out.size.data()[out.n] = t_.weight(i);
                    out.total_size += t_.weight(i);
                }
                out.chosen.data()[out.n] = choice[q];
                out.id.data()[out.n++] = id_ != nullptr ? id_[i] : static_cast<uint32_t>(i);
            }
            if (out.n > most_) return false;
        }
        sums.cost += kEqual ? cost * t_.one_size : cost;
        sums.weight += kEqual ? (end - begin) * t_.one_size : weight;
        if constexpr (kEqual) out.total_size += (out.n - before) * t_.one_size;
        return true;
    }
#endif

    template <class T>
    bool doubles(int64_t begin, int64_t end, Tally& sums, Rows& out) const {
        const Choose<T> run = choose_for<T>(t_.k);
        const T* loss = static_cast<const T*>(t_.loss);
        double r[kMaxFormats], w[kBlock];
        for (int j = 0; j < t_.k; ++j) r[j] = static_cast<double>(t_.rate[j]);
        std::fill(w, w + kBlock, static_cast<double>(t_.one_size));
        Lanes lanes;
        for (int64_t at = begin; at < end; at += kBlock) {
            const int count = static_cast<int>(std::min<int64_t>(kBlock, end - at));
            if (t_.size != nullptr)
                for (int i = 0; i < count; ++i) {
                    const int64_t size = t_.weight(at + i);
                    w[i] = static_cast<double>(size);
                    sums.weight += size;
                }
            else sums.weight += count * t_.one_size;
            run(loss + at * t_.k, w, r, b_, count, lanes);
            out.reserve(t_, out.n + count);
            double l0 = 0.0;
            uint8_t high[kBlock];
            for (int i = 0; i < count; ++i) high[i] = static_cast<uint8_t>(lanes.high[i]);
            if (choice_ != nullptr) put(at, count, high);
            for (int i = 0; i < count; ++i) {
                const bool one = lanes.high[i] == lanes.low[i];
                l0 += one ? lanes.loss[i] : 0.0;
                sums.cost += one ? t_.weight(at + i) * t_.rate[lanes.high[i]] : 0;
                if (!one && !list(at + i, high[i], out)) return false;
            }
            sums.loss += l0;
        }
        return true;
    }

    Table t_;
    const uint32_t* id_;
    const uint8_t* was_;
    Bracket b_;
    int64_t most_;
    uint8_t* choice_;
    bool fast_ = false, fine_ = false;   // whether in single precision where that is certain; by the sieve in double precision
#if BW_FAST
    // The sieve serves brackets up to this wide, and no longer where it leaves more than so many of 512 rows to be looked at: of uneven
    // sizes it saves more, and of 4 formats of equal size nothing.
    static constexpr double kNarrow = 1.0 / 2;
    template <int K, bool kEqual>
    static constexpr int kLooked = kEqual ? 12 : K <= 4 ? 32 : 48;
    static constexpr int64_t kAhead = 1024;
    bool sieved_ = false, wide_ = has_avx512(), packs_ = has_vbmi2();
    FastPrices prices_;
    CoarsePrices sieve_;
    FinePrices finer_;
#endif
};

// The pass over all rows, in chunks that are joined in order: the same for any number of threads. choice: null, or where
// each row's best format goes, by original number; was: as of `Pass`. end: throws Late after it.
inline Tally fused_pass(const Table& t, const uint32_t* id, const uint8_t* was, Bracket b, bool precise, int64_t most, Crew& crew, uint8_t* choice, double end_at) {
    const int64_t chunk = t.n < kShortTable ? 1 << 14 : 1 << 17, chunks = (t.n + chunk - 1) / chunk;
    const int crew_size = static_cast<int>(std::clamp<int64_t>(chunks, 1, crew.size()));
    std::vector<Tally> parts(static_cast<size_t>(chunks));
    std::vector<Rows> lists(static_cast<size_t>(crew_size));
    std::vector<char> over(static_cast<size_t>(crew_size), 0);
    crew.share(crew_size, [&](int me) {
        Pass pass(t, id, was, b, precise, most, choice);
        lists[me].expect(t, t.n / crew_size / 32);
        for (int64_t c = chunks * me / crew_size; c < chunks * (me + 1) / crew_size; ++c) {
            if (past(end_at)) throw Late();
            const int64_t begin = c * chunk, end = std::min(t.n, begin + chunk);
            if (!pass.run(begin, end, parts[c], lists[me])) {
                over[me] = 1;
                return;
            }
            release(t, begin, end);
        }
    });
    Tally all;
    long double loss = 0.0L;
    for (const Tally& part : parts) {
        all.cost += part.cost;
        loss += part.loss;
    }
    all.loss = static_cast<double>(loss);
    all.rows = joined(t, lists, crew);
    all.over = all.rows.n > most || std::find(over.begin(), over.end(), 1) != over.end();
    return all;
}

}  // namespace bitwright
