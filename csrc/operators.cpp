// The CPU kernels of the operators that schema.py declares.
#include "operators.h"

#include <ATen/EmptyTensor.h>
#include <torch/library.h>

namespace agileact {
namespace {

using at::Tensor;
using Three = std::tuple<Tensor, Tensor, Tensor>;
using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Sums = c10::SmallVector<double, 64>;

// ATen's own kernel, so that the values are the same to the last bit.
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

// Memory for a result laid out as x; the dispatcher would take longer to get it than a small kernel does.
Tensor like(const Tensor& x) {
  return x.is_contiguous() ? Tensor(at::detail::empty_cpu(x.sizes(), x.scalar_type())) : at::empty_like(x);
}

// x and y are dense and laid out alike; they may be the same.
void evaluate(const Layout& layout, const Tensor& y, const OptionalTensor& scale, const OptionalTensor& location,
              const Formula& formula, const Place& place, const Look& seen) {
  if (y.numel() == 0) {
    return;
  }
  const Table a = layout.table(scale, place.terms, 1), b = layout.table(location, place.terms, 0);
  if (place.terms > 1) {
    combined(y.scalar_type(), formula, layout.geometry,
             {layout.x.const_data_ptr(), y.mutable_data_ptr(), a.data, b.data, place.terms});
  } else {
    forward(y.scalar_type(), formula, layout.geometry,
            {layout.x.const_data_ptr(), y.mutable_data_ptr(), a.data, b.data, seen.guarded ? smallest_of(y.scalar_type()) : 0});
  }
}

Tensor agile(const Tensor& x, const OptionalTensor& scale, const OptionalTensor& location, std::string_view base,
             double p, double q, int64_t dim, int64_t ndim, int64_t terms) {
  const Formula formula = formula_of(base, p, q);
  return forward_cpu(x, scale, location, formula, {dim, ndim, terms},
                     look(formula, x.scalar_type(), scale, location, terms));
}

Tensor& agile_(Tensor& x, const OptionalTensor& scale, const OptionalTensor& location, std::string_view base, double p,
               double q, int64_t dim, int64_t ndim, int64_t terms) {
  const Formula formula = formula_of(base, p, q);
  forward_cpu_(x, scale, location, formula, {dim, ndim, terms},
               look(formula, x.scalar_type(), scale, location, terms));
  return x;
}

Three agile_backward(const Tensor& grad, const Tensor& saved, const OptionalTensor& scale,
                     const OptionalTensor& location, std::string_view base, double p, double q, int64_t dim,
                     int64_t ndim, int64_t terms, bool from_output) {
  auto [to_x, to_scale, to_location] = backward_cpu(grad, saved, scale, location, formula_of(base, p, q),
                                                    {dim, ndim, terms}, from_output, true, true, false);
  const auto defined = [](const Tensor& t) {
    return t.defined() ? t : at::empty({0}, at::TensorOptions().dtype(at::kFloat));
  };
  return {to_x, defined(to_scale), defined(to_location)};
}

Four agile_double_backward(const OptionalTensor& tangent_x, const OptionalTensor& tangent_scale,
                           const OptionalTensor& tangent_location, const Tensor& grad, const Tensor& saved,
                           const OptionalTensor& scale, const OptionalTensor& location, std::string_view base, double p,
                           double q, int64_t dim, int64_t ndim, int64_t terms, bool from_output) {
  const Formula formula = formula_of(base, p, q);
  check_call(saved, scale, location, {dim, ndim, terms});
  TORCH_CHECK(!from_output || (invertible(formula) && terms == 1), "agileact: ", base,
              " cannot be recovered from its output");
  TORCH_CHECK(grad.sizes() == saved.sizes() && (!has(tangent_x) || tangent_x->sizes() == saved.sizes()),
              "agileact: the gradients do not match what was saved");
  const auto dtype = saved.scalar_type();
  const auto wide = at::kDouble;
  const Layout layout = layout_of(saved.to(wide), dim, ndim);
  const Tensor u = has(tangent_x) ? layout.like_x(tangent_x->to(wide)) : at::zeros_like(layout.x);
  const Tensor g = layout.like_x(grad.to(wide));
  const Table a = layout.table(scale, terms, 1);
  const Table second = from_output ? layout.table(scale, 1, 1, true) : layout.table(location, terms, 0);
  const Table v = layout.table(tangent_scale, terms, 0), w = layout.table(tangent_location, terms, 0);
  Tensor grad_grad = at::empty_like(layout.x), grad_x = at::empty_like(layout.x);
  const int64_t n = layout.geometry.params * terms;
  Sums sums(2 * n, 0.0);
  if (saved.numel() != 0 && terms > 1) {
    combined_double_backward(formula, layout.geometry,
                             {u.const_data_ptr(), g.const_data_ptr(), layout.x.const_data_ptr(),
                              grad_grad.mutable_data_ptr(), grad_x.mutable_data_ptr(), a.data, second.data, v.data,
                              w.data, terms, sums.data(), sums.data() + n});
  } else if (saved.numel() != 0) {
    double_backward(formula, layout.geometry,
                    {u.const_data_ptr(), g.const_data_ptr(), layout.x.const_data_ptr(), grad_grad.mutable_data_ptr(),
                     grad_x.mutable_data_ptr(), a.data, second.data, v.data, w.data, from_output, sums.data(),
                     sums.data() + n});
  }
  for (int64_t i = 0; i < n; ++i) {
    sums[n + i] = -sums[n + i];
  }
  const auto gradient = [&](const double* own, const OptionalTensor& parameter) {
    return has(parameter) ? layout.gradient(own, *parameter, terms)
                          : at::empty({0}, at::TensorOptions().dtype(at::kFloat));
  };
  return {grad_grad.to(dtype), grad_x.to(dtype), gradient(sums.data(), scale), gradient(sums.data() + n, location)};
}

}  // namespace

void check_call(const Tensor& x, const OptionalTensor& scale, const OptionalTensor& location, const Place& place) {
  const auto dtype = x.scalar_type();
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kDouble || dtype == at::kBFloat16 || dtype == at::kHalf,
              "agileact: no kernel for ", dtype);
  TORCH_CHECK(place.dim >= 0 && place.ndim >= 0 && place.dim + place.ndim <= x.dim(), "agileact: axes ", place.dim,
              " to ", place.dim + place.ndim, " of a tensor with ", x.dim());
  TORCH_CHECK(place.terms >= 1, "agileact: at least one term, not ", place.terms);
  int64_t wanted = place.terms;
  for (int64_t d = place.dim; d < place.dim + place.ndim; ++d) {
    wanted *= x.size(d);
  }
  for (const OptionalTensor* parameter : {&scale, &location}) {
    if (has(*parameter)) {
      TORCH_CHECK((*parameter)->numel() == wanted, "agileact: a parameter with ", (*parameter)->numel(),
                  " elements for ", wanted);
      TORCH_CHECK((*parameter)->is_cpu() && at::isFloatingType((*parameter)->scalar_type()),
                  "agileact: parameters must be floating-point tensors on the CPU");
    }
  }
}

