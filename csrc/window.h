// Windows of max pooling, and rows of parameters for them.
#pragma once

#include "bases.h"
#include "loops.h"

#include <vector>

namespace agileact {
namespace {

struct Window {
  int64_t kernel[2], stride[2], padding[2], dilation[2], size[2], out[2];
  explicit Window(const Pooling& p)
      : kernel{p.kernel[0], p.kernel[1]},
        stride{p.stride[0], p.stride[1]},
        padding{p.padding[0], p.padding[1]},
        dilation{p.dilation[0], p.dilation[1]},
        size{p.height, p.width},
        out{p.out_height, p.out_width} {}
  int64_t first(int axis, int64_t o) const { return o * stride[axis] - padding[axis]; }
  bool inside(int axis, int64_t i) const { return i >= 0 && i < size[axis]; }
  // Two by two, step two, no border: what most networks have, and two neighbours fill one vector.
  bool halves() const {
    return kernel[0] == 2 && kernel[1] == 2 && stride[0] == 2 && stride[1] == 2 && padding[0] == 0 && padding[1] == 0 &&
        dilation[0] == 1 && dilation[1] == 1;
  }
  // Every window lies inside: no padding, and none hangs over.
  bool inside() const {
    return padding[0] == 0 && padding[1] == 0 && first(0, out[0] - 1) + dilation[0] * (kernel[0] - 1) < size[0] &&
        first(1, out[1] - 1) + dilation[1] * (kernel[1] - 1) < size[1];
  }
  bool disjoint() const {
    return stride[0] >= dilation[0] * (kernel[0] - 1) + 1 && stride[1] >= dilation[1] * (kernel[1] - 1) + 1;
  }
};

// One number for a whole row, or one for each of its elements.
template <typename A>
at::vec::Vectorized<A> parameter(const A* from, bool each, int64_t i, int64_t n) {
  using V = at::vec::Vectorized<A>;
  return each ? V::loadu(from + i, n) : V(*from);
}

inline int64_t padded_to(int64_t n, int64_t step) { return (n / step + 2) * step; }

// A parameter a channel, repeated for a row of pixels; zeros behind them, for whole vectors.
template <typename A>
std::vector<A> repeated(const void* table, int64_t channels, int64_t pixels, int64_t size) {
  std::vector<A> row(size, A(0));
  for (int64_t i = 0; i < channels * pixels; ++i) {
    row[i] = static_cast<const A*>(table)[i % channels];
  }
  return row;
}

// How many vectors one load of a T fills.
template <typename T>
constexpr int kHalves = std::is_same_v<T, acc_t<T>> ? 1 : 2;

// kHalves vectors, or, without a whole load, the first n lanes of them.
template <typename T, bool Whole>
AGILEACT_INLINE Pack<T> load_lanes(const T* from, int64_t n) {
  using V = vec_t<T>;
  if constexpr (kHalves<T> == 1) {
    return {{Whole ? V::loadu(from) : V::loadu(from, n), V(0)}};
  } else {
    return Whole ? Pack<T>::load(from) : Pack<T>::load(from, n);
  }
}

template <typename T, bool Whole>
AGILEACT_INLINE void store_lanes(const Pack<T>& p, T* to, int64_t n) {
  if constexpr (kHalves<T> == 1) {
    Whole ? p.v[0].store(to) : p.v[0].store(to, n);
  } else {
    Whole ? p.store(to) : p.store(to, n);
  }
}

// Places in windows, a byte each in memory and a number of the arithmetic's type in vectors.
template <typename V>
AGILEACT_INLINE void store_places(const V& place, uint8_t* to, int64_t n) {
  using A = typename V::value_type;
  if constexpr (std::is_same_v<A, float>) {
#if defined(CPU_CAPABILITY_AVX512)
    const __m512i whole = _mm512_cvtps_epi32(place);
    if (n == V::size()) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(whole));
    } else {
      _mm512_mask_cvtepi32_storeu_epi8(to, static_cast<__mmask16>((1u << n) - 1), whole);
    }
    return;
#elif defined(CPU_CAPABILITY_AVX2)
    const __m256i whole = _mm256_cvtps_epi32(place);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    const int64_t bytes = _mm_cvtsi128_si64(_mm_packus_epi16(words, words));
    std::memcpy(to, &bytes, n);
    return;
#endif
  }
  A lanes[V::size()];
  place.store(lanes);
  for (int64_t i = 0; i < n; ++i) {
    to[i] = static_cast<uint8_t>(static_cast<int>(lanes[i]));
  }
}

template <typename V>
AGILEACT_INLINE V load_places(const uint8_t* from, int64_t n) {
  using A = typename V::value_type;
  if constexpr (std::is_same_v<A, float>) {
#if defined(CPU_CAPABILITY_AVX512)
    if (n == V::size()) {
      return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
    }
#elif defined(CPU_CAPABILITY_AVX2)
    int64_t bytes = 0;
    std::memcpy(&bytes, from, n);
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes)));
#endif
  }
  A lanes[V::size()] = {};
  for (int64_t i = 0; i < n; ++i) {
    lanes[i] = static_cast<A>(from[i]);
  }
  return V::loadu(lanes);
}

// The value where a lane's place is this one, zero elsewhere.
template <typename V>
AGILEACT_INLINE V at_place(const V& value, const V& place, double wanted) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<typename V::value_type, float>) {
    const __m512 here = _mm512_set1_ps(static_cast<float>(wanted));
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(place, here, _CMP_EQ_OQ), value);
  }
#endif
  return value & (place == V(wanted));
}

}  // namespace
}  // namespace agileact
