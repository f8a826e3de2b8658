// The activation, its derivative and the derivative of that. Compiled once for each instruction set.
#include "bases.h"
#include "loops.h"

namespace agileact {
namespace {

template <typename T, typename B>
void forward_as(const B& base, const Geometry& g, const Forward& call) {
  using V = vec_t<T>;
  using A = acc_t<T>;
  const Streams<T, 1, 1, 2, 0> io{
      {static_cast<const T*>(call.x)},
      {static_cast<T*>(call.y)},
      {static_cast<const A*>(call.scale), static_cast<const A*>(call.location)},
      {}};
  if constexpr (B::kKinked) {
    if (call.smallest > 0) {
      // Where f > 0 but scale * f rounds to 0, write the smallest number instead: backward sees the side.
      // For f <= 0 the floor lies below the product and changes nothing; NaN passes through.
      const V smallest(call.smallest), huge(0x1p120), sign(-0.0);
      run<T, 1, 1, 2, 0>(g, io, [&](const V* in, const V* tab, V* out, V*) {
        const V f = base.f(in[0] - tab[1]);
        const V floor = at::vec::clamp_max(f * huge, smallest);
        out[0] = at::vec::clamp_min(tab[0].abs() * f, floor) ^ (tab[0] & sign);
      });
      return;
    }
  }
  run<T, 1, 1, 2, 0>(g, io, [&](const V* in, const V* tab, V* out, V*) {
    out[0] = tab[0] * base.f(in[0] - tab[1]);
  });
}

template <typename T, typename B>
void backward_as(const B& base, const Geometry& g, const Backward& call) {
  using V = vec_t<T>;
  using A = acc_t<T>;
  const Streams<T, 2, 1, 2, 2> io{
      {static_cast<const T*>(call.grad), static_cast<const T*>(call.saved)},
      {static_cast<T*>(call.grad_x)},
      {static_cast<const A*>(call.scale), static_cast<const A*>(call.second)},
      {call.sum_f, call.sum_d}};
  if constexpr (std::is_same_v<B, Relu<V>>) {
    if (call.from_output && !in_rows(g)) {
      // The signs of the output and the scale tell the side of the kink, and the sum is divided by the scale once a
      // parameter: one table less to read with every element. In rows tables are in registers.
      const V sign(-0.0);
      const Streams<T, 2, 1, 1, 2> fewer{io.in, io.out, {io.tab[0]}, io.sums};
      run<T, 2, 1, 1, 2>(g, fewer, [&](const V* in, const V* tab, V* out, V* acc) {
        const V gd = base.gated(in[1] ^ (tab[0] & sign), in[0]);
        out[0] = tab[0] * gd;
        acc[0] = at::vec::fmadd(in[0], in[1], acc[0]);
        acc[1] = acc[1] + gd;
      });
      for (int64_t i = 0; i < g.params; ++i) {
        call.sum_f[i] /= io.tab[0][i];
      }
      return;
    }
  }
  if constexpr (B::kFromValue) {
    if (call.from_output) {
      run<T, 2, 1, 2, 2>(g, io, [&](const V* in, const V* tab, V* out, V* acc) {
        const V f = base.tidy(in[1] * tab[1]);
        const V gd = gated(base, f, in[0]);
        out[0] = tab[0] * gd;
        acc[0] = at::vec::fmadd(in[0], f, acc[0]);
        acc[1] = acc[1] + gd;
      });
      return;
    }
  }
  run<T, 2, 1, 2, 2>(g, io, [&](const V* in, const V* tab, V* out, V* acc) {
    V f, d;
    base.at(in[1] - tab[1], f, d);
    const V gd = in[0] * d;
    out[0] = tab[0] * gd;
    acc[0] = at::vec::fmadd(in[0], f, acc[0]);
    acc[1] = acc[1] + gd;
  });
}

// With t = tangent_x - tangent_location, v = tangent_scale and g = grad, the three gradients meet in
// sum g (t a f' + v f), whose derivatives by g, x and a these are; that by the location is minus that by x.
template <typename T, typename B>
void double_backward_as(const B& base, const Geometry& g, const DoubleBackward& call) {
  using V = vec_t<T>;
  using A = acc_t<T>;
  const Streams<T, 3, 2, 4, 2> io{
      {static_cast<const T*>(call.tangent_x), static_cast<const T*>(call.grad), static_cast<const T*>(call.saved)},
      {static_cast<T*>(call.grad_grad), static_cast<T*>(call.grad_x)},
      {static_cast<const A*>(call.scale),
       static_cast<const A*>(call.second),
       static_cast<const A*>(call.tangent_scale),
       static_cast<const A*>(call.tangent_location)},
      {call.sum_scale, call.sum_x}};
  const auto combine = [](const V* in, const V* tab, V f, V d, V e, V* out, V* acc) {
    const V t = in[0] - tab[3];
    const V ta = t * tab[0];
    out[0] = ta * d + tab[2] * f;
    out[1] = in[1] * (ta * e + tab[2] * d);
    acc[0] = at::vec::fmadd(in[1] * t, d, acc[0]);
    acc[1] = acc[1] + out[1];
  };
  if constexpr (B::kFromValue) {
    if (call.from_output) {
      run<T, 3, 2, 4, 2>(g, io, [&](const V* in, const V* tab, V* out, V* acc) {
        const V f = base.tidy(in[2] * tab[1]);
        const V d = base.slope(f);
        combine(in, tab, f, d, base.bend(f, d), out, acc);
      });
      return;
    }
  }
  run<T, 3, 2, 4, 2>(g, io, [&](const V* in, const V* tab, V* out, V* acc) {
    V f, d, e;
    base.at(in[2] - tab[1], f, d, e);
    combine(in, tab, f, d, e, out, acc);
  });
}

}  // namespace

void forward(c10::ScalarType dtype, const Formula& formula, const Geometry& g, const Forward& call) {
  with_any_type_and_base(dtype, formula, [&](auto zero, const auto& base) { forward_as<decltype(zero)>(base, g, call); });
}

void backward(c10::ScalarType dtype, const Formula& formula, const Geometry& g, const Backward& call) {
  with_any_type_and_base(dtype, formula, [&](auto zero, const auto& base) { backward_as<decltype(zero)>(base, g, call); });
}

// Second derivatives are rare: every type comes here as double, which also spares building the rest.
void double_backward(const Formula& formula, const Geometry& g, const DoubleBackward& call) {
  with_base<vec_t<double>>(formula, [&](const auto& base) { double_backward_as<double>(base, g, call); });
}

}  // namespace agileact
