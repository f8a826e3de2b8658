// What the registered operators (built once) ask of the loops (built once for each instruction set).
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace agileact {

enum class Base : int {
  kRelu,
  kLeakyRelu,
  kElu,
  kSigmoid,
  kTanh,
  kSoftplus,
  kIdentity,
  kSilu,
  kGelu,
  kGeluTanh,
  kMish,
  kHardswish,
  kHardsigmoid,
};

// A dense tensor as the loops see it: element i has the parameter (i / inner) % params.
struct Geometry {
  int64_t outer;
  int64_t params;
  int64_t inner;
  int64_t numel() const { return outer * params * inner; }
};

// A base function and its two options (slope; alpha; beta and threshold).
struct Formula {
  Base base;
  double p;
  double q;
};

// The smallest number above zero that survives being written in a dtype. bfloat16 holds smaller ones, but the
// instruction that converts to it writes 0 for them.
inline double smallest_of(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::ScalarType::Half: return 0x1p-24;
    case c10::ScalarType::BFloat16: return 0x1p-126;
    case c10::ScalarType::Double: return 0x1p-1074;
    default: return 0x1p-149;
  }
}

// Tables hold one number a parameter, in the type of the arithmetic (double for double, else float).
struct Forward {
  const void* x;
  void* y;
  const void* scale;
  const void* location;
  // Above 0: the output will stand in for the input in backward, and an underflow must not hide which side of
  // the kink an element was on. Where f > 0 no output is smaller than this.
  double smallest;
};

struct Backward {
  const void* grad;
  const void* saved;
  void* grad_x;
  const void* scale;
  // The location, or, where the output was saved, one over the scale.
  const void* second;
  bool from_output;
  // params numbers each, not null: sum of grad * f, and sum of grad * f'.
  double* sum_f;
  double* sum_d;
};

struct DoubleBackward {
  const void* tangent_x;  // the gradient that arrived for grad_x
  const void* grad;
  const void* saved;
  void* grad_grad;
  void* grad_x;
  const void* scale;
  const void* second;
  const void* tangent_scale;
  const void* tangent_location;
  bool from_output;
  double* sum_scale;  // the gradient of the scale
  double* sum_x;      // sum of grad_x, which is minus the gradient of the location
};

// Sums of several activations of one input: tables and sums hold one number a parameter, term after term.
struct CombinedForward {
  const void* x;
  void* y;
  const void* scale;
  const void* location;
  int64_t terms;
};

struct CombinedBackward {
  const void* grad;
  const void* x;
  void* grad_x;
  const void* scale;
  const void* location;
  int64_t terms;
  double* sum_f;
  double* sum_d;
};

struct CombinedDoubleBackward {
  const void* tangent_x;
  const void* grad;
  const void* x;
  void* grad_grad;
  void* grad_x;
  const void* scale;
  const void* location;
  const void* tangent_scale;
  const void* tangent_location;
  int64_t terms;
  double* sum_scale;
  double* sum_x;
};

// scale * f(gain * (x - location)).
struct GainForward {
  const void* x;
  void* y;
  const void* scale;
  const void* location;
  const void* gain;
};

struct GainBackward {
  const void* grad;
  const void* x;
  void* grad_x;
  const void* scale;
  const void* location;
  const void* gain;
  double* sums;  // params numbers each: of grad * f, grad * f' and grad * f' * (x - location)
};

// Max pooling of an activation, over planes (or, channels last, over samples).
struct Pooling {
  int64_t batch, channels, height, width, out_height, out_width;
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  bool channels_last;
};

struct PoolForward {
  const void* x;
  void* y;
  void* picked;     // the input where each window found its largest value,
  uint8_t* places;  // and where in the window that was
  const void* scale;
  const void* location;
};

struct PoolBackward {
  const void* grad;
  const void* picked;
  const uint8_t* places;
  void* grad_x;
  const void* scale;
  const void* location;
  double* sum_f;
  double* sum_d;
};

// The arithmetic of float16 and bfloat16 is in float, in registers; pooling has no float16.
void forward(c10::ScalarType dtype, const Formula&, const Geometry&, const Forward&);
void backward(c10::ScalarType dtype, const Formula&, const Geometry&, const Backward&);
// In double.
void double_backward(const Formula&, const Geometry&, const DoubleBackward&);
void combined(c10::ScalarType dtype, const Formula&, const Geometry&, const CombinedForward&);
void combined_backward(c10::ScalarType dtype, const Formula&, const Geometry&, const CombinedBackward&);
void combined_double_backward(const Formula&, const Geometry&, const CombinedDoubleBackward&);
void gain_forward(c10::ScalarType dtype, const Formula&, const Geometry&, const GainForward&);
void gain_backward(c10::ScalarType dtype, const Formula&, const Geometry&, const GainBackward&);
void pool(c10::ScalarType dtype, const Formula&, const Pooling&, const PoolForward&);
void pool_backward(c10::ScalarType dtype, const Formula&, const Pooling&, const PoolBackward&);

}  // namespace agileact
