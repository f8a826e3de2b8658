// Autograd of the operators, in C++: at a few thousand elements Python would cost more than the arithmetic.
// Nodes are written as ATen's generated ones are, so that functorch's transforms go through them.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/library.h>

#include "nodes.h"
#include "operators.h"

namespace agileact {
namespace {

using at::Tensor;
using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// Where and on what a call works; every operator ends with these.
struct Call {
  Formula formula;
  Place place;
};

Tensor call_forward(const Tensor& x, const OptionalTensor& scale, const OptionalTensor& location, const Call& c) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("agileact::agile", "").typed<Tensor(
      const Tensor&, const OptionalTensor&, const OptionalTensor&, std::string_view, double, double, int64_t, int64_t,
      int64_t)>();
  return op.call(x, scale, location, name_of(c.formula.base), c.formula.p, c.formula.q, c.place.dim, c.place.ndim,
                 c.place.terms);
}

using Three = std::tuple<Tensor, Tensor, Tensor>;
using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Three call_backward(const Tensor& grad, const Tensor& saved, const OptionalTensor& scale,
                    const OptionalTensor& location, const Call& c, bool from_output) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("agileact::agile_backward", "").typed<Three(
      const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&, std::string_view, double, double,
      int64_t, int64_t, int64_t, bool)>();
  return op.call(grad, saved, scale, location, name_of(c.formula.base), c.formula.p, c.formula.q, c.place.dim,
                 c.place.ndim, c.place.terms, from_output);
}

Four call_double_backward(const OptionalTensor& tx, const OptionalTensor& ts, const OptionalTensor& tl,
                          const Tensor& grad, const Tensor& saved, const OptionalTensor& scale,
                          const OptionalTensor& location, const Call& c, bool from_output) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("agileact::agile_double_backward", "").typed<Four(
          const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const Tensor&, const Tensor&,
          const OptionalTensor&, const OptionalTensor&, std::string_view, double, double, int64_t, int64_t, int64_t,
          bool)>();
  return op.call(tx, ts, tl, grad, saved, scale, location, name_of(c.formula.base), c.formula.p, c.formula.q,
                 c.place.dim, c.place.ndim, c.place.terms, from_output);
}

// Third derivatives are not fused: asking for one says so, instead of returning a constant.
struct ThirdDerivative : public Node {
  using Node::Node;
  variable_list apply(variable_list&&) override {
    TORCH_CHECK_NOT_IMPLEMENTED(false, "agileact: the fused operator has two derivatives and no third; "
                                       "agileact.reference has them all");
  }
};

struct AgileBackwardBackward : public torch::autograd::TraceableFunction {
  using TraceableFunction::TraceableFunction;
  SavedVariable grad, saved, scale, location;
  Call call;
  bool from_output = false;

  std::string name() const override { return "AgileBackwardBackward"; }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    grad.reset_data();
    saved.reset_data();
    scale.reset_data();
    location.reset_data();
  }

  variable_list apply(variable_list&& grads) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!grads[0].defined() && !grads[1].defined() && !grads[2].defined()) {
      return variable_list(4);
    }
    const Tensor s = scale.unpack(), l = location.unpack();
    auto [gg, gx, gs, gl] = call_double_backward(
        option(grads[0]), s.defined() ? option(grads[1]) : std::nullopt, l.defined() ? option(grads[2]) : std::nullopt,
        grad.unpack(), saved.unpack(), option(s), option(l), call, from_output);
    variable_list out(4);
    if (should_compute_output(0)) out[0] = gg;
    if (should_compute_output(1)) out[1] = gx;
    if (s.defined() && should_compute_output(2)) out[2] = gs;
    if (l.defined() && should_compute_output(3)) out[3] = gl;
    return out;
  }
};

struct AgileBackward : public torch::autograd::TraceableFunction {
  using TraceableFunction::TraceableFunction;
  SavedVariable saved, scale, location;
  Call call;
  bool from_output = false;

  std::string name() const override { return "AgileBackward"; }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    saved.reset_data();
    scale.reset_data();
    location.reset_data();
  }

  variable_list apply(variable_list&& grads) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!grads[0].defined()) {
      return variable_list(3);
    }
    Tensor kept = from_output ? saved.unpack(pointer_to(this)) : saved.unpack();
    const Tensor s = scale.unpack(), l = location.unpack();
    if (!at::GradMode::is_enabled() && !observed() && ordinary(grads[0], kept, s, l) && !has_tangent(grads[0]) &&
        !has_tangent(kept)) {
      at::AutoDispatchBelowADInplaceOrView below;
      auto [gx, gs, gl] = backward_cpu(grads[0], kept, option(s), option(l), call.formula, call.place, from_output,
                                       should_compute_output(1), should_compute_output(2), true);
      variable_list out;
      out.reserve(3);
      out.push_back(std::move(gx));
      out.push_back(std::move(gs));
      out.push_back(std::move(gl));
      return out;
    }
    if (from_output && at::GradMode::is_enabled()) {
      // The second derivative is by the input. Its values are not here, but the way to it is: hand on the
      // output's values with the input's place in the graph.
      kept = kept.detach();
      if (next_edge(0).is_valid()) {
        torch::autograd::impl::set_gradient_edge(kept, next_edge(0));
      }
    }
    auto [gx, gs, gl] = call_backward(grads[0], kept, option(s), option(l), call, from_output);
    variable_list out(3);
    if (should_compute_output(0)) out[0] = gx;
    if (s.defined() && should_compute_output(1)) out[1] = gs;
    if (l.defined() && should_compute_output(2)) out[2] = gl;
    return out;
  }
};

