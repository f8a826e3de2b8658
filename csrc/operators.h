// The CPU kernels as functions, for callers that need no dispatcher: its way through takes as long as a small tensor.
#pragma once

#include <ATen/ATen.h>

#include <tuple>

#include "layout.h"

namespace agileact {

// Raises unless the kernels can work on these.
void check_call(const at::Tensor& x, const OptionalTensor& scale, const OptionalTensor& location, const Place&);

// scale * f(x - location), or the sum of such terms.
at::Tensor forward_cpu(const at::Tensor& x, const OptionalTensor& scale, const OptionalTensor& location,
                       const Formula&, const Place&, const Look&);

// The same, written over x.
void forward_cpu_(const at::Tensor& x, const OptionalTensor& scale, const OptionalTensor& location, const Formula&,
                  const Place&, const Look&);

// The gradients of x, scale and location; an undefined one for a parameter that is not there or not wanted. Those of the
// parameters may share their memory, unless an operator returns them, whose results must not.
std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_cpu(
    const at::Tensor& grad, const at::Tensor& saved, const OptionalTensor& scale, const OptionalTensor& location,
    const Formula&, const Place&, bool from_output, bool want_scale, bool want_location, bool shared);

}  // namespace agileact
