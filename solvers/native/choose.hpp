// Each row's best format at two multipliers, in double precision, for 2 to 16 formats.
#pragma once

#include "table.hpp"

namespace bitwright {

constexpr int kBlock = 256;

struct Lanes {
    double loss[kBlock];
    int64_t high[kBlock], low[kBlock];
};

// Choice at two multipliers for up to kBlock rows of K formats. `w`: weights as doubles; `r`: rates as doubles.
template <class T, int K>
BW_INLINE void choose(const T* loss, const double* w, const double* r, Bracket b, int count, Lanes& out) {
    for (int i = 0; i < count; ++i) {
        const T* p = loss + static_cast<int64_t>(i) * K;
        double l = load(p), c = w[i] * r[0];
        double vh = l + b.high * c, vl = l + b.low * c;
        double chosen = l;
        int64_t xh = 0, xl = 0;
        for (int j = 1; j < K; ++j) {
            l = load(p + j);
            c = w[i] * r[j];
            const double h = l + b.high * c, g = l + b.low * c;
            const bool a = h < vh, d = g < vl;
            vh = a ? h : vh;
            xh = a ? j : xh;
            chosen = a ? l : chosen;
            vl = d ? g : vl;
            xl = d ? j : xl;
        }
        out.loss[i] = chosen;
        out.high[i] = xh;
        out.low[i] = xl;
    }
}

template <class T, int K>
void choose_plain(const T* l, const double* w, const double* r, Bracket b, int count, Lanes& out) {
    choose<T, K>(l, w, r, b, count, out);
}

template <class T, int K>
BW_AVX2 void choose_avx2(const T* l, const double* w, const double* r, Bracket b, int count, Lanes& out) {
    choose<T, K>(l, w, r, b, count, out);
}

template <class T>
using Choose = void (*)(const T*, const double*, const double*, Bracket, int, Lanes&);

// The compiled pass for k formats, or null when there is none.
template <class T>
Choose<T> choose_for(int k) {
    const bool wide = BW_HAS_AVX2;
    switch (k) {
#define BW_CASE(K) \
    case K: \
        return wide ? choose_avx2<T, K> : choose_plain<T, K>;
        BW_CASE(2) BW_CASE(3) BW_CASE(4) BW_CASE(5) BW_CASE(6) BW_CASE(7) BW_CASE(8) BW_CASE(9) BW_CASE(10)
        BW_CASE(11) BW_CASE(12) BW_CASE(13) BW_CASE(14) BW_CASE(15) BW_CASE(16)
#undef BW_CASE
        default: return nullptr;
    }
}

}  // namespace bitwright