// A parameter as a tensor that broadcasts against x.
Tensor spread(const Tensor& parameter, const Tensor& x, const Call& c) {
  std::vector<c10::SymInt> shape(x.dim(), 1);
  for (int64_t d = c.place.dim; d < c.place.dim + c.place.ndim; ++d) {
    shape[d] = x.sym_size(d);
  }
  return parameter.reshape_symint(shape).to(x.scalar_type());
}

Tensor tangent(const Tensor& t) { return t.defined() ? t._fw_grad(0) : Tensor(); }

// a f'(z) (dx - db) + f(z) da
Tensor forward_tangent(const Tensor& x, const Tensor& scale, const Tensor& location, const Call& c) {
  const auto primal = [](const Tensor& t) { return t.defined() ? option(t._fw_primal(0)) : std::nullopt; };
  const Tensor px = x._fw_primal(0);
  const Tensor tx = tangent(x), ts = tangent(scale), tl = tangent(location);
  Tensor result;
  if (tx.defined() || tl.defined()) {
    Tensor direction = tx.defined() ? tx : at::zeros_like(px);
    if (tl.defined()) {
      direction = direction - spread(tl, px, c);
    }
    result = std::get<0>(call_backward(direction, px, primal(scale), primal(location), c, false));
  }
  if (ts.defined()) {
    const Tensor part = spread(ts, px, c) * call_forward(px, std::nullopt, primal(location), c);
    result = result.defined() ? result + part : part;
  }
  return result;
}

// A node for a call on these tensors, or none if nobody will ask for gradients.
auto forward_node(const Tensor& x, const Tensor& s, const Tensor& l, const Call& call, const Look& seen) {
  decltype(make_node<AgileBackward>()) node;
  if (at::GradMode::is_enabled() && (tracked(x) || tracked(s) || tracked(l))) {
    node = make_node<AgileBackward>();
    node->set_next_edges(edges_to({x, s, l}));
    node->call = call;
    node->from_output = seen.recoverable;
    node->scale = SavedVariable(s, false);
    node->location = SavedVariable(l, false);
  }
  return node;
}

Tensor agile_autograd(const Tensor& x, const OptionalTensor& scale, const OptionalTensor& location,
                      std::string_view base, double p, double q, int64_t dim, int64_t ndim, int64_t terms) {
  const Call call{formula_of(base, p, q), {dim, ndim, terms}};
  const Tensor &s = value(scale), &l = value(location);
  // What is saved is the output where every derivative can be had back from it. That needs a look at the scale, so it
  // holds for ordinary tensors; a traced graph saves the input, and its partitioner may decide again.
  const bool direct = !observed() && ordinary(x, s, l);
  Look seen;
  if (direct) {
    at::AutoDispatchBelowADInplaceOrView below;
    seen = look(call.formula, x.scalar_type(), scale, location, terms);
  }
  auto node = forward_node(x, s, l, call, seen);
  if (node && !node->from_output) {
    node->saved = SavedVariable(x, false);
  }
  Tensor tangent;
  if (has_tangent(x) || has_tangent(s) || has_tangent(l)) {
    TORCH_CHECK_NOT_IMPLEMENTED(terms == 1, "agileact: forward mode over several terms is not fused; "
                                            "agileact.reference has it");
    tangent = forward_tangent(x, s, l, call);
  }
  Tensor y;
  {
    at::AutoDispatchBelowADInplaceOrView below;
    y = direct ? forward_cpu(x, scale, location, call.formula, call.place, seen)
               : call_forward(x, scale, location, call);
  }
  if (node) {
    torch::autograd::set_history(y, NodePtr(node));
    if (node->from_output) {
      node->saved = SavedVariable(y, true);
    }
  }
  if (tangent.defined()) {
    y._set_fw_grad(tangent, 0, false);
  }
  return y;
}

