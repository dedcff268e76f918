// A plan of given numbers of rows at some levels of cost (counts.hpp), near the best one by the multipliers of its relaxation.
//
// The options of least priced loss, with as many rows moved as the numbers ask for, those that lose least first; then exchanges: two rows that swap
// levels leave all numbers as they are, and their costs differ by little, so that a few of them bring the plan to the limit.
#pragma once

#include <unordered_map>

#include "counts_bound.hpp"

namespace bitwright {

class CountsPlan : public CountsBound {
  public:
    using CountsBound::CountsBound;

  protected:
    // The options of at_ changed until the numbers are met and no exchange is worth it; empty where the numbers cannot be met by single moves.
    std::vector<size_t> planned(const std::vector<Bounds>& fixed) {
        std::vector<size_t> at = at_;
        std::vector<char> is_fixed(of_level_.size(), 0);
        std::vector<int64_t> over(of_level_.size(), 0);
        for (const Bounds& b : fixed) {
            is_fixed[static_cast<size_t>(b.level)] = 1;
            over[static_cast<size_t>(b.level)] = -b.low;
        }
        for (const size_t o : at) over[level(o)] += is_fixed[level(o)];
        meet(at, is_fixed, over);
        for (int t = 0; t < kPaths && std::any_of(over.begin(), over.end(), [](int64_t o) { return o != 0; }); ++t)
            if (!brought(at, fixed, over)) return {};
        if (std::any_of(over.begin(), over.end(), [](int64_t o) { return o != 0; })) return {};
        int64_t room = slack_;
        for (const size_t o : at) room -= option_[o].dcost;
        for (int t = 0; t < kExchanges && exchanged(at, is_fixed, room); ++t) watch_.look();
        return at;
    }

    size_t level(size_t o) const { return static_cast<size_t>(option_[o].level); }

  private:
    static constexpr int kExchanges = 64, kPaths = 64;
    static constexpr int64_t kTakes = 1000, kPairTakes = 10;   // of the purse: a move, a pair of moves
    static constexpr size_t kListed = 512;   // moves from a level to another that are looked at
    static constexpr double kOver = 4;       // what a cost beyond the limit counts, in prices

    struct Move {
        double loss;
        int64_t cost;
        size_t row, option;
    };

    // Rows by rising loss of a move, taken where it brings the numbers nearer.
    void meet(std::vector<size_t>& at, const std::vector<char>& is_fixed, std::vector<int64_t>& over) const {
        std::vector<std::pair<double, std::pair<size_t, size_t>>> moves;
        for (size_t g = 0; g < at.size(); ++g)
            for (size_t o = start_[g]; o < start_[g + 1]; ++o)
                if (level(o) != level(at[g])) moves.push_back({priced(option_[o]) - priced(option_[at[g]]), {g, o}});
        spend(static_cast<int64_t>(moves.size()), kTakes);
        std::sort(moves.begin(), moves.end());
        std::vector<char> moved(at.size(), 0);
        for (const auto& [loss, move] : moves) {
            const auto [g, o] = move;
            const size_t from = level(at[g]), to = level(o);
            if (moved[g]) continue;
            const int nearer = (is_fixed[from] ? (over[from] > 0 ? 1 : -1) : 0) + (is_fixed[to] ? (over[to] < 0 ? 1 : -1) : 0);
            if (nearer <= 0) continue;
            over[from] -= is_fixed[from];
            over[to] += is_fixed[to];
            at[g] = o;
            moved[g] = 1;
        }
    }

