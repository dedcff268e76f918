// One block of rows after another, in turns with what the block before adds: once for each width of vectors. Included by frontier256.hpp and
// frontier512.hpp into a namespace of their own, which has the operations of that width; BW_TURN is its target, inlined, BW_WIDE its target.
//
// To find slopes takes the vector units and to add them up the others: each store to a table takes a cycle. A core looks only some 250 to 300
// instructions ahead, less than either takes for a block of rows. So both are written in turns: after each few instructions of one block
// a few slopes of the block before are added to the tables.
#ifndef BW_TURN
#error "included by frontier256.hpp and frontier512.hpp"
#endif

// Wide codes lie in slots, by the lanes as two unpackings leave them.
constexpr int lane_of(int slot) { return slot % (kLanes / 2) / 2 * 4 + slot / (kLanes / 2) * 2 + slot % 2; }

// Slopes of kLanes rows into format j, by lanes. at: codes of equal sizes, or offsets in bytes of any. size, wide: of small sizes, by their unit.
// slope, pairs: of any sizes.
template <int K>
struct Block {
    alignas(64) uint32_t at[K][kLanes];
    alignas(64) uint64_t wide[K][kLanes];
    alignas(64) uint32_t size[kLanes];
    alignas(64) float slope[K][kLanes];
    alignas(64) double pairs[kLanes];
};

// The turns of adding a block up.
template <int K, Sizes kSizes>
struct Turns {
    const Block<K>* block;
    char* tables;
    char* others;                           // of every second lane: the same, or their twins
    int64_t shift = kParts;                 // in a register: such a shift leaves the code where it is (BMI2)
    int done = 0;
    uint64_t first = 0, second = 0;         // sizes of two lanes, kept from one format to the next
    __m128d size = __m128d{0.0, 0.0};

    static constexpr int kAll = kLanes / 2 * (K - 1);

    // `count` additions once `last` is computed; the compiler keeps the turns.
    template <class V>
    BW_TURN void take(int count, V& last) {
        asm volatile("" : "+v"(last), "+r"(tables), "+r"(others), "+r"(block));   // no address within them is kept in a register: there are too few
        if constexpr (kSizes == Sizes::small) asm volatile("" : "+r"(shift));
#pragma GCC unroll 64
        for (int q = 0; q < count; ++q)
            if (done < kAll) add_two(done++);
        asm volatile("" ::: "memory");
    }

  private:
    // Addition `e` of kAll: two lanes of one format, or two slots.
    BW_TURN void add_two(int e) {
        const int p = e / (K - 1), j = 1 + e % (K - 1);
        constexpr int64_t bytes = kTable * (kSizes == Sizes::any ? sizeof(Pair) : sizeof(uint64_t));
        char *to = tables + j * bytes, *other = others + j * bytes;
        if constexpr (kSizes == Sizes::small) {
            if (j == 1) {
                first = block->size[lane_of(2 * p)], second = block->size[lane_of(2 * p + 1)];
                asm volatile("" : "+r"(first), "+r"(second));
            }
            for (int x = 0; x < 2; ++x) {
                const uint64_t code = block->wide[j][2 * p + x];
                reinterpret_cast<uint64_t*>(x == 0 ? to : other)[static_cast<int64_t>((code >> shift) - (1 << (kAbove - kParts)))] += code * (x == 0 ? first : second);
            }
            return;
        }
        uint64_t both, one;
        std::memcpy(&both, &block->at[j][2 * p], sizeof both);
        asm("mov %k1, %k0" : "=&r"(one) : "r"(both));   // as an instruction that takes no time: the compiler would clear the upper half in place
        if constexpr (kSizes == Sizes::any) {
            if (j == 1) {
                size = _mm_load_pd(&block->pairs[2 * p]);
                asm volatile("" : "+v"(size));   // not loaded again
            }
            auto* a = reinterpret_cast<double*>(to + one);
            auto* b = reinterpret_cast<double*>(other + (both >> 32));
            const __m128i slopes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(&block->slope[j][2 * p]));
            const __m128d slope = _mm_cvtps_pd(_mm_castsi128_ps(slopes));
            _mm_store_pd(a, _mm_add_pd(_mm_load_pd(a), _mm_unpacklo_pd(size, slope)));
            _mm_store_pd(b, _mm_add_pd(_mm_load_pd(b), _mm_unpackhi_pd(size, slope)));
            return;
        }
        add_code(to, one);
        add_code(other, both >> 32);
    }

    static BW_TURN void add_code(char* to, uint64_t code) { *reinterpret_cast<uint64_t*>(to - 4 + 4 * uint64_t{static_cast<uint16_t>(code)}) += code; }
};

// Of the first block, when nothing is to be added yet.
struct NoTurns {
    template <class V>
    BW_TURN void take(int, V&) {}
};

// Floats at least zero compare as integers do, and a negative one is less than zero either way. Formats a, b at most kReach apart.
template <int K, int kReach, class T>
BW_TURN void minmax(const Floats* l, const Sums<K>& s, Ints* t, T& turns) {
#pragma GCC unroll 8
    for (int a = 0; a + 1 < K; ++a) {
        const int far = std::min(K - 1, a + kReach);
        Ints most;
#pragma GCC unroll 8
        for (int b = far; b > a; --b) {
            const Ints slope = slope_of(l[a], l[b], s.inverse[a][b]);
            most = b == far ? slope : greater(most, slope);
            t[b] = a == std::max(0, b - kReach) ? most : less(t[b], most);
            turns.take(kPairTurns<K>, t[b]);
        }
    }
}

template <int K>
BW_TURN void by_rate(const int* order, Floats* l) {
    Floats raw[K];
    std::copy(l, l + K, raw);
    for (int j = 0; j < K; ++j) l[j] = raw[order[j]];
}

