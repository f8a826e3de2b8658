// The fused base functions: f, f' and f'' from z = x - location, and, where f can be undone far enough,
// f' and f'' from f itself. One struct each; V is a vector of float or of double.
//
//   f(z)             the value
//   at(z, f, d)      the value and the derivative
//   at(z, f, d, e)   and the second derivative
//   kFromValue       whether the next three exist
//   tidy(f)          f as divided out of a rounded output, brought back into its range
//   slope(f)         f' from f
//   bend(f, d)       f'' from f and f'
//   kKinked          f' jumps at z = 0, so that the side of the kink has to survive an underflow of scale * f
#pragma once

#include "functions.h"
#include "kernels.h"

#include <limits>

namespace agileact {
namespace {

template <typename V>
struct Relu {
  static constexpr bool kFromValue = true;
  static constexpr bool kKinked = true;
  Relu(double, double) {}
  V f(V z) const { return at_least(z, 0); }
  V tidy(V f) const { return f; }
  // NaN is not <= 0, so a gradient passes there, as it does in torch.
  V slope(V f) const { return where_at_most(f, 0, V(0), V(1)); }
  V gated(V f, V g) const { return where_at_most(f, 0, V(0), g); }
  V bend(V, V) const { return V(0); }
  void at(V z, V& f, V& d) const {
    f = at_least(z, 0);
    d = slope(z);
  }
  void at(V z, V& f, V& d, V& e) const {
    at(z, f, d);
    e = V(0);
  }
};

// g * f', from f.
template <typename B, typename V>
inline V gated(const B& base, V f, V g) {
  if constexpr (std::is_same_v<B, Relu<V>>) {
    return base.gated(f, g);
  } else {
    return g * base.slope(f);
  }
}

template <typename V>
struct LeakyRelu {
  static constexpr bool kFromValue = true;
  static constexpr bool kKinked = true;
  V negative_slope;
  LeakyRelu(double p, double) : negative_slope(p) {}
  V f(V z) const { return z * slope(z); }
  V tidy(V f) const { return f; }
  V slope(V f) const { return where_above(f, 0, V(1), negative_slope); }
  V bend(V, V) const { return V(0); }
  void at(V z, V& f, V& d) const {
    d = slope(z);
    f = z * d;
  }
  void at(V z, V& f, V& d, V& e) const {
    at(z, f, d);
    e = V(0);
  }
};

template <typename V>
struct Elu {
  static constexpr bool kFromValue = true;
  static constexpr bool kKinked = true;
  V alpha;
  Elu(double p, double) : alpha(p) {}
  V f(V z) const { return where_above(z, 0, z, alpha * fast_expm1(z)); }
  V tidy(V f) const { return at::vec::maximum(f, alpha.neg()); }
  V slope(V f) const { return where_above(f, 0, V(1), f + alpha); }
  V bend(V f, V d) const { return where_above(f, 0, V(0), d); }
  void at(V z, V& f, V& d) const {
    const V low = alpha * fast_expm1(z);
    f = where_above(z, 0, z, low);
    d = where_above(z, 0, V(1), low + alpha);
  }
  void at(V z, V& f, V& d, V& e) const {
    at(z, f, d);
    e = where_above(z, 0, V(0), d);
  }
};

template <typename V>
struct Sigmoid {
  static constexpr bool kFromValue = true;
  static constexpr bool kKinked = false;
  Sigmoid(double, double) {}
  V f(V z) const { return logistic(z); }
  // What was rounded may lie a little beyond 1, where the slope must not turn negative.
  V tidy(V f) const { return f; }
  V slope(V f) const { return at_least(f - f * f, 0); }
  V bend(V f, V d) const { return d * (V(1) - f - f); }
  void at(V z, V& f, V& d) const {
    f = logistic(z);
    d = slope(f);
  }
  void at(V z, V& f, V& d, V& e) const {
    at(z, f, d);
    e = bend(f, d);
  }
};

template <typename V>
struct Tanh {
  static constexpr bool kFromValue = true;
  static constexpr bool kKinked = false;
  Tanh(double, double) {}
  // In float a rational function of z, fitted by weighted least squares with a relative error of 2e-8 before rounding.
  V f(V z) const {
    if constexpr (std::is_same_v<typename V::value_type, float>) {
      static constexpr double top[] = {0.9999999794491695, 0.1338101914345223, 0.00349558038560076,
                                       2.0608954084580807e-05, 1.3354483384006465e-08};
      static constexpr double bottom[] = {1, 0.4671433473452787, 0.025876952818051125, 0.00032856221152298653,
                                          7.776485428492566e-07};
      const V near = within(z, -9, 9);
      const V square = near * near;
      return quotient(near * polynomial(square, top), polynomial(square, bottom));
    } else {
      return z.tanh();
    }
  }
  V tidy(V f) const { return f; }
  V slope(V f) const { return at_least(V(1) - f * f, 0); }
  V bend(V f, V d) const { return V(-2) * f * d; }
  void at(V z, V& f, V& d) const {
    f = this->f(z);
    d = slope(f);
  }
  void at(V z, V& f, V& d, V& e) const {
    at(z, f, d);
    e = bend(f, d);
  }
};

template <typename V>
struct Softplus {
  static constexpr bool kFromValue = true;
  static constexpr bool kKinked = false;
  V beta, threshold, inverse;
  Softplus(double p, double q) : beta(p), threshold(q), inverse(1 / p) {}
  V f(V z) const {
    const V t = z * beta;
    return rise(z, t, fast_exp(t.abs().neg()));
  }
  // With u = exp(-|t|), which cannot overflow.
  V rise(V z, V t, V u) const {
    return V::blendv((at_least(t, 0) + fast_log1p(u)) * inverse, z, t > threshold);
  }
  V tidy(V f) const { return at_least(f, 0); }
  V slope(V f) const {
    const V t = f * beta;
    return V::blendv(fast_expm1(t.neg()).neg(), V(1), t > threshold);
  }
  V bend(V f, V d) const { return V::blendv(beta * d * (V(1) - d), V(0), f * beta > threshold); }
  void at(V z, V& f, V& d) const {
    const V t = z * beta;
    const V u = fast_exp(t.abs().neg());
    f = rise(z, t, u);
    d = V::blendv(quotient(where_above(t, 0, V(1), u), V(1) + u), V(1), t > threshold);
  }
  void at(V z, V& f, V& d, V& e) const {
    at(z, f, d);
    e = V::blendv(beta * d * (V(1) - d), V(0), z * beta > threshold);
  }
};

template <typename V>
struct Identity {
  static constexpr bool kFromValue = true;
  static constexpr bool kKinked = false;
  Identity(double, double) {}
  V f(V z) const { return z; }
  V tidy(V f) const { return f; }
  V slope(V) const { return V(1); }
  V bend(V, V) const { return V(0); }
  void at(V z, V& f, V& d) const {
    f = z;
    d = V(1);
  }
  void at(V z, V& f, V& d, V& e) const {
    at(z, f, d);
    e = V(0);
  }
};

template <typename V>
struct Silu {
  static constexpr bool kFromValue = false;
  static constexpr bool kKinked = false;
  Silu(double, double) {}
  V f(V z) const { return logistic(z, z); }
  void at(V z, V& f, V& d) const {
    const V s = logistic(z);
    f = z * s;
    d = at::vec::fmadd(f, V(1) - s, s);
  }
  void at(V z, V& f, V& d, V& e) const {
    const V s = logistic(z);
    f = z * s;
    const V rest = V(1) - s;
    d = s * (V(1) + z * rest);
    e = s * rest * (V(2) + z * (rest - s));
  }
};

template <typename V>
struct Gelu {
  static constexpr bool kFromValue = false;
  static constexpr bool kKinked = false;
  Gelu(double, double) {}
  // 0.5 (1 + erf(z / sqrt(2))), the normal distribution. In float a rational function of z, fitted by weighted least
  // squares with an error of 2e-8 before rounding: half the work of ATen's erf, which also has no value at infinity.
  static V mass(V z) {
    if constexpr (std::is_same_v<typename V::value_type, float>) {
      static constexpr double top[] = {0.398942217, 0.0340759061, 0.00468991065, 0.000170954728, 6.35244766e-06, 2.24811239e-08};
      static constexpr double bottom[] = {1, 0.252081454, 0.0287709907, 0.00189652073, 7.42563643e-05, 1.18971479e-06};
      const V near = within(z, -kFar, kFar);
      const V square = near * near;
      const V half = quotient(near * polynomial(square, top), polynomial(square, bottom));
      // Out there the mass is below a rounding of 1; to the left it must not stay at one.
      return where_at_most(z, -kFar, V(0), half + V(0.5));
    } else {
      // At 10 erf is 1 in every type.
      return V(0.5) * (V(1) + within(z * V(M_SQRT1_2), -10, 10).erf());
    }
  }
  static constexpr double kFar = 5.54;
  // Far out the density is 0; the square must not reach inf before it gets there.
  static V density(V z, V& near) {
    near = within(z, -100, 100);
    return V(0.5 * M_SQRT1_2 * M_2_SQRTPI) * fast_exp(V(-0.5) * near * near);
  }
  V f(V z) const { return z * mass(z); }
  void at(V z, V& f, V& d) const {
    V near;
    const V m = mass(z);
    f = z * m;
    const V phi = density(z, near);
    d = m + near * phi;
  }
  void at(V z, V& f, V& d, V& e) const {
    V near;
    const V m = mass(z);
    f = z * m;
    const V phi = density(z, near);
    d = m + near * phi;
    e = phi * (V(2) - near * near);
  }
};

// 0.5 z (1 + tanh(u)) = z * logistic(2u), which also keeps its precision for negative z.
template <typename V>
struct GeluTanh {
  static constexpr bool kFromValue = false;
  static constexpr bool kKinked = false;
  static constexpr double k = M_2_SQRTPI * M_SQRT2;  // 2 * sqrt(2 / pi)
  static constexpr double c = 0.044715;
  GeluTanh(double, double) {}
  static V gate(V near, V square) { return logistic(V(k) * near * (V(1) + V(c) * square)); }
  V f(V z) const {
    const V near = within(z, -100, 100);
    return z * gate(near, near * near);
  }
  void at(V z, V& f, V& d) const {
    const V near = within(z, -100, 100);
    const V square = near * near;
    const V s = gate(near, square);
    f = z * s;
    d = s + near * s * (V(1) - s) * V(k) * (V(1) + V(3 * c) * square);
  }
  void at(V z, V& f, V& d, V& e) const {
    const V near = within(z, -100, 100);
    const V square = near * near;
    const V s = gate(near, square);
    const V s1 = s * (V(1) - s);
    const V w1 = V(k) * (V(1) + V(3 * c) * square);
    const V w2 = V(6 * k * c) * near;
    f = z * s;
    d = s + near * s1 * w1;
    e = s1 * (V(2) * w1 + near * ((V(1) - s - s) * w1 * w1 + w2));
  }
};

// tanh(softplus(z)) = n / (n + 2) with n = e^z (e^z + 2); above 20 it is 1 in float, and above 40 in double.
template <typename V>
struct Mish {
  static constexpr bool kFromValue = false;
  static constexpr bool kKinked = false;
  static constexpr double kFull = std::is_same_v<typename V::value_type, float> ? 20 : 40;
  Mish(double, double) {}
  V f(V z) const {
    const V e = fast_exp(at_most(z, kFull));
    const V n = e * (e + V(2));
    return z * quotient(n, n + V(2));
  }
  // t, the logistic function s, and t': both quotients by one division. 1 - t is a quotient too, as t itself rounds to 1
  // long before z (1 - t) vanishes; and beyond the bound, where e stands still, it is 0.
  static V gate(V z, V& s, V& slope) {
    const V e = fast_exp(at_most(z, kFull));
    const V n = e * (e + V(2)), one = V(1) + e, two = n + V(2);
    const V inverse = reciprocal(one * two);
    const V t = n * one * inverse;
    s = e * two * inverse;
    slope = where_above(z, kFull, V(0), s * (V(2) * one * inverse) * (V(1) + t));
    return t;
  }
  void at(V z, V& f, V& d) const {
    V s, slope;
    const V t = gate(z, s, slope);
    f = z * t;
    d = t + z * slope;
  }
  void at(V z, V& f, V& d, V& second) const {
    V s, slope;
    const V t = gate(z, s, slope);
    f = z * t;
    d = t + z * slope;
    second = V(2) * slope + z * (slope * (V(1) - s - V(2) * t * s));
  }
};

template <typename V>
struct Hardswish {
  static constexpr bool kFromValue = false;
  static constexpr bool kKinked = false;
  Hardswish(double, double) {}
  V f(V z) const { return z * within(z + V(3), 0, 6) * V(1.0 / 6); }
  void at(V z, V& f, V& d) const {
    f = this->f(z);
    // torch: 0 up to -3, 1 from 3 on, z / 3 + 0.5 in between.
    d = V::blendv(z * V(1.0 / 3) + V(0.5), V(1), z >= V(3));
    d = where_at_most(z, -3, V(0), d);
  }
  void at(V z, V& f, V& d, V& e) const {
    at(z, f, d);
    e = V::blendv(V(1.0 / 3), V(0), (z >= V(3)) | (z <= V(-3)));
  }
};

template <typename V>
struct Hardsigmoid {
  static constexpr bool kFromValue = false;
  static constexpr bool kKinked = false;
  Hardsigmoid(double, double) {}
  V f(V z) const { return within(z + V(3), 0, 6) * V(1.0 / 6); }
  void at(V z, V& f, V& d) const {
    f = this->f(z);
    d = V::blendv(V(1.0 / 6), V(0), (z >= V(3)) | (z <= V(-3)));
  }
  void at(V z, V& f, V& d, V& e) const {
    at(z, f, d);
    e = V(0);
  }
};

// Calls go(base) with the struct for a formula.
template <typename V, typename Go>
void with_base(const Formula& formula, Go&& go) {
  const double p = formula.p, q = formula.q;
  switch (formula.base) {
    case Base::kRelu: return go(Relu<V>(p, q));
    case Base::kLeakyRelu: return go(LeakyRelu<V>(p, q));
    case Base::kElu: return go(Elu<V>(p, q));
    case Base::kSigmoid: return go(Sigmoid<V>(p, q));
    case Base::kTanh: return go(Tanh<V>(p, q));
    case Base::kSoftplus: return go(Softplus<V>(p, q));
    case Base::kIdentity: return go(Identity<V>(p, q));
    case Base::kSilu: return go(Silu<V>(p, q));
    case Base::kGelu: return go(Gelu<V>(p, q));
    case Base::kGeluTanh: return go(GeluTanh<V>(p, q));
    case Base::kMish: return go(Mish<V>(p, q));
    case Base::kHardswish: return go(Hardswish<V>(p, q));
    case Base::kHardsigmoid: return go(Hardsigmoid<V>(p, q));
  }
}

// Calls go(T(), base) with that type among Ts which dtype names, and the struct for a formula.
template <typename... Ts, typename Go>
void with_type_and_base(c10::ScalarType dtype, const Formula& formula, Go&& go) {
  with_type<Ts...>(dtype, [&](auto zero) {
    with_base<vec_t<decltype(zero)>>(formula, [&](const auto& base) { go(zero, base); });
  });
}

// Likewise, among all types that the kernels have.
template <typename Go>
void with_any_type_and_base(c10::ScalarType dtype, const Formula& formula, Go&& go) {
  with_any_type(dtype, [&](auto zero) {
    with_base<vec_t<decltype(zero)>>(formula, [&](const auto& base) { go(zero, base); });
  });
}

}  // namespace
}  // namespace agileact
