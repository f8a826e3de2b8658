// Autograd of the pooling operator, in C++ for the reason that the activation's is.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/library.h>

#include "layout.h"
#include "nodes.h"

namespace agileact {
namespace {

using at::Tensor;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;
using Three = std::tuple<Tensor, Tensor, Tensor>;
using Sizes = c10::SmallVector<int64_t, 2>;
using SymSizes = std::vector<c10::SymInt>;

struct Call {
  Formula formula;
  Sizes kernel, stride, padding, dilation;
  SymSizes size;  // of a plane of x
};

Three call_forward(const Tensor& x, const OptionalTensor& scale, const OptionalTensor& location, const Call& c,
                   c10::SymIntArrayRef out) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("agileact::agile_max_pool2d", "").typed<Three(
      const Tensor&, const OptionalTensor&, const OptionalTensor&, std::string_view, double, double, at::IntArrayRef,
      at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, c10::SymIntArrayRef)>();
  return op.call(x, scale, location, name_of(c.formula.base), c.formula.p, c.formula.q, c.kernel, c.stride, c.padding,
                 c.dilation, out);
}

Three call_backward(const Tensor& grad, const Tensor& picked, const Tensor& places, const OptionalTensor& scale,
                    const OptionalTensor& location, const Call& c) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("agileact::agile_max_pool2d_backward", "").typed<Three(
          const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&, std::string_view,
          double, double, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, c10::SymIntArrayRef)>();
  return op.call(grad, picked, places, scale, location, name_of(c.formula.base), c.formula.p, c.formula.q, c.kernel,
                 c.stride, c.padding, c.dilation, c.size);
}

Three call_activation_backward(const Tensor& grad, const Tensor& picked, const OptionalTensor& scale,
                               const OptionalTensor& location, const Call& c) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("agileact::agile_backward", "").typed<Three(
      const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&, std::string_view, double, double,
      int64_t, int64_t, int64_t, bool)>();
  const OptionalTensor& either = scale.has_value() ? scale : location;
  // The channels, or, with one pair for all, no axis.
  const bool one = either.has_value() && either->sym_numel() != picked.sym_size(1);
  return op.call(grad, picked, scale, location, name_of(c.formula.base), c.formula.p, c.formula.q, one ? 0 : 1,
                 one ? 0 : 1, 1, false);
}

// Adds values up where their windows found them, by operations that can be differentiated again.
Tensor scatter(const Tensor& values, const Tensor& places, const Call& c) {
  const auto place = places.to(at::kLong);
  const auto options = place.options();
  const auto axis = [&](int a, const Tensor& within) {
    const auto starts = at::arange(places.size(2 + a), options).mul(c.stride[a]).sub(c.padding[a]);
    return within.mul(c.dilation[a]).add(a == 0 ? starts.unsqueeze(-1) : starts);
  };
  const auto rows = axis(0, place.div(c.kernel[1], "floor")), columns = axis(1, place.remainder(c.kernel[1]));
  const auto indices = rows.mul(c.size[1].guard_int(__FILE__, __LINE__)).add(columns).flatten(2);
  const auto flat = at::zeros({values.size(0), values.size(1), c.size[0].guard_int(__FILE__, __LINE__) * c.size[1].guard_int(__FILE__, __LINE__)},
                              values.options());
  return flat.scatter_add(2, indices, values.flatten(2))
      .view_symint({values.sym_size(0), values.sym_size(1), c.size[0], c.size[1]});
}

struct AgileMaxPool2dBackward : public torch::autograd::TraceableFunction {
  using TraceableFunction::TraceableFunction;
  SavedVariable picked, places, scale, location;
  Call call;

  std::string name() const override { return "AgileMaxPool2dBackward"; }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    picked.reset_data();
    places.reset_data();
    scale.reset_data();
    location.reset_data();
  }

  variable_list apply(variable_list&& grads) override {
    std::lock_guard<std::mutex> lock(mutex_);
    variable_list out(3);
    if (!grads[0].defined() && !grads[1].defined()) {
      return out;
    }
    const auto self = pointer_to(this);
    const Tensor found = picked.unpack(self), where = places.unpack(self), s = scale.unpack(), l = location.unpack();
    if (grads[0].defined()) {
      Three to;
      if (at::GradMode::is_enabled()) {
        // To be differentiated again: through the elements that were picked.
        to = call_activation_backward(grads[0], found, option(s), option(l), call);
        std::get<0>(to) = scatter(std::get<0>(to), where, call);
      } else {
        to = call_backward(grads[0], found, where, option(s), option(l), call);
      }
      out[0] = std::get<0>(to);
      if (s.defined()) out[1] = std::get<1>(to);
      if (l.defined()) out[2] = std::get<2>(to);
    }
    if (grads[1].defined()) {
      const Tensor more = scatter(grads[1], where, call);
      out[0] = out[0].defined() ? out[0] + more : more;
    }
    return out;
  }
};

Three agile_max_pool2d_autograd(const Tensor& x, const OptionalTensor& scale, const OptionalTensor& location,
                                std::string_view base, double p, double q, at::IntArrayRef kernel,
                                at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                                c10::SymIntArrayRef out) {
  const Tensor &s = value(scale), &l = value(location);
  TORCH_CHECK_NOT_IMPLEMENTED(!has_tangent(x) && !has_tangent(s) && !has_tangent(l),
                              "agileact: the pooling operator has no forward mode; agileact.functional.agile_max_pool2d "
                              "takes another way within it");
  Call call{formula_of(base, p, q), Sizes(kernel), Sizes(stride), Sizes(padding), Sizes(dilation),
            {x.sym_size(2), x.sym_size(3)}};
  decltype(make_node<AgileMaxPool2dBackward>()) node;
  if (at::GradMode::is_enabled() && (tracked(x) || tracked(s) || tracked(l))) {
    node = make_node<AgileMaxPool2dBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(x, s, l));
    node->scale = SavedVariable(s, false);
    node->location = SavedVariable(l, false);
    node->call = call;
  }
  Three result;
  {
    at::AutoDispatchBelowADInplaceOrView below;
    result = call_forward(x, scale, location, call, out);
  }
  if (node) {
    // The places are numbers without a gradient.
    torch::autograd::set_history(variable_list{std::get<0>(result), std::get<1>(result)}, NodePtr(node));
    node->picked = SavedVariable(std::get<1>(result), true);
    node->places = SavedVariable(std::get<2>(result), false);
  }
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(agileact, Autograd, m) {
  m.impl("agile_max_pool2d", agile_max_pool2d_autograd);
}

}  // namespace agileact
