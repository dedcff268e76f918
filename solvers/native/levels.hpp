// The critical slope of a large table, level by level (research/05 section 4, steps 1 to 4).
//
// A stratified sample brackets the slope; one pass settles every row that has one best format within the bracket and
// copies out the others, a few per cent; those are a smaller table with what is left of the limit, and so on until few
// enough are left to walk their hulls. A bracket that missed is moved and its pass repeated; a bracket that holds too
// many rows (nearly equal slopes) is narrowed by a histogram; equal slopes are filled in the order of the rows (fill.hpp).
#pragma once

#include "fill.hpp"
#include "sample.hpp"

namespace bitwright {

struct Plan {
    int64_t limit;
    Crew& crew;
    int64_t walk_rows;   // at most this many rows have their hulls walked
    uint64_t seed;
    uint8_t* choice;
    Bracket first;   // of a caller that knows better than a sample; else 0 to inf
    double end;      // on the clock of `now`
};

// The last level: its rows, their steps inside the bracket, and the LP vertex. slope: critical; loss: of the vertex.
struct Vertex {
    double slope = 0.0, loss = 0.0, bound = 0.0;
    int64_t slack = 0;
    Bracket bracket{0.0, INFINITY};
};

class Levels {
  public:
    Levels(const Table& t, const Plan& plan) : p_(plan), watch_(plan.end), sampler_(plan.seed, plan.crew, plan.end) {
        tables_.reserve(kDeepest);
        lists_.reserve(kDeepest);
        tables_.push_back(t);
        brackets_.push_back({0.0, INFINITY});
    }

    // False when nothing was found: nothing fits, or (rarely) every attempt missed. Throws Late where time runs out.
    bool find() { return descend(0, p_.limit, {0.0, INFINITY}) == 0; }

    // Under another limit, of the rows that were listed first for this table: no pass over all of it. cost, loss: of the others, which are settled for
    // all multipliers in that bracket. 0: found; 1: the critical slope lies above it; -1: below.
    int find_within(const Levels& other, int64_t cost, double loss) {
        lent_ = &other.list(1);
        lists_.emplace_back();
        tables_.push_back(other.table(1));
        brackets_.push_back(other.bracket(1));
        loss_ = loss;
        return descend(1, p_.limit - cost, other.bracket(1));
    }

    const Vertex& vertex() const { return vertex_; }
    // Rows outside table(level) were settled for all multipliers in bracket(level).
    const Bracket& bracket(size_t level) const { return brackets_[level]; }
    const Table& table(size_t level) const { return tables_[level]; }
    const uint32_t* ids(size_t level) const { return level == 0 ? nullptr : list(level).id.data(); }
    size_t depth() const { return tables_.size() - 1; }
    // How many rows of the whole table a bracket leaves unsettled, were they as near together everywhere as in that of the first level.
    double expected(const Bracket& b) const {
        if (depth() == 0) return 0.0;
        const double width = brackets_[1].high - brackets_[1].low;
        return width > 0 ? static_cast<double>(tables_[1].n) * ((b.high - b.low) / width) : 0.0;
    }
    int64_t passes() const { return passes_; }
    int64_t listed() const { return listed_; }

  private:
    static constexpr int kAttempts = 10, kBeside = 2;
    static constexpr int64_t kFew = 64, kHeavy = 1024, kLoud = 16;
    static constexpr size_t kDeepest = 64;
    static constexpr int64_t kLooked = 1 << 10;   // rows that tell which slope most of them have
    static constexpr double kEqual = 0x1p-40;     // of a slope: others no further from it are that slope
    static constexpr int64_t kShort = 1 << 17;    // a list of no more rows may hold half of the table
    static constexpr double kFine = 0x1p-10;      // a bracket this wide holds no more rows for what `widen` adds

    // Rows that follow one another say nothing of those few that are most of the size.
    bool in_rounds(const Table& t) const {
        return t.n >= std::max(Rounds::kLeast, kFew * p_.walk_rows) && (t.size == nullptr || t.top_size <= t.total_size / kHeavy);
    }
    // Whether a slope is nearer to an end of a bracket than a quarter of it.
    static bool aside(const Bracket& b, double slope) {
        const double at = (slope - b.low) / (b.high - b.low);
        return at < 0.25 || at > 0.75;
    }
    // At least such a part of `within`, around the same middle.
    static Bracket opened(Bracket b, double part, Bracket within) {
        const double middle = (b.low + b.high) / 2, half = part / 2 * (within.high - within.low);
        return {std::max(within.low, std::min(b.low, middle - half)), std::min(within.high, std::max(b.high, middle + half))};
    }
    int64_t number(size_t level, int64_t i) const { return level == 0 ? i : list(level).id.data()[i]; }
    const Rows& list(size_t level) const { return level == 1 && lent_ != nullptr ? *lent_ : lists_[level - 1]; }

