// Windows of max pooling, and rows of parameters for them.
#pragma once

#include "bases.h"
#include "loops.h"

#include <vector>

namespace agileact {
namespace {

struct Window {
  int64_t kernel[2], stride[2], padding[2], dilation[2], size[2], out[2];
  explicit Window(const Pooling& p)
      : kernel{p.kernel[0], p.kernel[1]},
        stride{p.stride[0], p.stride[1]},
        padding{p.padding[0], p.padding[1]},
        dilation{p.dilation[0], p.dilation[1]},
        size{p.height, p.width},
        out{p.out_height, p.out_width} {}
  int64_t first(int axis, int64_t o) const { return o * stride[axis] - padding[axis]; }
  bool inside(int axis, int64_t i) const { return i >= 0 && i < size[axis]; }
  // Two by two, step two, no border: what most networks have, and two neighbours fill one vector.
  bool halves() const {
    return kernel[0] == 2 && kernel[1] == 2 && stride[0] == 2 && stride[1] == 2 && padding[0] == 0 && padding[1] == 0 &&
        dilation[0] == 1 && dilation[1] == 1;
  }
  // Every window lies inside: no padding, and none hangs over.
  bool inside() const {
    return padding[0] == 0 && padding[1] == 0 && first(0, out[0] - 1) + dilation[0] * (kernel[0] - 1) < size[0] &&
        first(1, out[1] - 1) + dilation[1] * (kernel[1] - 1) < size[1];
  }
  bool disjoint() const {
    return stride[0] >= dilation[0] * (kernel[0] - 1) + 1 && stride[1] >= dilation[1] * (kernel[1] - 1) + 1;
  }
};

// One number for a whole row, or one for each of its elements.
template <typename A>
at::vec::Vectorized<A> parameter(const A* from, bool each, int64_t i, int64_t n) {
  using V = at::vec::Vectorized<A>;
  return each ? V::loadu(from + i, n) : V(*from);
}

inline int64_t padded_to(int64_t n, int64_t step) { return (n / step + 2) * step; }

// A parameter a channel, repeated for a row of pixels; zeros behind them, for whole vectors.
template <typename A>
std::vector<A> repeated(const void* table, int64_t channels, int64_t pixels, int64_t size) {
  std::vector<A> row(size, A(0));
  for (int64_t i = 0; i < channels * pixels; ++i) {
    row[i] = static_cast<const A*>(table)[i % channels];
  }
  return row;
}

}  // namespace
}  // namespace agileact
