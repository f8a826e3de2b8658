#include "layout.h"

#include <ATen/EmptyTensor.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace agileact {

namespace {

constexpr std::pair<std::string_view, Base> kNames[] = {
    {"relu", Base::kRelu},           {"sigmoid", Base::kSigmoid},     {"tanh", Base::kTanh},
    {"silu", Base::kSilu},           {"gelu", Base::kGelu},           {"gelu_tanh", Base::kGeluTanh},
    {"leaky_relu", Base::kLeakyRelu}, {"elu", Base::kElu},            {"softplus", Base::kSoftplus},
    {"mish", Base::kMish},           {"hardswish", Base::kHardswish}, {"hardsigmoid", Base::kHardsigmoid},
    {"identity", Base::kIdentity}};

bool kinked(Base base) { return base == Base::kRelu || base == Base::kLeakyRelu || base == Base::kElu; }

// What the scales and locations must be like.
struct Bounds {
  double low, high;  // of a scale that can be divided out again
  double product;    // of scale and location: below it scale * (x - location) may round to 0
  bool exact;        // x - location is as fine as the output: a scale of 1 or more loses nothing
};

Bounds bounds_of(Base base, at::ScalarType dtype) {
  const bool bounded = base == Base::kSigmoid || base == Base::kTanh;
  // Outside low and high the output may underflow (or overflow) where f would not, by enough to be seen in the
  // gradients. Half precision has only five bits of exponent. As to product: what is not 0 of x - location is at least
  // 2^-25 of the location (2^-54 in double), and the last factor is the smallest number of the dtype.
  switch (dtype) {
    case at::kHalf:
      return {bounded ? 0x1p-8 : 0x1p-5, bounded ? 0x1p12 : 0x1p3, 0x1p26 * smallest_of(dtype), false};
    case at::kDouble:
      return {0x1p-60, 0x1p60, 0x1p55 * smallest_of(dtype), true};
    default:
      return {0x1p-24, 0x1p24, 0x1p26 * smallest_of(dtype), dtype == at::kFloat};
  }
}

template <typename A>
Look look_at(const A* a, const A* b, int64_t n, int64_t terms, const Bounds& bounds) {
  bool plain = true, within = true, safe = true;
  for (int64_t i = 0; i < n / terms; ++i) {
    const double scale = a != nullptr ? a[i] : A(1), location = b != nullptr ? b[i] : A(0);
    const double size = std::abs(scale);
    plain &= scale == 1 && location == 0;
    within &= size >= bounds.low && size <= bounds.high;
    safe &= size * std::abs(location) >= bounds.product || (bounds.exact && size >= 1);
  }
  for (int64_t i = n / terms; i < n; ++i) {
    plain &= a != nullptr && a[i] == 0;
  }
  return {plain, within, !safe};
}

}  // namespace

Formula formula_of(std::string_view base, double p, double q) {
  for (const auto& [name, value] : kNames) {
    if (name == base) {
      return {value, p, q};
    }
  }
  TORCH_CHECK(false, "agileact: no fused kernel for the base '", base, "'");
}

