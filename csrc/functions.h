// What the base functions are made of: exponentials, choices and limits of vectors of float or of double.
#pragma once

#include "pack.h"

#include <cmath>

namespace agileact {
namespace {

// Whether exp and what is made of it are ours: in float, where ATen's are calls that cost two to three times as much and
// take every register. Each is within a few units in the last place.
template <typename V>
constexpr bool kOwn =
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
    std::is_same_v<typename V::value_type, float>;
#else
    false;
#endif

// c[0] + c[1] x + c[2] x^2 + ...
template <typename V, size_t N>
inline V polynomial(V x, const double (&c)[N]) {
  V sum(c[N - 1]);
  for (size_t i = N - 1; i-- > 0;) {
    sum = at::vec::fmadd(sum, x, V(c[i]));
  }
  return sum;
}

// Propagate NaN from v, unlike std::max.
template <typename V>
inline V at_least(V v, double low) {
  return at::vec::clamp_min(v, V(low));
}
template <typename V>
inline V at_most(V v, double high) {
  return at::vec::clamp_max(v, V(high));
}
template <typename V>
inline V within(V v, double low, double high) {
  return at_most(at_least(v, low), high);
}

// The low bits of a number near 2^23, moved to where a float has its exponent.
template <typename V>
inline V power_of_two(V shifted) {
#if defined(CPU_CAPABILITY_AVX512)
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(shifted), 23));
#elif defined(CPU_CAPABILITY_AVX2)
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(shifted), 23));
#else
  return shifted;
#endif
}

// exp(sign * x) = 2^n * exp(r), r within ln 2 / 2. Below -87.3 the power is 0, from 88.4 on infinity.
template <typename V>
struct Reduced {
  V power, r;
};
template <int sign, typename V>
inline Reduced<V> reduced(V x) {
  // Added to n, this leaves n, with the exponent's bias, in the low bits.
  const V shift(12582912.0 + 127.0);
  const V near = within(x, sign > 0 ? -87.9 : -89, sign > 0 ? 89 : 87.9);
  const V shifted = at::vec::fmadd(near, V(sign * 1.44269504088896341), shift);
  const V n = shifted - shift;
  const V r = sign > 0 ? at::vec::fmadd(n, V(-0.693147180559945309), near)
                       : at::vec::fmsub(n, V(-0.693147180559945309), near);
  return {power_of_two(shifted), r};
}

// exp(r) and (exp(r) - 1) / r there, by minimax polynomials with relative errors of 9e-8 and 1e-8.
template <typename V>
inline V short_exp(V r) {
  static constexpr double c[] = {1, 0.9999997063106044, 0.4999914783498005, 0.16667638131823076, 0.04189816044687368,
                                 0.008290272174726079};
  return polynomial(r, c);
}
template <typename V>
inline V short_expm1(V r) {
  static constexpr double c[] = {1.0000000106597735, 0.499999981191483, 0.16666505898279754, 0.04166713715124535,
                                 0.008369104389087036, 0.001388887281215942};
  return r * polynomial(r, c);
}

template <typename V>
inline V fast_exp(V x) {
  if constexpr (kOwn<V>) {
    const auto [power, r] = reduced<1>(x);
    return short_exp(r) * power;
  } else {
    return x.exp();
  }
}

// For x <= 0.
template <typename V>
inline V fast_expm1(V x) {
  if constexpr (kOwn<V>) {
    const auto [power, r] = reduced<1>(x);
    return at::vec::fmadd(short_expm1(r), power, power - V(1));
  } else {
    return x.expm1();
  }
}

// log(1 + u) for u from 0 to 1: twice the artanh of u / (2 + u), by a polynomial with a relative error of 4e-9.
template <typename V>
inline V fast_log1p(V u) {
  if constexpr (std::is_same_v<typename V::value_type, float>) {
    static constexpr double c[] = {2.0000000079218445, 0.6666631464886172, 0.40024912124869977, 0.2796057133757032,
                                   0.2817849799942439};
    const V s = u / (V(2) + u);
    return s * polynomial(s * s, c);
  } else {
    return u.log1p();
  }
}

// t > bound ? yes : no, and no for NaN. On AVX-512 ATen widens the mask of a comparison to a vector and narrows it
// again, which costs more than the choice.
template <typename V>
inline V where_above(V t, double bound, V yes, V no) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<typename V::value_type, float>) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(t, _mm512_set1_ps(static_cast<float>(bound)), _CMP_GT_OQ), no, yes);
  } else {
    return _mm512_mask_blend_pd(_mm512_cmp_pd_mask(t, _mm512_set1_pd(bound), _CMP_GT_OQ), no, yes);
  }
#else
  return V::blendv(no, yes, t > V(bound));
#endif
}

// t <= bound ? yes : no, and no for NaN.
template <typename V>
inline V where_at_most(V t, double bound, V yes, V no) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<typename V::value_type, float>) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(t, _mm512_set1_ps(static_cast<float>(bound)), _CMP_LE_OQ), no, yes);
  } else {
    return _mm512_mask_blend_pd(_mm512_cmp_pd_mask(t, _mm512_set1_pd(bound), _CMP_LE_OQ), no, yes);
  }
#else
  return V::blendv(no, yes, t <= V(bound));
#endif
}

// One over a number, to a unit in the last place. AVX-512 divides in twice the time that this takes; AVX2's twelve bits
// would need as many instructions as its division takes cycles.
template <typename V>
inline V reciprocal(V x) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<typename V::value_type, float>) {
    const __m512 r = _mm512_rcp14_ps(x);
    // At infinity the correction would be NaN.
    const __mmask16 finite = _mm512_cmp_ps_mask(x, _mm512_set1_ps(INFINITY), _CMP_NEQ_UQ);
    return _mm512_maskz_fmadd_ps(finite, _mm512_fnmadd_ps(x, r, _mm512_set1_ps(1.f)), r, r);
  }
#endif
  return V(1) / x;
}

template <typename V>
inline V quotient(V top, V bottom) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<typename V::value_type, float>) {
    return top * reciprocal(bottom);
  }
#endif
  return top / bottom;
}

// top / (1 + exp(-x)).
template <typename V>
inline V logistic(V x, V top) {
  if constexpr (kOwn<V>) {
    const auto [power, r] = reduced<-1>(x);
    return quotient(top, at::vec::fmadd(short_exp(r), power, V(1)));
  } else {
    return top / (V(1) + x.neg().exp());
  }
}
template <typename V>
inline V logistic(V x) {
  return logistic(x, V(1));
}

}  // namespace
}  // namespace agileact
