// scale * f(gain * (x - location)): one kernel forward and one backward for ordinary CPU tensors of float32 and bfloat16.
// Everywhere else, and for derivatives of derivatives, it is the operator without gain on gain * x, with gain * location.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/library.h>

#include "nodes.h"
#include "operators.h"

namespace agileact {
namespace {

using at::Tensor;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

struct Call {
  Formula formula;
  Place place;
};

// The expression, differentiable as often as one likes.
Tensor composed(const Tensor& x, const Tensor& scale, const Tensor& location, const Tensor& gain, const Call& c) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("agileact::agile", "").typed<Tensor(
      const Tensor&, const OptionalTensor&, const OptionalTensor&, std::string_view, double, double, int64_t, int64_t,
      int64_t)>();
  std::vector<c10::SymInt> shape(x.dim(), 1);
  for (int64_t d = c.place.dim; d < c.place.dim + c.place.ndim; ++d) {
    shape[d] = x.sym_size(d);
  }
  const auto wide = arithmetic(x.scalar_type());
  const Tensor along = (x.to(wide) * gain.reshape_symint(shape).to(wide)).to(x.scalar_type());
  return op.call(along, scale, gain * location, name_of(c.formula.base), c.formula.p, c.formula.q, c.place.dim,
                 c.place.ndim, 1);
}

Tensor forward_gained(const Tensor& x, const Tensor& scale, const Tensor& location, const Tensor& gain, const Call& c) {
  const auto dtype = x.scalar_type();
  Look seen = look(c.formula, dtype, scale, location, 1);
  seen.plain = seen.plain && look(c.formula, dtype, gain, std::nullopt, 1).plain;
  if (seen.plain) {
    return forward_cpu(x, scale, location, c.formula, c.place, seen);
  }
  check_call(x, scale, location, c.place);
  check_call(x, gain, std::nullopt, c.place);
  const Layout layout = layout_of(x, c.place.dim, c.place.ndim);
  Tensor y = at::empty_like(layout.x);
  if (y.numel() != 0) {
    const Table a = layout.table(scale, 1, 1), b = layout.table(location, 1, 0), g = layout.table(gain, 1, 1);
    gain_forward(dtype, c.formula, layout.geometry,
                 {layout.x.const_data_ptr(), y.mutable_data_ptr(), a.data, b.data, g.data});
  }
  return y;
}

variable_list backward_gained(const Tensor& grad, const Tensor& x, const Tensor& scale, const Tensor& location,
                              const Tensor& gain, const Call& c) {
  const Layout layout = layout_of(x, c.place.dim, c.place.ndim);
  const Tensor given = layout.like_x(grad);
  const Table a = layout.table(scale, 1, 1), b = layout.table(location, 1, 0), g = layout.table(gain, 1, 1);
  Tensor grad_x = at::empty_like(layout.x);
  const int64_t n = layout.geometry.params;
  c10::SmallVector<double, 96> sums(3 * n, 0.0);
  if (x.numel() != 0) {
    gain_backward(x.scalar_type(), c.formula, layout.geometry,
                  {given.const_data_ptr(), layout.x.const_data_ptr(), grad_x.mutable_data_ptr(), a.data, b.data, g.data,
                   sums.data()});
  }
  // By the location -scale * gain * the sum of grad * f', by the gain scale * the sum of grad * f' * (x - location).
  const bool wide = arithmetic(x.scalar_type()) == at::kDouble;
  const auto number = [&](const Table& t, int64_t i) {
    return wide ? static_cast<const double*>(t.data)[i] : static_cast<double>(static_cast<const float*>(t.data)[i]);
  };
  for (int64_t i = 0; i < n; ++i) {
    sums[n + i] *= -number(a, i) * number(g, i);
    sums[2 * n + i] *= number(a, i);
  }
  auto parts = layout.gradients(sums.data(), {scale, location, gain}, 1, true);
  return {std::move(grad_x), std::move(parts[0]), std::move(parts[1]), std::move(parts[2])};
}

struct GainBackwardNode : public torch::autograd::TraceableFunction {
  using TraceableFunction::TraceableFunction;
  SavedVariable saved[4];
  Call call;

  std::string name() const override { return "AgileGainBackward"; }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (SavedVariable& one : saved) {
      one.reset_data();
    }
  }

  variable_list apply(variable_list&& grads) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!grads[0].defined()) {
      return variable_list(4);
    }
    const Tensor x = saved[0].unpack(), s = saved[1].unpack(), l = saved[2].unpack(), g = saved[3].unpack();
    const bool again = at::GradMode::is_enabled();
    if (!again && !observed() && ordinary(grads[0], x, s, l, g) && !has_tangent(grads[0]) && !has_tangent(x)) {
      at::AutoDispatchBelowADInplaceOrView below;
      return backward_gained(grads[0], x, s, l, g, call);
    }
    at::AutoGradMode graph(true);
    variable_list wanted;
    for (const Tensor& one : {x, s, l, g}) {
      if (one.requires_grad()) {
        wanted.push_back(one);
      }
    }
    const auto made = torch::autograd::grad({composed(x, s, l, g, call)}, wanted, {grads[0]}, again, again, true);
    variable_list out;
    size_t next = 0;
    for (const Tensor& one : {x, s, l, g}) {
      out.push_back(one.requires_grad() ? made[next++] : Tensor());
    }
    return out;
  }
};

Tensor agile_gain(const Tensor& x, const Tensor& scale, const Tensor& location, const Tensor& gain,
                  std::string_view base, double p, double q, int64_t dim, int64_t ndim) {
  const Call call{formula_of(base, p, q), {dim, ndim, 1}};
  const bool fused = x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
  if (!fused || observed() || !ordinary(x, scale, location, gain) || has_tangent(x) || has_tangent(scale) ||
      has_tangent(location) || has_tangent(gain)) {
    return composed(x, scale, location, gain, call);
  }
  decltype(make_node<GainBackwardNode>()) node;
  if (at::GradMode::is_enabled() && (tracked(x) || tracked(scale) || tracked(location) || tracked(gain))) {
    node = make_node<GainBackwardNode>();
    node->set_next_edges(torch::autograd::collect_next_edges(x, scale, location, gain));
    node->call = call;
    size_t next = 0;
    for (const Tensor& one : {x, scale, location, gain}) {
      node->saved[next++] = SavedVariable(one, false);
    }
  }
  Tensor y;
  {
    at::AutoDispatchBelowADInplaceOrView below;
    y = forward_gained(x, scale, location, gain, call);
  }
  if (node) {
    torch::autograd::set_history(y, NodePtr(node));
  }
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(agileact, CompositeImplicitAutograd, m) { m.impl("agile_gain", agile_gain); }

}  // namespace agileact