std::string_view name_of(Base base) {
  for (const auto& [name, value] : kNames) {
    if (value == base) {
      return name;
    }
  }
  return {};
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

Look look(const Formula& formula, at::ScalarType dtype, const OptionalTensor& scale, const OptionalTensor& location,
          int64_t terms) {
  const Bounds bounds = bounds_of(formula.base, dtype);
  const auto given = [](const OptionalTensor& t) { return t.has_value() && t->defined(); };
  const auto simple = [&](const OptionalTensor& t) {
    return !given(t) || (t->scalar_type() == at::kFloat && t->is_contiguous());
  };
  const int64_t n = given(scale) ? scale->numel() : given(location) ? location->numel() : terms;
  // What is read here is read before the call is checked as a whole.
  TORCH_CHECK(terms >= 1, "agileact: at least one term, not ", terms);
  TORCH_CHECK(!given(location) || location->numel() == n, "agileact: a location with ", location->numel(),
              " elements for a scale with ", n);
  Look seen;
  if (simple(scale) && simple(location)) {
    seen = look_at(given(scale) ? scale->const_data_ptr<float>() : nullptr,
                   given(location) ? location->const_data_ptr<float>() : nullptr, n, terms, bounds);
  } else {
    const auto wide = [&](const OptionalTensor& t) { return given(t) ? t->to(at::kDouble).contiguous() : at::Tensor(); };
    const at::Tensor a = wide(scale), b = wide(location);
    seen = look_at(a.defined() ? a.const_data_ptr<double>() : nullptr,
                   b.defined() ? b.const_data_ptr<double>() : nullptr, n, terms, bounds);
  }
  // At its threshold Softplus falls by exp(-threshold): a value within the fall has two sources, and unless the
  // dtype cannot tell them apart, the input has to be saved.
  const double epsilon = dtype == at::kDouble ? 0x1p-53 : 0x1p-24;
  const bool jumps = formula.base == Base::kSoftplus && !(std::exp(-formula.q) < epsilon);
  seen.recoverable = seen.recoverable && invertible(formula) && terms == 1 && !jumps;
  seen.guarded = seen.guarded && seen.recoverable && kinked(formula.base);
  return seen;
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

Table Layout::table(const OptionalTensor& parameter, int64_t terms, double fill, bool inverted) const {
  const auto dtype = arithmetic(x.scalar_type());
  const int64_t n = geometry.params * terms;
  Table out;
  const bool given = parameter.has_value() && parameter->defined();
  if (given) {
    out.kept = parameter->scalar_type() == dtype ? *parameter : parameter->to(dtype);
    if (!order.empty()) {
      std::vector<int64_t> sizes{terms}, axes{0};
      sizes.insert(sizes.end(), shape.begin(), shape.end());
      for (const int64_t axis : order) {
        axes.push_back(axis + 1);
      }
      out.kept = out.kept.reshape(sizes).permute(axes);
    }
    if (!out.kept.is_contiguous()) {
      out.kept = out.kept.contiguous();
    }
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

at::Tensor Layout::gradient(const double* sums, const at::Tensor& parameter, int64_t terms) const {
  const auto dtype = parameter.scalar_type();
  const int64_t n = geometry.params * terms;
  at::Tensor result = at::detail::empty_cpu(parameter.sizes(), dtype);
  if (order.empty() && (dtype == at::kFloat || dtype == at::kDouble)) {
    if (dtype == at::kFloat) {
      std::copy_n(sums, n, result.mutable_data_ptr<float>());
    } else {
      std::copy_n(sums, n, result.mutable_data_ptr<double>());
    }
    return result;
  }
  at::Tensor t = at::empty({n}, at::TensorOptions().dtype(at::kDouble));
  std::copy_n(sums, n, t.mutable_data_ptr<double>());
  if (!order.empty()) {
    std::vector<int64_t> back(order.size() + 1, 0), sizes{terms};
    for (size_t i = 0; i < order.size(); ++i) {
      back[order[i] + 1] = static_cast<int64_t>(i) + 1;
      sizes.push_back(shape[order[i]]);
    }
    t = t.view(sizes).permute(back);
  }
  result.view(-1).copy_(t.reshape(-1));
  return result;
}

c10::SmallVector<at::Tensor, 3> Layout::gradients(const double* sums, std::initializer_list<OptionalTensor> parameters,
                                                  int64_t terms, bool shared) const {
  const int64_t n = geometry.params * terms, all = static_cast<int64_t>(parameters.size()) * n;
  c10::SmallVector<at::Tensor, 3> made;
  const auto flat = [&](const OptionalTensor& t) {
    return t.has_value() && t->defined() && t->scalar_type() == at::kFloat && t->dim() == 1 && order.empty();
  };
  if (shared && std::all_of(parameters.begin(), parameters.end(), flat)) {
    const at::Tensor whole = at::detail::empty_cpu({all}, at::kFloat);
    std::copy_n(sums, all, whole.mutable_data_ptr<float>());
    for (int64_t offset = 0; offset < all || made.size() < parameters.size(); offset += n) {
      at::Tensor t = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(whole.storage()), whole.key_set(), whole.dtype());
      t.unsafeGetTensorImpl()->set_storage_offset(offset);
      t.unsafeGetTensorImpl()->set_sizes_contiguous({n});
      made.push_back(std::move(t));
    }
    return made;
  }
  for (const OptionalTensor& parameter : parameters) {
    made.push_back(parameter.has_value() && parameter->defined() ? gradient(sums, *parameter, terms) : at::Tensor());
    sums += n;
  }
  return made;
}

at::Tensor Layout::like_x(const at::Tensor& t) const {
  if (t.strides() == x.strides() || (t.is_contiguous() && x.is_contiguous())) {
    return t;
  }
  return at::empty_like(x).copy_(t);
}

}  // namespace agileact
