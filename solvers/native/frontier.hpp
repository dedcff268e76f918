// Every budget at once for a large table: the hull steps of all rows, added up by slope (research/05 section 6).
//
// With formats by rising rate, format j is a vertex of a row's lower hull when the least slope from any cheaper format
// into j exceeds the greatest slope from j on to any dearer one (and zero). So the hulls of a block of rows are found
// without branches, and each step is added to the stretch of slopes it falls into: 2^kShare stretches an octave.
#pragma once

#include <cstring>
#include <memory>
#include <thread>

#include "frontier512.hpp"
#include "pass.hpp"

namespace bitwright {

constexpr int kShare = 6, kStretches = 256 << kShare, kRows = 128;

struct Stretch {
    int64_t cost = 0;
    double loss = 0.0;
};

struct Whole {
    std::vector<Stretch> stretch;   // by rising slope
    int64_t cost = 0;               // of the cheapest formats
    double last = 0.0;              // loss of the last vertices
    double column[16] = {};         // losses of the uniform plans, formats by rising rate
};

// Steps of up to kRows rows: at[j][i] stretch of the step into format j of row i (or -1), before[j][i] the vertex before.
template <class T>
struct Hulls {
    T loss[16][kRows];
    float slope[16][kRows];
    int32_t at[16][kRows], before[16][kRows];
};

template <class T, int K>
BW_INLINE void hulls_of(const T* rows, const int* order, const float* inverse, const float* w, int count, Hulls<T>& h) {
    for (int j = 0; j < K; ++j)
        for (int i = 0; i < count; ++i) h.loss[j][i] = load(rows + static_cast<int64_t>(i) * K + order[j]);
    for (int i = 0; i < count; ++i) h.before[1][i] = 0;
    for (int j = 1; j < K; ++j) {
        float into[kRows], on[kRows];
        for (int i = 0; i < count; ++i) into[i] = INFINITY, on[i] = 0.0f;
        for (int a = 0; a < j; ++a) {
            const float inv = inverse[16 * a + j];
            for (int i = 0; i < count; ++i) {
                const float s = static_cast<float>(h.loss[a][i] - h.loss[j][i]) * inv;
                into[i] = s < into[i] ? s : into[i];
            }
        }
        for (int b = j + 1; b < K; ++b) {
            const float inv = inverse[16 * j + b];
            for (int i = 0; i < count; ++i) {
                const float s = static_cast<float>(h.loss[j][i] - h.loss[b][i]) * inv;
                on[i] = s > on[i] ? s : on[i];
            }
        }
        for (int i = 0; i < count; ++i) {
            const bool vertex = into[i] > on[i];
            int32_t bits;
            const float slope = into[i] * w[i];
            std::memcpy(&bits, &slope, sizeof bits);
            h.at[j][i] = vertex ? bits >> (23 - kShare) : -1;
            if (j + 1 < K) h.before[j + 1][i] = vertex ? j : h.before[j][i];
        }
    }
}

template <class T, int K>
void hulls_plain(const T* r, const int* o, const float* v, const float* w, int c, Hulls<T>& h) {
    hulls_of<T, K>(r, o, v, w, c, h);
}

template <class T, int K>
BW_AVX2 void hulls_avx2(const T* r, const int* o, const float* v, const float* w, int c, Hulls<T>& h) {
    hulls_of<T, K>(r, o, v, w, c, h);
}

template <class T>
using FindHulls = void (*)(const T*, const int*, const float*, const float*, int, Hulls<T>&);

template <class T>
FindHulls<T> hulls_for(int k) {
    const bool wide = BW_HAS_AVX2;
    switch (k) {
#define BW_CASE(K) \
    case K: \
        return wide ? hulls_avx2<T, K> : hulls_plain<T, K>;
        BW_CASE(2) BW_CASE(3) BW_CASE(4) BW_CASE(5) BW_CASE(6) BW_CASE(7) BW_CASE(8) BW_CASE(9) BW_CASE(10)
        BW_CASE(11) BW_CASE(12) BW_CASE(13) BW_CASE(14) BW_CASE(15) BW_CASE(16)
#undef BW_CASE
        default: return nullptr;
    }
}

template <class T>
void add_rows(const Table& t, const int* order, double scale, int64_t begin, int64_t end, Whole& out) {
    const FindHulls<T> find = hulls_for<T>(t.k);
    const T* loss = static_cast<const T*>(t.loss);
    int64_t rate[16];
    float inverse[256] = {}, w[kRows];
    for (int j = 0; j < t.k; ++j) rate[j] = t.rate[order[j]];
    for (int a = 0; a < t.k; ++a)
        for (int b = a + 1; b < t.k; ++b) inverse[16 * a + b] = static_cast<float>(1.0 / static_cast<double>(rate[b] - rate[a]));
    auto h = std::make_unique<Hulls<T>>();
    Stretch* stretch = out.stretch.data();
    for (int64_t at = begin; at < end; at += kRows) {
        const int count = static_cast<int>(std::min<int64_t>(kRows, end - at));
        for (int i = 0; i < count; ++i) w[i] = static_cast<float>(scale / static_cast<double>(t.weight(at + i)));
        find(loss + at * t.k, order, inverse, w, count, *h);
        double last = 0.0;
        int64_t cost = 0;
        for (int i = 0; i < count; ++i) cost += t.weight(at + i);
        for (int j = 0; j < t.k; ++j) {
            double sum = 0.0;
            for (int i = 0; i < count; ++i) sum += h->loss[j][i];
            out.column[j] += sum;
        }
        for (int i = 0; i < count; ++i) {
            const int j = t.k - 1;
            last += h->loss[h->at[j][i] >= 0 ? j : h->before[j][i]][i];
        }
        for (int j = 1; j < t.k; ++j)
            for (int i = 0; i < count; ++i) {
                if (h->at[j][i] < 0) continue;
                Stretch& s = stretch[h->at[j][i]];
                const int a = h->before[j][i];
                s.cost += t.weight(at + i) * (rate[j] - rate[a]);
                s.loss += static_cast<double>(h->loss[a][i]) - static_cast<double>(h->loss[j][i]);
            }
        out.cost += cost * rate[0];
        out.last += last;
    }
}

#if BW_FAST
// Rows in chunks of sixteen where the processor, the formats and the costs allow; returns how many were added.
template <int K>
int64_t add_fast(const Table& t, const int* order, double scale, int64_t begin, int64_t end, Pair* stretch, Whole& out) {
    Plane<K> p{};
    Pair sum[K + 1] = {};
    p.order = order;
    for (int j = 0; j < K; ++j) p.rate[j] = static_cast<float>(t.rate[order[j]]);
    for (int a = 0; a < K; ++a)
        for (int b = a + 1; b < K; ++b)
            p.inverse[a][b] = static_cast<float>(1.0 / static_cast<double>(t.rate[order[b]] - t.rate[order[a]]));
    p.one_size = t.one_size;
    p.scale = static_cast<float>(t.size == nullptr ? scale / static_cast<double>(t.one_size) : scale);
    p.shift = 23 - kShare;
    p.stretches = kStretches;
    p.stretch = stretch;
    p.sum = sum;
    const int64_t count = (end - begin) / 16 * 16;
    const float* loss = static_cast<const float*>(t.loss) + begin * K;
    if (t.size == nullptr) add_rows16<K, true>(loss, nullptr, count, p);
    else add_rows16<K, false>(loss, t.size + begin, count, p);
    for (int j = 0; j < K; ++j) out.column[j] += sum[j].loss;
    out.cost += sum[K].cost * t.rate[order[0]];
    out.last += sum[K].loss;
    return count;
}

// Rates that single precision holds, and the instructions.
inline bool fast_frontier(const Table& t) {
    const int64_t top = *std::max_element(t.rate, t.rate + t.k);
    return t.single && (t.k == 4 || t.k == 8) && has_avx512() && !flushes() && top < (1 << 24);
}
#endif

// Formats by rising rate (all different), at most 16; every loss finite, every size positive. scale: brings slopes into
// the range of single precision.
inline Whole whole_frontier(const Table& t, const int* order, double scale, int threads) {
    constexpr int64_t chunk = 1 << 17;
    std::vector<Whole> parts(static_cast<size_t>(threads));
#if BW_FAST
    const bool fast = fast_frontier(t);
#else
    const bool fast = false;
#endif
    auto work = [&](int me) {
        parts[me].stretch.resize(kStretches);
#if BW_FAST
        std::vector<Pair> pairs(fast ? kStretches + 16 : 0);
#endif
        const int64_t first = t.n * me / threads, last = t.n * (me + 1) / threads;
        for (int64_t begin = first; begin < last; begin += chunk) {
            const int64_t end = std::min(last, begin + chunk);
            int64_t at = begin;
#if BW_FAST
            if (fast) at += t.k == 4 ? add_fast<4>(t, order, scale, begin, end, pairs.data(), parts[me])
                                     : add_fast<8>(t, order, scale, begin, end, pairs.data(), parts[me]);
#endif
            if (t.single) add_rows<float>(t, order, scale, at, end, parts[me]);
            else add_rows<double>(t, order, scale, at, end, parts[me]);
            release(t, begin, end);
        }
#if BW_FAST
        for (int q = 0; fast && q < kStretches; ++q) {
            parts[me].stretch[q].cost += pairs[q].cost;
            parts[me].stretch[q].loss += pairs[q].loss;
        }
#endif
    };
    std::vector<std::thread> crew;
    for (int me = 1; me < threads; ++me) crew.emplace_back(work, me);
    work(0);
    for (std::thread& one : crew) one.join();
    for (int me = 1; me < threads; ++me) {
        for (int q = 0; q < kStretches; ++q) {
            parts[0].stretch[q].cost += parts[me].stretch[q].cost;
            parts[0].stretch[q].loss += parts[me].stretch[q].loss;
        }
        parts[0].cost += parts[me].cost;
        for (int j = 0; j < t.k; ++j) parts[0].column[j] += parts[me].column[j];
        parts[0].last += parts[me].last;
    }
    return std::move(parts[0]);
}

}  // namespace bitwright