    // One row more at a level that lacks one, or one less where there are too many: by the moves of several rows of least loss in all (Bellman and Ford). All levels
    // whose number is not fixed are one place. False where there is no way.
    bool brought(std::vector<size_t>& at, const std::vector<Bounds>& fixed, std::vector<int64_t>& over) const {
        const size_t places = fixed.size() + 1, some = fixed.size();
        std::vector<size_t> place(of_level_.size(), some);
        for (size_t f = 0; f < fixed.size(); ++f) place[static_cast<size_t>(fixed[f].level)] = f;
        std::vector<Move> least(places * places, {kInfinity, 0, 0, 0});
        for (size_t g = 0; g < at.size(); ++g)
            for (size_t o = start_[g]; o < start_[g + 1]; ++o) {
                Move& move = least[place[level(at[g])] * places + place[level(o)]];
                const double loss = priced(option_[o]) - priced(option_[at[g]]);
                if (loss < move.loss) move = {loss, 0, g, o};
            }
        const auto excess = [&](size_t f) { return f == some ? 0 : over[static_cast<size_t>(fixed[f].level)]; };
        bool surplus = false;
        for (size_t f = 0; f < some; ++f) surplus = surplus || excess(f) > 0;
        std::vector<double> far(places, kInfinity);
        std::vector<size_t> from(places, places);
        for (size_t f = 0; f < places; ++f)
            if (surplus ? excess(f) > 0 : f == some) far[f] = 0.0;
        for (size_t pass = 0; pass < places; ++pass)
            for (size_t a = 0; a < places; ++a)
                for (size_t b = 0; b < places; ++b) {
                    if (a == b || !(far[a] + least[a * places + b].loss < far[b])) continue;
                    far[b] = far[a] + least[a * places + b].loss;
                    from[b] = a;
                }
        size_t to = places;
        for (size_t f = 0; f < places; ++f)
            if ((excess(f) < 0 || (surplus && f == some)) && far[f] < kInfinity && from[f] < places && (to == places || far[f] < far[to])) to = f;
        if (to == places) return false;
        if (to != some) ++over[static_cast<size_t>(fixed[to].level)];
        for (size_t steps = 0; from[to] < places; ++steps, to = from[to]) {
            if (steps == places) return false;
            const Move& move = least[from[to] * places + to];
            at[move.row] = move.option;
        }
        if (to != some) --over[static_cast<size_t>(fixed[to].level)];
        return true;
    }

    // The one or two moves that leave all numbers as they are and bring the plan nearest to the limit for what they lose. False where none helps.
    bool exchanged(std::vector<size_t>& at, const std::vector<char>& is_fixed, int64_t& room) const {
        const auto worth = [&](int64_t left) { return left < 0 ? -kOver * std::max(price_, slope_) * static_cast<double>(left) : price_ * static_cast<double>(left); };
        const size_t levels = of_level_.size(), some = levels;   // levels whose number is not fixed are all the same
        std::unordered_map<size_t, std::vector<Move>> between;
        for (size_t g = 0; g < at.size(); ++g) {
            for (size_t o = start_[g]; o < start_[g + 1]; ++o) {
                if (o == at[g] || option_[o].dcost == option_[at[g]].dcost) continue;
                const size_t from = is_fixed[level(at[g])] ? level(at[g]) : some, to = is_fixed[level(o)] ? level(o) : some;
                between[from * (levels + 1) + to].push_back({priced(option_[o]) - priced(option_[at[g]]), option_[o].dcost - option_[at[g]].dcost, g, o});
            }
        }
        double best = worth(room) * (1 - 1e-9);
        const Move *one = nullptr, *other = nullptr;
        for (auto& [way, moves] : between) {
            const auto mixed = [](const Move& m) { return static_cast<uint64_t>(m.row) * 0x9E3779B97F4A7C15ull; };
            spend(static_cast<int64_t>(moves.size()), kTakes);
            std::sort(moves.begin(), moves.end(), [&](const Move& a, const Move& b) { return a.loss != b.loss ? a.loss < b.loss : mixed(a) < mixed(b); });
            if (moves.size() > kListed) moves.resize(kListed);
        }
        for (const auto& [way, moves] : between) {
            const size_t from = way / (levels + 1), to = way % (levels + 1);
            if (from == to) {
                for (const Move& m : moves) {
                    const double found = m.loss + worth(room - m.cost);
                    if (!(found < best)) continue;
                    best = found;
                    one = &m;
                    other = nullptr;
                }
            } else if (from < to) {
                const auto back = between.find(to * (levels + 1) + from);
                if (back == between.end()) continue;
                spend(static_cast<int64_t>(moves.size() * back->second.size()), kPairTakes);
                for (const Move& m : moves)
                    for (const Move& n : back->second) {
                        if (!(m.loss + n.loss < best)) break;
                        const double found = m.loss + n.loss + worth(room - m.cost - n.cost);
                        if (!(found < best)) continue;
                        best = found;
                        one = &m;
                        other = &n;
                    }
            }
        }
        for (const Move* m : {one, other}) {
            if (m == nullptr) continue;
            at[m->row] = m->option;
            room -= m->cost;
        }
        return one != nullptr;
    }
};

}  // namespace bitwright