// Slopes in full, and the losses of the last vertices.
template <int K>
BW_WIDE __attribute__((noinline)) void slopes_in_full(const float* loss, bool sorted, const Sums<K>& s, Ints* t, Floats* least) {
    Floats l[K];
    NoTurns none;
    columns_in_turns<K>(loss, l, none);
    if (!sorted) by_rate<K>(s.order, l);
    *least = l[0];
    for (int j = 1; j < K; ++j) *least = lesser(*least, l[j]);
    minmax<K, K - 1>(l, s, t, none);
    for (int j = 1; j < K; ++j) t[j] = greater(t[j], zeros());
}

// Where each slope goes, and what is added there.
template <int K, Sizes kSizes, class T>
BW_TURN void place([[maybe_unused]] const Floats& share, Ints* t, Block<K>* o, T& turns, Ints& low, Ints& high) {
#pragma GCC unroll 8
    for (int j = 1; j < K; ++j) {
        Ints x = t[j];
        if constexpr (kSizes != Sizes::equal) x = times(x, share);
        if (j == 1) high = greatest(high, x);
        if (j == K - 1) low = least_of(low, x);
        if constexpr (kSizes == Sizes::any) {
            store(o->at[j], offsets(x));
            store(o->slope[j], t[j]);
        } else {
            if constexpr (kSizes == Sizes::small) store_wide(o->wide[j], x);
            else store(o->at[j], codes(x));
        }
        turns.take(kPlaceTurns<K>, x);
        asm volatile("" : "+r"(o));
    }
}

// Slopes of kLanes rows to `o`, in turns with what is left to add. kFull: in full at once. rising: of other blocks, those that were done so.
template <int K, Sizes kSizes, bool kFull, class T>
BW_TURN void one_block(const float* loss, const int64_t* size, bool sorted, const Sums<K>& s, Block<K>* o, T& turns, Doubles& last,
                       Ints& low, Ints& high, int64_t& rising) {
    Floats l[K];
    Ints t[K];
    for (int q = 0; q < K * kLanes; q += 16) _mm_prefetch(reinterpret_cast<const char*>(loss + q) + kAhead, _MM_HINT_T1);
    for (int q = 0; kSizes != Sizes::equal && q < kLanes; q += 8)
        _mm_prefetch(reinterpret_cast<const char*>(size + kWeighed + q) + kAhead * 2 / K, _MM_HINT_T1);
    [[maybe_unused]] Floats share;
    if constexpr (kSizes != Sizes::equal) {   // first: a division takes long
        share = sizes_in_lanes<K, kSizes>(size, s, o);
        turns.take(1, share);
    }
    columns_in_turns<K>(loss, l, turns);
    if (!sorted) by_rate<K>(s.order, l);
    minmax<K, kFull ? K - 1 : kWindow<K>>(l, s, t, turns);
    Floats least = l[K - 1];
    if constexpr (kFull) {
#pragma GCC unroll 8
        for (int j = 0; j + 1 < K; ++j) {
            least = lesser(least, l[j]);
            t[j + 1] = greater(t[j + 1], zeros());
        }
    } else if (const Rows sure = never_rising<K>(t); __builtin_expect(!all(sure), 0)) {
        ++rising;
        Ints full[K];   // the slopes themselves stay in registers
        Floats found;
        slopes_in_full<K>(loss, sorted, s, full, &found);
        least = found;
#pragma GCC unroll 8
        for (int j = 1; j < K; ++j) t[j] = chosen(sure, t[j], full[j]);
    }
    last = with(last, least);
    turns.take(kLanes / 8, last);
    place<K, kSizes>(share, t, o, turns, low, high);
    turns.take(Turns<K, kSizes>::kAll, last);
}

// `count` rows, a multiple of kLanes and at least that.
template <int K, Sizes kSizes, bool kFull>
BW_WIDE void add_rows(const float* loss, const int64_t* size, int64_t count, bool sorted, Sums<K>& s) {
    char* tables = kSizes == Sizes::any ? reinterpret_cast<char*>(s.pair.data()) : reinterpret_cast<char*>(s.cell.data());
    char* others = tables + (s.narrow ? int64_t{K} * kTable * static_cast<int64_t>(kSizes == Sizes::any ? sizeof(Pair) : sizeof(uint64_t)) : 0);
    int64_t rising = 0;
    s.twins = s.twins || s.narrow;
    Block<K> held[2];
    Doubles last = no_doubles();
    Ints low = ones(), high = zeros();
    NoTurns none;
    one_block<K, kSizes, kFull>(loss, size, sorted, s, held, none, last, low, high, rising);
    int now = 0;
    for (int64_t i = kLanes; i < count; i += kLanes, now ^= 1) {
        Turns<K, kSizes> turns{held + now, tables, others};
        one_block<K, kSizes, kFull>(loss + i * K, kSizes == Sizes::equal ? size : size + i, sorted, s, held + (now ^ 1), turns, last, low, high, rising);
    }
    Turns<K, kSizes>{held + now, tables, others}.take(Turns<K, kSizes>::kAll, last);
    s.last += total_of(last);
    alignas(64) uint32_t lows[kLanes], highs[kLanes];
    store(lows, low);
    store(highs, high);
    const uint32_t least = *std::min_element(lows, lows + kLanes), most = *std::max_element(highs, highs + kLanes);
    s.least = std::min(s.least, least);
    s.most = std::max(s.most, most);
    s.narrow = (most >> kShift) - (least >> kShift) < kNarrow;
    s.rising = rising > count / kLanes / 2;
}

#undef BW_TURN
#undef BW_WIDE
