#include "layout.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace agileact {

Formula formula_of(std::string_view base, double p, double q) {
  static constexpr std::pair<std::string_view, Base> names[] = {
      {"relu", Base::kRelu},           {"sigmoid", Base::kSigmoid},     {"tanh", Base::kTanh},
      {"silu", Base::kSilu},           {"gelu", Base::kGelu},           {"gelu_tanh", Base::kGeluTanh},
      {"leaky_relu", Base::kLeakyRelu}, {"elu", Base::kElu},            {"softplus", Base::kSoftplus},
      {"mish", Base::kMish},           {"hardswish", Base::kHardswish}, {"hardsigmoid", Base::kHardsigmoid},
      {"identity", Base::kIdentity}};
  for (const auto& [name, value] : names) {
    if (name == base) {
      return {value, p, q};
    }
  }
  TORCH_CHECK(false, "agileact: no fused kernel for the base '", base, "'");
}

bool invertible(const Formula& formula) {
  switch (formula.base) {
    case Base::kRelu:
    case Base::kSigmoid:
    case Base::kTanh:
    case Base::kIdentity:
      return true;
    // A slope or an alpha of the wrong sign folds the function back on itself.
    case Base::kLeakyRelu:
    case Base::kElu:
    case Base::kSoftplus:
      return formula.p > 0 && std::isfinite(formula.p);
    default:
      return false;
  }
}

bool output_suffices(const Formula& formula, at::ScalarType dtype, const OptionalTensor& scale) {
  if (!invertible(formula)) {
    return false;
  }
  // At its threshold Softplus falls by exp(-threshold): a value within the fall has two sources, and unless the
  // dtype cannot tell them apart, the input has to be saved.
  const double epsilon = dtype == at::kDouble ? 0x1p-53 : 0x1p-24;
  if (formula.base == Base::kSoftplus && !(std::exp(-formula.q) < epsilon)) {
    return false;
  }
  if (!scale.has_value() || !scale->defined()) {
    return true;
  }
  const bool bounded = formula.base == Base::kSigmoid || formula.base == Base::kTanh;
  // Outside these bounds the output may underflow (or overflow) where f would not, by enough to be seen in
  // the gradients. Half precision has only five bits of exponent.
  double low = 0x1p-24, high = 0x1p24;
  if (dtype == at::kHalf) {
    low = bounded ? 0x1p-8 : 0x1p-5;
    high = bounded ? 0x1p12 : 0x1p3;
  } else if (dtype == at::kDouble) {
    low = 0x1p-60;
    high = 0x1p60;
  }
  const auto within = [&](const auto* a, int64_t n) {
    return std::all_of(a, a + n, [&](auto v) {
      const double size = std::abs(static_cast<double>(v));
      return size >= low && size <= high;
    });
  };
  if (scale->scalar_type() == at::kFloat && scale->is_contiguous()) {
    return within(scale->const_data_ptr<float>(), scale->numel());
  }
  const at::Tensor wide = scale->to(at::kDouble).contiguous();
  return within(wide.const_data_ptr<double>(), wide.numel());
}

