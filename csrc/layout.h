// From tensors and the axes of their parameters to what the loops see.
#pragma once

#include <ATen/ATen.h>
#include <c10/util/SmallVector.h>

#include <optional>
#include <string_view>

#include "kernels.h"

namespace agileact {

using OptionalTensor = std::optional<at::Tensor>;

// The formula for a base's name in the schema; throws for a base that is not fused.
Formula formula_of(std::string_view base, double p, double q);

// The name in the schema.
std::string_view name_of(Base);

// Whether f can be had back from scale * f(x - location), if the scale allows it.
bool invertible(const Formula&);

// Where the parameters lie: along the axes dim to dim + ndim of x, term after term.
struct Place {
  int64_t dim, ndim, terms;
};

// What one look at the parameters tells.
struct Look {
  // Every scale is 1 and every location 0: the operator is the plain activation.
  bool plain = false;
  // f, and so every derivative, can be had back from the output: the base allows it, there is one term, and no
  // scale is so small or so large that dividing by it loses what was there.
  bool recoverable = false;
  // A product may underflow although f > 0, and backward has to see on which side of a kink an element was.
  bool guarded = false;
};
Look look(const Formula&, at::ScalarType dtype, const OptionalTensor& scale, const OptionalTensor& location,
          int64_t terms);

// One number a parameter for the loops: the parameter's own memory where it fits, else a copy. For a handful of
// channels a tensor operation costs more than the numbers do, hence the plain arrays.
struct Table {
  at::Tensor kept;
  c10::SmallVector<double, 16> copy;  // of double, or of float in its first half
  const void* data = nullptr;
};

// A dense x, its geometry, and the order in which a parameter's axes lie in memory.
struct Layout {
  at::Tensor x;  // dense; x itself where it was
  Geometry geometry;
  c10::SmallVector<int64_t, 5> order;  // empty: as written
  c10::SmallVector<int64_t, 5> shape;  // of the axes that carry parameters

  // The table for the loops, in the arithmetic's type; `fill` everywhere if there is no parameter.
  Table table(const OptionalTensor& parameter, int64_t terms, double fill, bool inverted = false) const;
  // Sums from the loops as a gradient like the parameter.
  at::Tensor gradient(const double* sums, const at::Tensor& parameter, int64_t terms) const;
  // Sums, one behind the other, as gradients of the parameters that are wanted; in one piece of memory if they may share
  // it.
  c10::SmallVector<at::Tensor, 3> gradients(const double* sums, std::initializer_list<OptionalTensor> parameters,
                                            int64_t terms, bool shared) const;
  // t laid out in memory as x is.
  at::Tensor like_x(const at::Tensor& t) const;
};

Layout layout_of(const at::Tensor& x, int64_t dim, int64_t ndim);

inline at::ScalarType arithmetic(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace agileact
