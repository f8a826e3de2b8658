// The CPU kernels of the pooling operators that schema.py declares.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "layout.h"

namespace agileact {
namespace {

using at::Tensor;

at::MemoryFormat format_of(const Tensor& x) {
  const bool last = x.is_contiguous(at::MemoryFormat::ChannelsLast) && !x.is_contiguous();
  return last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

Pooling pooling_of(at::IntArrayRef in, at::IntArrayRef out, at::IntArrayRef kernel, at::IntArrayRef stride,
                   at::IntArrayRef padding, at::IntArrayRef dilation, bool channels_last) {
  TORCH_CHECK(in.size() == 4, "agileact: pooling wants four axes");
  TORCH_CHECK(kernel[0] * kernel[1] <= 256, "agileact: a window has at most 256 elements");
  return {in[0], in[1], in[2], in[3], out[0], out[1], {kernel[0], kernel[1]}, {stride[0], stride[1]},
          {padding[0], padding[1]}, {dilation[0], dilation[1]}, channels_last};
}

// A table with one number a channel; a parameter with one for all is repeated.
Tensor channels(const OptionalTensor& parameter, double fill, int64_t n, at::ScalarType dtype) {
  const auto options = at::TensorOptions().dtype(dtype);
  if (!parameter.has_value() || !parameter->defined()) {
    return at::full({n}, fill, options);
  }
  TORCH_CHECK(parameter->numel() == n || parameter->numel() == 1, "agileact: a parameter with ", parameter->numel(),
              " elements for ", n, " channels");
  return parameter->reshape(-1).to(dtype).expand({n}).contiguous();
}

std::tuple<Tensor, Tensor, Tensor> agile_max_pool2d(
    const Tensor& x, const OptionalTensor& scale, const OptionalTensor& location, std::string_view base, double p,
    double q, at::IntArrayRef kernel, at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
    at::IntArrayRef out) {
  const Formula formula = formula_of(base, p, q);
  const auto format = format_of(x);
  const Tensor in = x.contiguous(format);
  const auto wide = arithmetic(x.scalar_type());
  const Tensor a = channels(scale, 1, x.size(1), wide), b = channels(location, 0, x.size(1), wide);
  Tensor y = at::empty({x.size(0), x.size(1), out[0], out[1]}, x.options().memory_format(format));
  Tensor picked = at::empty_like(y), places = at::empty_like(y, y.options().dtype(at::kByte));
  if (y.numel() != 0) {
    const bool last = format == at::MemoryFormat::ChannelsLast;
    pool(x.scalar_type(), formula, pooling_of(x.sizes(), out, kernel, stride, padding, dilation, last),
         {in.const_data_ptr(), y.mutable_data_ptr(), picked.mutable_data_ptr(), places.mutable_data_ptr<uint8_t>(),
          a.const_data_ptr(), b.const_data_ptr()});
  }
  return {y, picked, places};
}

std::tuple<Tensor, Tensor, Tensor> agile_max_pool2d_backward(
    const Tensor& grad, const Tensor& picked, const Tensor& places, const OptionalTensor& scale,
    const OptionalTensor& location, std::string_view base, double p, double q, at::IntArrayRef kernel,
    at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, at::IntArrayRef size) {
  const Formula formula = formula_of(base, p, q);
  TORCH_CHECK(grad.sizes() == picked.sizes() && grad.scalar_type() == picked.scalar_type() &&
                  places.sizes() == picked.sizes(),
              "agileact: the gradient does not match what was saved");
  const auto format = format_of(picked);
  const Tensor g = grad.contiguous(format);
  const auto wide = arithmetic(picked.scalar_type());
  const int64_t batch = picked.size(0), n = picked.size(1);
  const Tensor a = channels(scale, 1, n, wide), b = channels(location, 0, n, wide);
  Tensor grad_x = at::empty({batch, n, size[0], size[1]}, picked.options().memory_format(format));
  Tensor sums = at::zeros({2, n}, at::TensorOptions().dtype(at::kDouble));
  if (picked.numel() != 0) {
    const bool last = format == at::MemoryFormat::ChannelsLast;
    pool_backward(picked.scalar_type(), formula,
                  pooling_of(grad_x.sizes(), picked.sizes().slice(2), kernel, stride, padding, dilation, last),
                  {g.const_data_ptr(), picked.const_data_ptr(), places.const_data_ptr<uint8_t>(),
                   grad_x.mutable_data_ptr(), a.const_data_ptr(), b.const_data_ptr(), sums.mutable_data_ptr<double>(),
                   sums.mutable_data_ptr<double>() + n});
  } else {
    grad_x.zero_();
  }
  sums[1].mul_(a.neg());
  const auto gradient = [&](const OptionalTensor& parameter, const Tensor& sum) {
    if (!parameter.has_value() || !parameter->defined()) {
      return at::empty({0}, at::TensorOptions().dtype(at::kFloat));
    }
    const Tensor own = parameter->numel() == n ? sum : sum.sum(0, true);
    return own.reshape(parameter->sizes()).to(parameter->scalar_type()).clone();
  };
  return {grad_x, gradient(scale, sums[0]), gradient(location, sums[1])};
}

}  // namespace

TORCH_LIBRARY_IMPL(agileact, CPU, m) {
  m.impl("agile_max_pool2d", agile_max_pool2d);
  m.impl("agile_max_pool2d_backward", agile_max_pool2d_backward);
}

}  // namespace agileact