Layout layout_of(const at::Tensor& x, int64_t dim, int64_t ndim) {
  TORCH_CHECK(dim >= 0 && ndim >= 0 && dim + ndim <= x.dim(),
              "agileact: axes ", dim, " to ", dim + ndim, " of a tensor with ", x.dim());
  Layout out{x, {1, 1, 1}, {}, {}};
  const auto shape = x.sizes().slice(dim, ndim);
  out.shape.append(shape.begin(), shape.end());
  const auto product = [](at::IntArrayRef sizes) {
    return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
  };
  if (!x.is_contiguous()) {
    if (!x.is_non_overlapping_and_dense()) {
      out.x = x.clone();  // dense, in the order of x's strides
    }
    std::vector<int64_t> axes;
    for (int64_t d = 0; d < x.dim(); ++d) {
      if (x.size(d) != 1) {
        axes.push_back(d);
      }
    }
    std::stable_sort(axes.begin(), axes.end(), [&](int64_t a, int64_t b) { return out.x.stride(a) > out.x.stride(b); });
    const auto carries = [&](int64_t d) { return d >= dim && d < dim + ndim; };
    const auto first = std::find_if(axes.begin(), axes.end(), carries);
    const auto last = std::find_if_not(first, axes.end(), carries);
    if (std::find_if(last, axes.end(), carries) != axes.end()) {
      out.x = x.contiguous();  // the parameters' axes do not lie together
    } else {
      for (auto it = axes.begin(); it != axes.end(); ++it) {
        auto& part = it < first ? out.geometry.outer : it < last ? out.geometry.params : out.geometry.inner;
        part *= x.size(*it);
      }
      if (!std::is_sorted(first, last)) {
        for (auto it = first; it != last; ++it) {
          out.order.push_back(*it - dim);
        }
        for (int64_t d = 0; d < ndim; ++d) {
          if (x.size(dim + d) == 1) {
            out.order.push_back(d);
          }
        }
      }
      return out;
    }
  }
  out.geometry = {product(x.sizes().slice(0, dim)), product(out.shape), product(x.sizes().slice(dim + ndim))};
  return out;
}

Table Layout::table(const OptionalTensor& parameter, double fill, bool inverted) const {
  const auto dtype = arithmetic(x.scalar_type());
  const int64_t n = geometry.params;
  Table out;
  const bool given = parameter.has_value() && parameter->defined();
  if (given) {
    TORCH_CHECK(parameter->numel() == n, "agileact: a parameter with ", parameter->numel(), " elements for ", n);
    out.kept = parameter->scalar_type() == dtype ? *parameter : parameter->to(dtype);
    if (!order.empty()) {
      out.kept = out.kept.reshape(shape).permute(order);
    }
    out.kept = out.kept.contiguous();
    out.data = out.kept.const_data_ptr();
    if (!inverted) {
      return out;
    }
  }
  const auto write = [&](auto zero) {
    using A = decltype(zero);
    const A* from = static_cast<const A*>(out.data);
    out.copy.resize(n);
    A* to = reinterpret_cast<A*>(out.copy.data());
    for (int64_t i = 0; i < n; ++i) {
      to[i] = from ? A(1) / from[i] : A(fill);
    }
    out.data = to;
  };
  dtype == at::kDouble ? write(double()) : write(float());
  return out;
}

at::Tensor Layout::gradient(const double* sums, const OptionalTensor& parameter) const {
  if (!parameter.has_value() || !parameter->defined()) {
    return at::empty({0}, at::TensorOptions().dtype(at::kFloat));
  }
  const auto dtype = parameter->scalar_type();
  at::Tensor result = at::empty(parameter->sizes(), parameter->options().memory_format(at::MemoryFormat::Contiguous));
  if (order.empty() && (dtype == at::kFloat || dtype == at::kDouble)) {
    if (dtype == at::kFloat) {
      std::copy_n(sums, geometry.params, result.mutable_data_ptr<float>());
    } else {
      std::copy_n(sums, geometry.params, result.mutable_data_ptr<double>());
    }
    return result;
  }
  at::Tensor t = at::empty({geometry.params}, at::TensorOptions().dtype(at::kDouble));
  std::copy_n(sums, geometry.params, t.mutable_data_ptr<double>());
  if (!order.empty()) {
    std::vector<int64_t> back(order.size()), sizes;
    for (size_t i = 0; i < order.size(); ++i) {
      back[order[i]] = static_cast<int64_t>(i);
      sizes.push_back(shape[order[i]]);
    }
    t = t.view(sizes).permute(back);
  }
  result.view(-1).copy_(t.reshape(-1));
  return result;
}

at::Tensor Layout::like_x(const at::Tensor& t) const {
  if (t.strides() == x.strides() || (t.is_contiguous() && x.is_contiguous())) {
    return t;
  }
  return at::empty_like(x).copy_(t);
}

}  // namespace agileact
