// Two vectors of the arithmetic's type at a time, whatever the type in memory: one load of a
// half-precision vector fills both, so every loop is written once for all dtypes.
#pragma once

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <tuple>

namespace agileact {
namespace {

template <typename T>
struct Arithmetic {
  using type = float;
};
template <>
struct Arithmetic<double> {
  using type = double;
};
template <typename T>
using acc_t = typename Arithmetic<T>::type;
template <typename T>
using vec_t = at::vec::Vectorized<acc_t<T>>;

template <typename T>
constexpr int64_t kStep = 2 * vec_t<T>::size();

template <typename T>
struct Pack {
  using V = vec_t<T>;
  V v[2];

  static inline Pack load(const T* from) {
    if constexpr (std::is_same_v<T, acc_t<T>>) {
      return {V::loadu(from), V::loadu(from + V::size())};
    } else {
      auto [low, high] = at::vec::convert_to_float<T>(at::vec::Vectorized<T>::loadu(from));
      return {low, high};
    }
  }

  // The first n lanes, zeros behind them.
  static inline Pack load(const T* from, int64_t n) {
    if constexpr (std::is_same_v<T, acc_t<T>>) {
      constexpr int64_t W = V::size();
      return {V::loadu(from, std::min(n, W)), n > W ? V::loadu(from + W, n - W) : V(0)};
    } else {
      auto [low, high] = at::vec::convert_to_float<T>(at::vec::Vectorized<T>::loadu(from, n));
      return {low, high};
    }
  }

  inline void store(T* to) const {
    if constexpr (std::is_same_v<T, acc_t<T>>) {
      v[0].store(to);
      v[1].store(to + V::size());
    } else {
      at::vec::convert_from_float<T>(v[0], v[1]).store(to);
    }
  }

  inline void store(T* to, int64_t n) const {
    if constexpr (std::is_same_v<T, acc_t<T>>) {
      constexpr int64_t W = V::size();
      v[0].store(to, std::min(n, W));
      if (n > W) {
        v[1].store(to + W, n - W);
      }
    } else {
      at::vec::convert_from_float<T>(v[0], v[1]).store(to, n);
    }
  }
};

// All bits in the first n lanes (of any n), none behind them.
template <typename V>
inline V first_lanes(int64_t n) {
  using A = typename V::value_type;
  constexpr int64_t W = V::size();
  using Bits = std::conditional_t<sizeof(A) == 8, uint64_t, uint32_t>;
  static constexpr auto table = [] {
    std::array<Bits, 2 * W> bits{};
    for (int64_t i = 0; i < W; ++i) {
      bits[i] = ~Bits(0);
    }
    return bits;
  }();
  return V::loadu(table.data() + W - std::clamp<int64_t>(n, 0, W));
}

// Adds the lanes in one fixed order.
template <typename V>
inline typename V::value_type sum_lanes(const V& v) {
  using A = typename V::value_type;
  if constexpr (std::is_same_v<A, float>) {
    return at::vec::vec_reduce_all<float>([](V a, V b) { return a + b; }, v);
  } else {
    A lanes[V::size()];
    v.store(lanes);
    A sum = 0;
    for (A lane : lanes) {
      sum += lane;
    }
    return sum;
  }
}

}  // namespace
}  // namespace agileact