    // 0: the critical slope was found; 1: it lies above the bracket `within` (or nothing fits); -1: below.
    int descend(size_t level, int64_t limit, Bracket within) {
        const Table& t = tables_[level];
        if (t.n <= p_.walk_rows || level + 2 >= kDeepest) return walk_all(level, limit, within);
        const bool told = level == 0 && p_.first.high < INFINITY;
        bool rounds = level == 0 && in_rounds(t);
        const bool whole = level > 0 && within.high < 0x1p800;
        // Below the first level rows lie in the cache: for a bracket that holds a quarter of `walk_rows` all are looked at, not a sample.
        const double share = static_cast<double>(p_.walk_rows) / static_cast<double>(12 * t.n);
        // In a heavy tail a part of the rows says little of the others: a sample by size does, and of fewer rows all. (Of slopes that are nearly equal
        // such a sample, whose losses are rounded, says no more.) Cost jumps where a large row changes: its slope alone is no bracket.
        bool loud = whole && t.size != nullptr && t.top_size > t.total_size / kLoud;
        const bool few = t.n <= 4 * p_.walk_rows, drawn = loud && !few && !narrower(within, kFine), all = loud && few;
        Bracket b = told ? p_.first
                  : whole && !drawn ? around({t}, static_cast<double>(limit), 0.0, share, within, p_.crew, p_.end, 2, all ? 1 : kThinnest)
                                    : sampler_.bracket(t, limit, within, rounds);
        if (drawn || all) b = opened(b, (drawn ? 18 : 4) * share, within);
        bool precise = (told || whole) && narrower(b, kUnsure), known = level > (lent_ != nullptr ? 1 : 0);
        int histograms = 0, missed = 0;
        while (missed < kAttempts) {
            widen(b, precise, within);
            const int64_t most = std::max({level == 0 ? t.n / 8 : t.n / 2, std::min(t.n / 2, kShort), p_.walk_rows});
            const double ratio = static_cast<double>(limit) / static_cast<double>(std::max<int64_t>(t.total_size, 1));
            Tally tally = rounds ? Rounds(t, ratio, sampler_.spread().deviation, sampler_.spread().widest, sampler_.random(), std::min(4 * p_.walk_rows, t.n / 128), p_.crew, p_.choice, p_.end).run(b, most, listed_)
                                : fused_pass(t, ids(level), known ? list(level).chosen.data() : nullptr, b, precise, most, p_.crew, p_.choice, p_.end);
            known = false;   // what lies in the choice is no longer what the list says
            passes_ += level == 0;
            const bool tied = tally.over && narrower(b, kTied);
            if (tally.over && rounds && !tied) {   // parts of the table that are not alike: rows from all of it say more
                rounds = false;
                if (!told) b = sampler_.bracket(t, limit, within, false);
                precise = narrower(b, kUnsure);
                continue;
            }
            const bool narrowed = std::exchange(rounds, false);
            if (tally.over && !tied) {
                if (!precise && narrower(b, kFine)) precise = true;
                else if (histograms++ < 5 && narrow(level, limit, b)) continue;
                else return fill(level, limit, b);
                continue;
            }
            const double before = loss_;
            const int side = tied ? fill(level, limit, b) : deeper(level, limit, b, tally);
            const bool found = side == 0;
            // Searches of a core want rows on both sides of the critical slope, which is known now.
            if (found && !tied && std::exchange(loud, false) && aside(b, vertex_.slope)) {
                const double half = (b.high - b.low) / 2;
                undo(level, before);
                b = {std::max(within.low, vertex_.slope - half), std::min(within.high, vertex_.slope + half)};
                continue;
            }
            if (found) return 0;
            if (side > 0 ? b.high >= std::min(within.high, 0x1p800) : b.low <= within.low) return side;
            const double wider = std::ldexp(1.0, std::min(2 << missed, 200)), width = 2 * (b.high - b.low);
            // Rounds that missed end at the edge of a bracket that missed, which says nothing of how far the target is; other rounds do, or a sample.
            if (narrowed && !told) {
                rounds = missed++ == 0;
                b = sampler_.bracket(t, limit, side > 0 ? Bracket{b.high, within.high} : Bracket{within.low, b.low}, rounds);
                continue;
            }
            // A sample that missed has missed by little: twice the bracket beside it comes first.
            if (side > 0 && missed < kBeside && width > 0 && b.high + width < within.high) b = {b.high, b.high + width};
            else if (side < 0 && missed < kBeside && width > 0 && b.low - width > within.low) b = {b.low - width, b.low};
            else if (side > 0) b = {b.high, std::min(within.high, missed + 2 < kAttempts ? b.high * wider : INFINITY)};
            else b = {std::max(within.low, missed >= 4 ? 0.0 : b.low / wider), b.low};
            ++missed;
        }
        return 1;
    }