// In place. Where the output tells everything the input is gone for good; elsewhere, as PyTorch's silu_ does, a copy of
// the input is kept for backward.
Tensor& agile_autograd_(Tensor& x, const OptionalTensor& scale, const OptionalTensor& location, std::string_view base,
                        double p, double q, int64_t dim, int64_t ndim, int64_t terms) {
  const Call call{formula_of(base, p, q), {dim, ndim, terms}};
  const Tensor &s = value(scale), &l = value(location);
  if (observed() || !ordinary(x, s, l) || has_tangent(x) || has_tangent(s) || has_tangent(l)) {
    return x.copy_(agile_autograd(x.clone(), scale, location, base, p, q, dim, ndim, terms));
  }
  Look seen;
  {
    at::AutoDispatchBelowADInplaceOrView below;
    seen = look(call.formula, x.scalar_type(), scale, location, terms);
  }
  auto node = forward_node(x, s, l, call, seen);
  torch::autograd::check_inplace(x, node != nullptr);
  if (node && !node->from_output) {
    node->saved = SavedVariable(x.clone(), false);
  }
  {
    at::AutoDispatchBelowADInplaceOrView below;
    forward_cpu_(x, scale, location, call.formula, call.place, seen);
  }
  torch::autograd::increment_version(x);
  if (node) {
    torch::autograd::rebase_history(x, NodePtr(node));
    if (node->from_output) {
      node->saved = SavedVariable(x, true, x.is_view());
    }
  }
  return x;
}

// Without autograd, as in inference mode, a tensor's version still has to tell that it changed.
Tensor& agile_version_(c10::DispatchKeySet keys, Tensor& x, const OptionalTensor& scale, const OptionalTensor& location,
                       std::string_view base, double p, double q, int64_t dim, int64_t ndim, int64_t terms) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("agileact::agile_", "").typed<Tensor&(
      Tensor&, const OptionalTensor&, const OptionalTensor&, std::string_view, double, double, int64_t, int64_t,
      int64_t)>();
  {
    at::AutoDispatchBelowADInplaceOrView below;
    op.redispatch(keys & c10::after_ADInplaceOrView_keyset, x, scale, location, base, p, q, dim, ndim, terms);
  }
  torch::autograd::increment_version(x);
  return x;
}

// Forward mode over backward has no rule here; dropping the tangent would be silently wrong.
void refuse_tangents(std::initializer_list<Tensor> tensors) {
  for (const Tensor& t : tensors) {
    TORCH_CHECK_NOT_IMPLEMENTED(!has_tangent(t), "agileact: forward mode over the fused backward is not there; "
                                                 "agileact.reference has it");
  }
}

Three agile_backward_autograd(const Tensor& grad, const Tensor& saved, const OptionalTensor& scale,
                              const OptionalTensor& location, std::string_view base, double p, double q, int64_t dim,
                              int64_t ndim, int64_t terms, bool from_output) {
  const Call call{formula_of(base, p, q), {dim, ndim, terms}};
  const Tensor &s = value(scale), &l = value(location);
  refuse_tangents({grad, saved, s, l});
  decltype(make_node<AgileBackwardBackward>()) node;
  if (at::GradMode::is_enabled() && (tracked(grad) || tracked(saved) || tracked(s) || tracked(l))) {
    node = make_node<AgileBackwardBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(grad, saved, s, l));
    node->call = call;
    node->from_output = from_output;
    node->grad = SavedVariable(grad, false);
    node->saved = SavedVariable(saved, false);
    node->scale = SavedVariable(s, false);
    node->location = SavedVariable(l, false);
  }
  Three out;
  {
    at::AutoDispatchBelowADInplaceOrView below;
    out = call_backward(grad, saved, scale, location, call, from_output);
  }
  if (node) {
    torch::autograd::set_history(variable_list{std::get<0>(out), std::get<1>(out), std::get<2>(out)}, NodePtr(node));
  }
  return out;
}

Four agile_double_backward_autograd(const OptionalTensor& tx, const OptionalTensor& ts, const OptionalTensor& tl,
                                    const Tensor& grad, const Tensor& saved, const OptionalTensor& scale,
                                    const OptionalTensor& location, std::string_view base, double p, double q,
                                    int64_t dim, int64_t ndim, int64_t terms, bool from_output) {
  const Call call{formula_of(base, p, q), {dim, ndim, terms}};
  NodePtr node;
  if (at::GradMode::is_enabled() && (tracked(tx) || tracked(ts) || tracked(tl) || tracked(grad) || tracked(saved) ||
                                     tracked(scale) || tracked(location))) {
    node = make_node<ThirdDerivative>();
    node->set_next_edges(torch::autograd::collect_next_edges(
        value(tx), value(ts), value(tl), grad, saved, value(scale), value(location)));
  }
  Four out;
  {
    at::AutoDispatchBelowADInplaceOrView below;
    out = call_double_backward(tx, ts, tl, grad, saved, scale, location, call, from_output);
  }
  if (node) {
    torch::autograd::set_history(
        variable_list{std::get<0>(out), std::get<1>(out), std::get<2>(out), std::get<3>(out)}, NodePtr(node));
  }
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(agileact, Autograd, m) {
  m.impl("agile", agile_autograd);
  m.impl("agile_", agile_autograd_);
  m.impl("agile_backward", agile_backward_autograd);
  m.impl("agile_double_backward", agile_double_backward_autograd);
}

TORCH_LIBRARY_IMPL(agileact, ADInplaceOrView, m) {
  m.impl("agile_", agile_version_);
}

}  // namespace agileact
