// Two vectors of the arithmetic's type at a time, whatever the type in memory: one load of a
// half-precision vector fills both, so every loop is written once for all dtypes.
#pragma once

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <c10/core/ScalarType.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
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

// Calls go(T()) with that type among Ts which dtype names.
template <typename... Ts, typename Go>
void with_type(c10::ScalarType dtype, Go&& go) {
  const bool known = ((dtype == c10::CppTypeToScalarType<Ts>::value && (go(Ts()), true)) || ...);
  TORCH_CHECK(known, "agileact: no kernel for ", dtype);
}

// Likewise, among all types that the kernels have.
template <typename Go>
void with_any_type(c10::ScalarType dtype, Go&& go) {
  with_type<float, double, c10::BFloat16, c10::Half>(dtype, go);
}

template <typename T>
constexpr int64_t kStep = 2 * vec_t<T>::size();

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

// The first n numbers, zeros behind them. With AVX2 ATen copies them to the stack and back.
template <typename A>
inline at::vec::Vectorized<A> load_first(const A* from, int64_t n) {
  using V = at::vec::Vectorized<A>;
#if defined(CPU_CAPABILITY_AVX2)
  if constexpr (std::is_same_v<A, float>) {
    return _mm256_maskload_ps(from, _mm256_castps_si256(first_lanes<V>(n)));
  }
#endif
  return V::loadu(from, n);
}
template <typename A>
inline void store_first(const at::vec::Vectorized<A>& v, A* to, int64_t n) {
#if defined(CPU_CAPABILITY_AVX2)
  if constexpr (std::is_same_v<A, float>) {
    _mm256_maskstore_ps(to, _mm256_castps_si256(first_lanes<at::vec::Vectorized<A>>(n)), v);
    return;
  }
#endif
  v.store(to, n);
}

// From float16 and bfloat16 to float and back. bfloat16 is rounded to the nearest even, and NaN stays NaN.
#if defined(CPU_CAPABILITY_AVX512)
inline __m512 widened(const c10::BFloat16* from) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
inline __m512 widened(const c10::Half* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
inline __m256i rounded(__m512 v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(sum, nan, _mm512_set1_epi32(0x7fc00000)), 16));
}
#if defined(__GNUC__) && !defined(__clang__)
#define AGILEACT_NATIVE_BFLOAT16
// One instruction where the processor has it, which the flags of the set do not say. It writes 0 for what is below
// the smallest normal number.
const bool kNativeBFloat16 = __builtin_cpu_supports("avx512bf16");
#endif
inline __m512i joined(__m256i low, __m256i high) { return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1); }
inline __m512i narrowed(__m512 low, __m512 high, c10::BFloat16) {
#if defined(AGILEACT_NATIVE_BFLOAT16)
  if (kNativeBFloat16) {
    __m512i both;
    __asm__("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both) : "v"(low), "v"(high));
    return both;
  }
#endif
  return joined(rounded(low), rounded(high));
}
inline __m512i narrowed(__m512 low, __m512 high, c10::Half) {
  return joined(_mm512_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT), _mm512_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT));
}
inline __m512i bits_of(__m512 v) { return _mm512_castps_si512(v); }
inline __m512i bits_of(__m512d v) { return _mm512_castpd_si512(v); }
// One vector to memory: through the caches, or past them to a whole number of vectors.
template <bool past>
inline void put(__m512i bits, void* to) {
  if constexpr (past) {
    _mm512_stream_si512(static_cast<__m512i*>(to), bits);
  } else {
    _mm512_storeu_si512(to, bits);
  }
}
#elif defined(CPU_CAPABILITY_AVX2)
inline __m256 widened(const c10::BFloat16* from) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline __m256 widened(const c10::Half* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
// In the upper half of each lane; of no NaN.
inline __m256i rounded_number(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
}
inline __m256i rounded_bits(__m256 v) {
  // All bits set is a NaN too.
  const __m256 nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
  return _mm256_castps_si256(_mm256_or_ps(_mm256_castsi256_ps(rounded_number(v)), nan));
}
inline __m256i rounded(__m256 v) { return _mm256_srli_epi32(rounded_bits(v), 16); }
inline __m256i narrowed(__m256 low, __m256 high, c10::BFloat16) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded(low), rounded(high)), 0xd8);
}
inline __m256i narrowed(__m256 low, __m256 high, c10::Half) {
  return _mm256_set_m128i(_mm256_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT), _mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT));
}
inline __m256i bits_of(__m256 v) { return _mm256_castps_si256(v); }
inline __m256i bits_of(__m256d v) { return _mm256_castpd_si256(v); }
// One vector to memory: through the caches, or past them to a whole number of vectors.
template <bool past>
inline void put(__m256i bits, void* to) {
  if constexpr (past) {
    _mm256_stream_si256(static_cast<__m256i*>(to), bits);
  } else {
    _mm256_storeu_si256(static_cast<__m256i*>(to), bits);
  }
}
#endif
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
constexpr bool kPast = true;
inline void fence() { _mm_sfence(); }
template <bool past, typename V>
inline void put_vector(const V& v, typename V::value_type* to) {
  put<past>(bits_of(v), to);
}
#else
constexpr bool kPast = false;
inline void fence() {}
template <bool past, typename V>
inline void put_vector(const V& v, typename V::value_type* to) {
  v.store(to);
}
#endif