    // One level more, of the rows that a pass has listed for a bracket.
    int deeper(size_t level, int64_t limit, Bracket b, Tally& tally) {
        if (level == 0) listed_ = std::max(listed_, tally.rows.n);
        lists_.push_back(std::move(tally.rows));
        tables_.push_back(lists_.back().view(tables_[level]));
        brackets_.push_back(b);
        const double before = loss_;
        loss_ += tally.loss;
        const int side = descend(level + 1, limit - tally.cost, b);
        if (side != 0) undo(level, before);
        return side;
    }

    // Nothing below a level any more. loss: of what was settled above and at it.
    void undo(size_t level, double loss) {
        tables_.resize(level + 1);
        lists_.erase(lists_.begin() + static_cast<std::ptrdiff_t>(level), lists_.end());
        brackets_.resize(level + 1);
        loss_ = loss;
    }

    // Rows begin to end, which are looked at next, come one after another.
    void passed(const Table& t, int64_t begin, int64_t end) {
        constexpr int64_t chunk = 1 << 17;
        watch_.step(t.k);
        const int64_t whole = begin / chunk * chunk;
        if (begin > 0 && end / chunk > begin / chunk) release(t, whole, end);
    }

    // The last level: every hull within the bracket is walked, and the steepest steps that fit are taken.
    int walk_all(size_t level, int64_t limit, Bracket b) {
        const Table& t = tables_[level];
        std::vector<uint8_t> from;
        std::vector<Step> steps;
        const int64_t base = walk_rows(t, b, steps, from, watch_);
        int64_t room = limit - base;
        if (room < 0) return 1;
        const size_t taken = weighted_select(steps, room, watch_);
        const bool all = taken == steps.size();
        if (all && b.low > 0 && room > 0) return -1;
        for (int64_t i = 0; i < t.n; ++i) p_.choice[number(level, i)] = from[i];
        std::vector<uint8_t> order(static_cast<size_t>(t.n), 0);
        for (size_t q = 0; q < taken; ++q) {
            const Step& s = steps[q];
            if (s.order + 1 > order[s.row]) {   // of several steps of one row the last counts
                order[s.row] = static_cast<uint8_t>(s.order + 1);
                p_.choice[number(level, s.row)] = s.after;
            }
        }
        vertex_.slope = all ? b.low : steps[taken].slope;
        vertex_.slack = room;
        long double loss = loss_;
        for (int64_t i = 0; i < t.n; ++i) loss += t.loss_at(i, p_.choice[number(level, i)]);
        vertex_.loss = static_cast<double>(loss);
        vertex_.bound = vertex_.loss - vertex_.slope * static_cast<double>(room);
        vertex_.bracket = b;
        return 0;
    }