Tensor forward_cpu(const Tensor& x, const OptionalTensor& scale, const OptionalTensor& location, const Formula& formula,
                   const Place& place, const Look& seen) {
  check_call(x, scale, location, place);
  if (seen.plain) {
    return plain(formula, x);
  }
  const Layout layout = layout_of(x, place.dim, place.ndim);
  Tensor y = like(layout.x);
  evaluate(layout, y, scale, location, formula, place, seen);
  return y;
}

void forward_cpu_(const Tensor& x, const OptionalTensor& scale, const OptionalTensor& location, const Formula& formula,
                  const Place& place, const Look& seen) {
  check_call(x, scale, location, place);
  if (seen.plain) {
    x.copy_(forward_cpu(x, scale, location, formula, place, seen));
    return;
  }
  const Layout layout = layout_of(x, place.dim, place.ndim);
  evaluate(layout, layout.x, scale, location, formula, place, seen);
  if (!layout.x.is_same(x)) {
    x.copy_(layout.x);
  }
}

Three backward_cpu(const Tensor& grad, const Tensor& saved, const OptionalTensor& scale, const OptionalTensor& location,
                   const Formula& formula, const Place& place, bool from_output, bool want_scale, bool want_location,
                   bool shared) {
  const int64_t terms = place.terms;
  check_call(saved, scale, location, place);
  TORCH_CHECK(!from_output || (invertible(formula) && terms == 1), "agileact: ", name_of(formula.base),
              " cannot be recovered from its output");
  TORCH_CHECK(grad.sizes() == saved.sizes() && grad.scalar_type() == saved.scalar_type(),
              "agileact: the gradient does not match what was saved");
  const Layout layout = layout_of(saved, place.dim, place.ndim);
  const Tensor g = layout.like_x(grad);
  const Table a = layout.table(scale, terms, 1);
  const Table second = from_output ? layout.table(scale, 1, 1, true) : layout.table(location, terms, 0);
  Tensor grad_x = like(layout.x);
  const int64_t n = layout.geometry.params * terms;
  Sums sums(2 * n, 0.0);
  if (saved.numel() != 0 && terms > 1) {
    combined_backward(grad_x.scalar_type(), formula, layout.geometry,
                      {g.const_data_ptr(), layout.x.const_data_ptr(), grad_x.mutable_data_ptr(), a.data, second.data,
                       terms, sums.data(), sums.data() + n});
  } else if (saved.numel() != 0) {
    backward(grad_x.scalar_type(), formula, layout.geometry,
             {g.const_data_ptr(), layout.x.const_data_ptr(), grad_x.mutable_data_ptr(), a.data, second.data, from_output,
              sums.data(), sums.data() + n});
  }
  // The gradient of the location is -scale * sum of grad * f'.
  const bool wide = arithmetic(saved.scalar_type()) == at::kDouble;
  for (int64_t i = 0; i < n; ++i) {
    sums[n + i] *= -(wide ? static_cast<const double*>(a.data)[i] : static_cast<const float*>(a.data)[i]);
  }
  auto made = layout.gradients(
      sums.data(), {want_scale ? scale : std::nullopt, want_location ? location : std::nullopt}, terms, shared);
  return {grad_x, made[0], made[1]};
}

TORCH_LIBRARY_IMPL(agileact, CPU, m) {
  m.impl("agile", agile);
  m.impl("agile_", agile_);
  m.impl("agile_backward", agile_backward);
  m.impl("agile_double_backward", agile_double_backward);
}

}  // namespace agileact
