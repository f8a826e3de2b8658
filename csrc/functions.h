// What the base functions are made of: exponentials, choices and limits of vectors of float or of double.
#pragma once

#include "pack.h"

#include <cmath>

namespace agileact {
namespace {

// exp to about one unit in the last place for float on AVX-512, where ATen's costs twice as much: the range
// reduction and a polynomial, and scalef sees to overflow, underflow and NaN. ATen's own elsewhere.
template <typename V>
inline V fast_exp(V x) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<typename V::value_type, float>) {
    // exp(x) = 2^n * exp(r) with r = x - n * ln 2 in two parts. Beyond +-200 the result is 0 or inf anyway,
    // and inf - inf must not arise; the operand order of min and max lets NaN through.
    const __m512 clamped =
        _mm512_max_ps(_mm512_set1_ps(-200.f), _mm512_min_ps(_mm512_set1_ps(200.f), __m512(x)));
    const __m512 n = _mm512_roundscale_ps(
        _mm512_mul_ps(clamped, _mm512_set1_ps(1.44269504088896341f)),
        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), clamped);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
    __m512 p = _mm512_set1_ps(1.0f / 720);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
  }
#endif
  return x.exp();
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

// One over a finite number, to a unit in the last place: a division takes twice as long.
template <typename V>
inline V reciprocal(V x) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<typename V::value_type, float>) {
    const __m512 r = _mm512_rcp14_ps(x);
    return _mm512_fmadd_ps(_mm512_fnmadd_ps(x, r, _mm512_set1_ps(1.f)), r, r);
  }
#endif
  return V(1) / x;
}

// c[0] + c[1] x + c[2] x^2 + ...
template <typename V, size_t N>
inline V polynomial(V x, const double (&c)[N]) {
  V sum(c[N - 1]);
  for (size_t i = N - 1; i-- > 0;) {
    sum = at::vec::fmadd(sum, x, V(c[i]));
  }
  return sum;
}

template <typename V>
inline V logistic(V x) {
  return V(1) / (V(1) + fast_exp(x.neg()));
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

}  // namespace
}  // namespace agileact