template <typename T>
struct Pack {
  using V = vec_t<T>;
  static constexpr int64_t W = V::size();
  V v[2];

  static inline Pack load(const T* from) {
    if constexpr (std::is_same_v<T, acc_t<T>>) {
      return {V::loadu(from), V::loadu(from + W)};
    } else {
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
      return {V(widened(from)), V(widened(from + W))};
#else
      auto [low, high] = at::vec::convert_to_float<T>(at::vec::Vectorized<T>::loadu(from));
      return {low, high};
#endif
    }
  }

  // The first n lanes, zeros behind them.
  static inline Pack load(const T* from, int64_t n) {
    if constexpr (std::is_same_v<T, acc_t<T>>) {
      return {load_first(from, std::min(n, W)), n > W ? load_first(from + W, n - W) : V(0)};
    } else {
      T some[2 * W] = {};
      std::memcpy(static_cast<void*>(some), from, n * sizeof(T));
      return load(some);
    }
  }

  template <bool past = false>
  inline void store(T* to) const {
    if constexpr (std::is_same_v<T, acc_t<T>>) {
      put_vector<past>(v[0], to);
      put_vector<past>(v[1], to + W);
    } else {
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
      put<past>(narrowed(v[0], v[1], T()), to);
#else
      at::vec::convert_from_float<T>(v[0], v[1]).store(to);
#endif
    }
  }

  inline void store(T* to, int64_t n) const {
    if constexpr (std::is_same_v<T, acc_t<T>>) {
      store_first(v[0], to, std::min(n, W));
      if (n > W) {
        store_first(v[1], to + W, n - W);
      }
    } else {
      T some[2 * W];
      store(some);
      std::memcpy(static_cast<void*>(to), some, n * sizeof(T));
    }
  }
};

// H vectors of the loops, which do not mind in which order the numbers lie in them: on AVX2 the even numbers of bfloat16
// fill one vector and the odd ones the other, as a pack in order would cost shuffles in both directions.
template <typename T, int H = 2>
struct Lanes {
  using V = vec_t<T>;
  static constexpr int64_t W = V::size();
  static_assert(H == 2 || std::is_same_v<T, acc_t<T>>);
  V v[H];

  // Where the number i of a pack lies.
  static constexpr int64_t place(int64_t i) { return i; }
  // All bits in the lanes of a vector that hold the first n numbers.
  static V first(int half, int64_t n) { return first_lanes<V>(n - half * W); }

  static inline Lanes load(const T* from) {
    if constexpr (H == 1) {
      return {V::loadu(from)};
    } else {
      const Pack<T> p = Pack<T>::load(from);
      return {p.v[0], p.v[1]};
    }
  }
  static inline Lanes load(const T* from, int64_t n) {
    if constexpr (H == 1) {
      return {load_first(from, n)};
    } else {
      const Pack<T> p = Pack<T>::load(from, n);
      return {p.v[0], p.v[1]};
    }
  }
  template <bool past = false>
  inline void store(T* to) const {
    if constexpr (H == 1) {
      put_vector<past>(v[0], to);
    } else {
      Pack<T>{{v[0], v[1]}}.template store<past>(to);
    }
  }
  inline void store(T* to, int64_t n) const {
    if constexpr (H == 1) {
      store_first(v[0], to, n);
    } else {
      Pack<T>{{v[0], v[1]}}.store(to, n);
    }
  }
};

#if defined(CPU_CAPABILITY_AVX2)
template <>
struct Lanes<c10::BFloat16, 2> {
  using V = vec_t<c10::BFloat16>;
  static constexpr int64_t W = V::size();
  V v[2];

  static constexpr int64_t place(int64_t i) { return i % 2 * W + i / 2; }
  static V first(int half, int64_t n) { return first_lanes<V>((n + 1 - half) / 2); }

  static inline Lanes load(const c10::BFloat16* from) {
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return {V(_mm256_castsi256_ps(_mm256_slli_epi32(both, 16))),
            V(_mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000)))))};
  }
  template <bool past = false>
  inline void store(c10::BFloat16* to) const {
    // A NaN would have to be looked for if its lower half were not 0, which the sum would carry into the upper one. It is 0
    // in each number that comes from memory as bfloat16 and in what arithmetic makes of it; `parameter` sees to the rest.
    const __m256i even = rounded_number(v[0]), odd = rounded_number(v[1]);
    put<past>(_mm256_blend_epi16(_mm256_srli_epi32(even, 16), odd, 0xaa), to);
  }
  static inline Lanes load(const c10::BFloat16* from, int64_t n) {
    c10::BFloat16 some[2 * W] = {};
    std::memcpy(static_cast<void*>(some), from, n * sizeof(c10::BFloat16));
    return load(some);
  }
  inline void store(c10::BFloat16* to, int64_t n) const {
    c10::BFloat16 some[2 * W];
    store(some);
    std::memcpy(static_cast<void*>(to), some, n * sizeof(c10::BFloat16));
  }
};
#endif

// A parameter as the loops take it: a NaN without a lower half where results are rounded without a look for NaN.
template <typename T>
inline acc_t<T> parameter(acc_t<T> value) {
  if constexpr (Lanes<T>::place(1) != 1) {
    return value == value ? value : std::numeric_limits<acc_t<T>>::quiet_NaN();
  } else {
    return value;
  }
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
