// The activation with a gain, scale * f(gain * (x - location)), and its gradients. Compiled once for each instruction set.
#include "bases.h"
#include "loops.h"

namespace agileact {
namespace {

template <typename T, typename B>
void forward_as(const B& base, const Geometry& g, const GainForward& call) {
  using V = vec_t<T>;
  using A = acc_t<T>;
  const Streams<T, 1, 1, 3, 0> io{
      {static_cast<const T*>(call.x)},
      {static_cast<T*>(call.y)},
      {static_cast<const A*>(call.scale), static_cast<const A*>(call.location), static_cast<const A*>(call.gain)},
      {}};
  run<T, 1, 1, 3, 0>(g, io, [&](const V* in, const V* tab, V* out, V*) {
    out[0] = tab[0] * base.f(tab[2] * (in[0] - tab[1]));
  });
}

template <typename T, typename B>
void backward_as(const B& base, const Geometry& g, const GainBackward& call) {
  using V = vec_t<T>;
  using A = acc_t<T>;
  const Streams<T, 2, 1, 3, 3> io{
      {static_cast<const T*>(call.grad), static_cast<const T*>(call.x)},
      {static_cast<T*>(call.grad_x)},
      {static_cast<const A*>(call.scale), static_cast<const A*>(call.location), static_cast<const A*>(call.gain)},
      {call.sums, call.sums + g.params, call.sums + 2 * g.params}};
  run<T, 2, 1, 3, 3>(g, io, [&](const V* in, const V* tab, V* out, V* acc) {
    const V z = in[1] - tab[1];
    V f, d;
    base.at(tab[2] * z, f, d);
    const V gd = in[0] * d;
    out[0] = tab[0] * tab[2] * gd;
    acc[0] = at::vec::fmadd(in[0], f, acc[0]);
    acc[1] = acc[1] + gd;
    acc[2] = at::vec::fmadd(gd, z, acc[2]);
  });
}

}  // namespace

// In the types that networks are trained in; for the others the operator is composed.
void gain_forward(c10::ScalarType dtype, const Formula& formula, const Geometry& g, const GainForward& call) {
  with_type_and_base<float, c10::BFloat16>(
      dtype, formula, [&](auto zero, const auto& base) { forward_as<decltype(zero)>(base, g, call); });
}

void gain_backward(c10::ScalarType dtype, const Formula& formula, const Geometry& g, const GainBackward& call) {
  with_type_and_base<float, c10::BFloat16>(
      dtype, formula, [&](auto zero, const auto& base) { backward_as<decltype(zero)>(base, g, call); });
}

}  // namespace agileact
