// How much of what the solver of one limit tries (solve.hpp), and from which size on.
#pragma once

#include <cstdint>

namespace bitwright {

struct Amounts {
    static constexpr double kTiny = 1e-13;   // a tenth of the checker's own rounding (certificate.ROUNDING)
    static constexpr double kUnplanned = 8e-9, kBrief = 1e-3;   // seconds a cell; seconds that tell nothing of the load
    static constexpr int64_t kLong = 1 << 22;   // rows from which a gap below kSmall of the loss is stated, not closed by a search of all rows
    static constexpr double kSmall = 1e-9, kStated = 1e-6, kHopeless = 4;   // the last: times as many rows as may be looked at get no pass
    static constexpr double kCounted = 9e-13;   // the checker counts a gap of a tenth more as zero, so no more is searched for
    static constexpr int64_t kTabled = 1 << 10;   // states beyond which a table of totals is tried
    static constexpr int64_t kWide = 1 << 18;           // rows from which one more pass is soon made good
    static constexpr int64_t kStrays = 1 << 15, kStretch = 1 << 8;   // rows of a sample of all, and how many of them lie together
    static constexpr int64_t kMuchListed = 1 << 17;     // listed rows beyond which some of all rows are searched before them
    static constexpr double kNearlyFree = 0x1p-6, kNearSlope = 0x1p-12;   // of a gap, a penalty that is nearly nothing; of the critical slope, what others are nearly it
    static constexpr double kWanted = 1e-7;             // of the loss, a gap beyond which a table of kWalk to kWide rows is looked at again
    static constexpr int64_t kAgain = 3'000'000'000;    // of the purse, what each of these looks may take, and that without rests: a third of a second
    static constexpr int64_t kNear = 1 << 10, kFew = 1 << 10, kMany = 1 << 14, kSampled = 2048, kWalk = 1 << 13;
    static constexpr int kDeep = 2, kLess = 4, kParts = 3;   // parts within parts; of a part's work, by powers of two
    static constexpr int64_t kMuch = 1 << 7, kHeavy = 1 << 10;   // parts of all sizes: a row of one has a table streamed by giants.hpp, one of the other is fixed
    static constexpr int kGiants = 6;                            // tables within tables there
    static constexpr int64_t kLarge = 1 << 6;                    // times the mean size: a row that is worth a solve for each format (splits.hpp)
    static constexpr int kSplits = 3;                            // solves within solves there
    static constexpr double kFar = 64, kTotals = 0x1p22;   // the last: additions of a table of totals (totals.hpp)
    static constexpr int64_t kWideCost = 1 << 14, kWideTable = 1 << 16;   // of wide tables of totals: the costs, in steps, and the window
    static constexpr double kWideTotals = 0x1p27;                         // the same: additions
    static constexpr int64_t kBranched = 1 << 25, kInParts = 1 << 29;   // steps looked at in branches (first a part of them), and in parts
    static constexpr int64_t kChoices = 1 << 20, kSearched = 1 << 22, kProved = 1 << 25, kLooks = 1 << 25;   // of branches closed by halves; the last of counts
};

}  // namespace bitwright
