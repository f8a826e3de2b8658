// From tensors and the axes of their parameters to what the loops see.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string_view>

#include "kernels.h"

namespace agileact {

using OptionalTensor = std::optional<at::Tensor>;

// The formula for a base's name in the schema; throws for a base that is not fused.
Formula formula_of(std::string_view base, double p, double q);

// Whether f, and so every derivative, can be had back from scale * f(x - location): the base allows it, and
// no scale is so small or so large that dividing by it loses what was there. Reads the scale.
bool output_suffices(const Formula&, at::ScalarType dtype, const OptionalTensor& scale);

// Whether the base allows it, whatever the scale.
bool invertible(const Formula&);

// A dense x, its geometry, and the order in which a parameter's axes lie in memory.
struct Layout {
  at::Tensor x;  // dense; x itself where it was
  Geometry geometry;
  std::vector<int64_t> order;  // empty: as written
  std::vector<int64_t> shape;  // of the axes that carry parameters

  // The table for the loops: contiguous, in the arithmetic's type, `fill` where there is none.
  at::Tensor table(const OptionalTensor& parameter, double fill) const;
  // Sums from the loops as a gradient shaped like the parameter.
  at::Tensor untable(const at::Tensor& sums, const at::Tensor& like) const;
  // t laid out in memory as x is.
  at::Tensor like_x(const at::Tensor& t) const;
};

Layout layout_of(const at::Tensor& x, int64_t dim, int64_t ndim);

inline at::ScalarType arithmetic(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace agileact