    // Narrow the bracket to one of 2^14 stretches of slopes, by the cost of the hull steps in each, and those beside it that hold a quarter of
    // `walk_rows` steps: rows just outside matter to the core. Of many rows some are walked, one of each few (a stratified sample), and the stretches
    // beside hold what those may be off by as well. False when it cannot.
    bool narrow(size_t level, int64_t limit, Bracket& b) {
        constexpr int stretches = 1 << 14;
        constexpr int64_t enough = 1 << 15;
        constexpr double sigmas = 3.5;
        const Table& t = tables_[level];
        const double high = b.high >= 0x1p800 ? 0x1p800 : b.high, per = (high - b.low) / stretches;
        if (!(per > 0x1p-50 * high)) return false;
        std::vector<int64_t> cost(stretches, 0), steps_in(stretches, 0);
        const int64_t apart = std::max<int64_t>(1, t.n / enough);
        const double ratio = static_cast<double>(limit) / static_cast<double>(std::max<int64_t>(t.total_size, 1));
        double l[kMaxFormats], square = 0.0;
        int64_t c[kMaxFormats], base = 0, weight = 0;
        std::vector<Step> steps;
        for (int64_t begin = 0; begin < t.n; begin += apart) {
            const int64_t i = apart == 1 ? begin : std::min(t.n - 1, begin + static_cast<int64_t>(sampler_.random() % static_cast<uint64_t>(apart)));
            passed(t, begin, std::min(t.n, begin + apart));
            t.row(i, l, c);
            const int x = start(l, c, t.k, b.high);
            base += c[x];
            weight += t.weight(i);
            steps.clear();
            walk(l, c, t.k, i, x, b.low, steps);
            for (const Step& s : steps) {
                const auto at = static_cast<size_t>(std::clamp((high - s.slope) / per, 0.0, static_cast<double>(stretches - 1)));
                cost[at] += s.dcost;
                ++steps_in[at];
            }
            const double part = ratio * static_cast<double>(t.weight(i)), last = static_cast<double>(steps.empty() ? c[x] : c[steps.back().after]);
            square += std::max((static_cast<double>(c[x]) - part) * (static_cast<double>(c[x]) - part), (last - part) * (last - part));
        }
        const double target = apart == 1 ? static_cast<double>(limit) : ratio * static_cast<double>(weight), margin = apart == 1 ? 0.0 : sigmas * std::sqrt(square);
        double spent = static_cast<double>(base);
        int at = 0;
        while (at + 1 < stretches && spent + static_cast<double>(cost[at]) <= target) spent += static_cast<double>(cost[at++]);
        int first = at, end = at + 1;
        int64_t held = steps_in[at];
        double below = spent, above = spent + static_cast<double>(cost[at]);   // what is spent at either end
        while (first > 0 && below > target - margin) {
            below -= static_cast<double>(cost[--first]);
            held += steps_in[first];
        }
        while (end < stretches && above < target + margin) {
            above += static_cast<double>(cost[end]);
            held += steps_in[end++];
        }
        while (held < p_.walk_rows / (4 * apart) && end - first < stretches / 4) {
            if (first > 0) held += steps_in[--first];
            if (end < stretches) held += steps_in[end++];
        }
        const Bracket inner{std::max(b.low, high - end * per), first == 0 ? b.high : high - first * per};
        if (!(inner.high - inner.low < 0.5 * (b.high - b.low))) return false;
        b = inner;
        return true;
    }

    // Slopes that are equal but for rounding. Where most are of one, others are not taken for it as long as the limit is reached among its rows.
    int fill(size_t level, int64_t limit, Bracket b) {
        const Table& t = tables_[level];
        const Common most = common_slope({t}, b, kLooked);
        const double slope = most.part > 0 ? most.slope : (b.low + b.high) / 2, far = slope > 0 ? std::max(b.high - slope, slope - b.low) / slope : 0.0;
        passes_ += level == 0;
        int side = 1;
        for (const double part : {std::min(far, kEqual), far}) {
            Fill filled(t, ids(level), slope, part, p_.crew, p_.choice, p_.end);
            side = filled.run(limit);
            if (side == 0 || (side < 0 && b.low <= 0)) {
                take(level, limit, b, slope, filled);
                return 0;
            }
            if (part == far) break;
        }
        return side;
    }

    void take(size_t level, int64_t limit, Bracket b, double slope, const Fill& filled) {
        const Table& t = tables_[level];
        vertex_.slope = slope;
        vertex_.slack = filled.room();
        vertex_.loss = static_cast<double>(loss_ + filled.loss());
        vertex_.bound = static_cast<double>(loss_ + filled.least(slope) - static_cast<long double>(slope) * limit);
        vertex_.bracket = b;
        Rows rest;
        const std::vector<int64_t> rows = filled.beside(p_.walk_rows);
        rest.reserve(t, static_cast<int64_t>(rows.size()));
        for (const int64_t i : rows) rest.add(t, i, static_cast<uint32_t>(number(level, i)));
        listed_ = std::max(listed_, rest.n);
        lists_.push_back(std::move(rest));
        tables_.push_back(lists_.back().view(t));
        brackets_.push_back({slope, slope});   // rows beyond the list may tie: nothing is certain of them
    }

    Plan p_;
    std::vector<Table> tables_;
    std::vector<Rows> lists_;
    const Rows* lent_ = nullptr;   // of the first level, where that is another's
    std::vector<Bracket> brackets_;
    Vertex vertex_;
    double loss_ = 0.0;
    int64_t passes_ = 0, listed_ = 0;
    Watch watch_;
    Sampler sampler_;
};

}  // namespace bitwright
