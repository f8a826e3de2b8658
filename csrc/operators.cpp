// The CPU kernels of the operators that _schema.py declares.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "layout.h"

namespace agileact {
namespace {

using at::Tensor;

// With every scale 1 and every location 0 the operator is the plain activation; ATen's own kernel computes it,
// so that the values are the same to the last bit.
bool is_plain(const OptionalTensor& scale, const OptionalTensor& location) {
  const auto all = [](const OptionalTensor& t, double value) {
    if (!t.has_value() || !t->defined()) {
      return true;
    }
    if (t->scalar_type() == at::kFloat && t->is_contiguous()) {
      const float* v = t->const_data_ptr<float>();
      const float* end = v + t->numel();
      return std::all_of(v, end, [&](float e) { return e == static_cast<float>(value); });
    }
    return t->eq(value).all().item<bool>();
  };
  return all(scale, 1) && all(location, 0);
}

Tensor plain(const Formula& formula, const Tensor& x) {
  switch (formula.base) {
    case Base::kRelu: return at::relu(x);
    case Base::kLeakyRelu: return at::leaky_relu(x, formula.p);
    case Base::kElu: return at::elu(x, formula.p);
    case Base::kSigmoid: return at::sigmoid(x);
    case Base::kTanh: return at::tanh(x);
    case Base::kSoftplus: return at::softplus(x, formula.p, formula.q);
    case Base::kIdentity: return x.clone();
    case Base::kSilu: return at::silu(x);
    case Base::kGelu: return at::gelu(x);
    case Base::kGeluTanh: return at::gelu(x, "tanh");
    case Base::kMish: return at::mish(x);
    case Base::kHardswish: return at::hardswish(x);
    case Base::kHardsigmoid: return at::hardsigmoid(x);
  }
  return x;
}

bool has(const OptionalTensor& t) { return t.has_value() && t->defined(); }

// One over the scale where the output was saved, else the location.
Table second_table(const Layout& layout, const OptionalTensor& scale, const OptionalTensor& location, bool from_output) {
  return from_output ? layout.table(scale, 1, true) : layout.table(location, 0);
}

using Sums = c10::SmallVector<double, 64>;

// The smallest number that a dtype holds above zero: what an output is lifted to where f > 0 but the product
// rounds to 0, if the output is what backward will see.
double smallest(at::ScalarType dtype) {
  switch (dtype) {
    case at::kHalf: return 0x1p-24;
    case at::kBFloat16: return 0x1p-133;
    case at::kDouble: return 0x1p-1074;
    default: return 0x1p-149;
  }
}

Tensor agile(const Tensor& x, const OptionalTensor& scale, const OptionalTensor& location, std::string_view base,
             double p, double q, int64_t dim, int64_t ndim) {
  const Formula formula = formula_of(base, p, q);
  if (is_plain(scale, location)) {
    return plain(formula, x);
  }
  const auto dtype = x.scalar_type();
  const bool half = dtype == at::kHalf;
  const Layout layout = layout_of(half ? x.to(at::kFloat) : x, dim, ndim);
  const Table a = layout.table(scale, 1), b = layout.table(location, 0);
  Tensor y = at::empty_like(layout.x);
  if (x.numel() != 0) {
    forward(y.scalar_type(), formula, layout.geometry,
            {layout.x.const_data_ptr(), y.mutable_data_ptr(), a.data, b.data,
             output_suffices(formula, dtype, scale) ? smallest(dtype) : 0});
  }
  return half ? y.to(dtype) : y;
}

std::tuple<Tensor, Tensor, Tensor> agile_backward(
    const Tensor& grad, const Tensor& saved, const OptionalTensor& scale, const OptionalTensor& location,
    std::string_view base, double p, double q, int64_t dim, int64_t ndim, bool from_output) {
  const Formula formula = formula_of(base, p, q);
  TORCH_CHECK(!from_output || invertible(formula), "agileact: ", base, " cannot be recovered from its output");
  TORCH_CHECK(grad.sizes() == saved.sizes() && grad.scalar_type() == saved.scalar_type(),
              "agileact: the gradient does not match what was saved");
  const bool half = saved.scalar_type() == at::kHalf;
  const Layout layout = layout_of(half ? saved.to(at::kFloat) : saved, dim, ndim);
  const Tensor g = layout.like_x(half ? grad.to(at::kFloat) : grad);
  const Table a = layout.table(scale, 1), second = second_table(layout, scale, location, from_output);
  Tensor grad_x = at::empty_like(layout.x);
  const int64_t params = layout.geometry.params;
  Sums sums(2 * params, 0.0);
  if (saved.numel() != 0) {
    backward(grad_x.scalar_type(), formula, layout.geometry,
             {g.const_data_ptr(), layout.x.const_data_ptr(), grad_x.mutable_data_ptr(), a.data, second.data, from_output,
              sums.data(), sums.data() + params});
  }
  // The gradient of the location is -scale * sum of grad * f'.
  const bool wide = arithmetic(saved.scalar_type()) == at::kDouble;
  for (int64_t i = 0; i < params; ++i) {
    sums[params + i] *= -(wide ? static_cast<const double*>(a.data)[i] : static_cast<const float*>(a.data)[i]);
  }
  return {half ? grad_x.to(at::kHalf) : grad_x, layout.gradient(sums.data(), scale),
          layout.gradient(sums.data() + params, location)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> agile_double_backward(
    const OptionalTensor& tangent_x, const OptionalTensor& tangent_scale, const OptionalTensor& tangent_location,
    const Tensor& grad, const Tensor& saved, const OptionalTensor& scale, const OptionalTensor& location,
    std::string_view base, double p, double q, int64_t dim, int64_t ndim, bool from_output) {
  const Formula formula = formula_of(base, p, q);
  TORCH_CHECK(!from_output || invertible(formula), "agileact: ", base, " cannot be recovered from its output");
  const auto dtype = saved.scalar_type();
  const auto wide = at::kDouble;
  const Layout layout = layout_of(saved.to(wide), dim, ndim);
  const Tensor u = has(tangent_x) ? layout.like_x(tangent_x->to(wide)) : at::zeros_like(layout.x);
  const Tensor g = layout.like_x(grad.to(wide));
  const Table a = layout.table(scale, 1), second = second_table(layout, scale, location, from_output);
  const Table v = layout.table(tangent_scale, 0), w = layout.table(tangent_location, 0);
  Tensor grad_grad = at::empty_like(layout.x), grad_x = at::empty_like(layout.x);
  const int64_t params = layout.geometry.params;
  Sums sums(2 * params, 0.0);
  if (saved.numel() != 0) {
    double_backward(formula, layout.geometry,
                    {u.const_data_ptr(), g.const_data_ptr(), layout.x.const_data_ptr(), grad_grad.mutable_data_ptr(),
                     grad_x.mutable_data_ptr(), a.data, second.data, v.data, w.data, from_output, sums.data(),
                     sums.data() + params});
  }
  for (int64_t i = 0; i < params; ++i) {
    sums[params + i] = -sums[params + i];
  }
  return {grad_grad.to(dtype), grad_x.to(dtype), layout.gradient(sums.data(), scale),
          layout.gradient(sums.data() + params, location)};
}

}  // namespace

TORCH_LIBRARY_IMPL(agileact, CPU, m) {
  m.impl("agile", agile);
  m.impl("agile_backward", agile_backward);
  m.impl("agile_double_backward", agile_double_backward);
}

}  // namespace agileact
