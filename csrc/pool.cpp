// Activation and max pooling in one pass: the unpooled activation exists only as a few rows in the cache.
//
// A window's value is the largest scale * f(x - location), by torch's rule: the first of equals in row-major order,
// and a NaN beats what came before it. Kept for backward are the input and the place (in the window, one byte) where
// it was found: everything else has the gradient zero.
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

template <typename T, typename V = vec_t<T>>
inline Pack<T> as_stored(const Pack<T>& p) {
  if constexpr (std::is_same_v<T, acc_t<T>>) {
    return p;
  } else {
    // Eager pooling compares rounded values, and so its ties are ties of rounded values.
    auto [low, high] = at::vec::convert_to_float<T>(at::vec::convert_from_float<T>(p.v[0], p.v[1]));
    return {low, high};
  }
}

// One number for a whole row, or one for each of its elements.
template <typename A>
at::vec::Vectorized<A> parameter(const A* from, bool each, int64_t i, int64_t n) {
  using V = at::vec::Vectorized<A>;
  return each ? V::loadu(from + i, n) : V(*from);
}

template <typename V>
struct Best {
  V value, x, place;
  void start() {
    value = V(-std::numeric_limits<typename V::value_type>::infinity());
    x = V(0);
    place = V(-1);
  }
  void offer(V candidate, V from, double at) {
    // A place of -1 takes anything: the first valid element wins over the -inf that stands for none.
#if defined(CPU_CAPABILITY_AVX512)
    if constexpr (std::is_same_v<typename V::value_type, float>) {
      const __mmask16 better = _mm512_cmp_ps_mask(candidate, value, _CMP_GT_OQ) |
          _mm512_cmp_ps_mask(candidate, candidate, _CMP_UNORD_Q) |
          _mm512_cmp_ps_mask(place, _mm512_setzero_ps(), _CMP_LT_OQ);
      value = _mm512_mask_mov_ps(value, better, candidate);
      x = _mm512_mask_mov_ps(x, better, from);
      place = _mm512_mask_mov_ps(place, better, _mm512_set1_ps(static_cast<float>(at)));
      return;
    }
#endif
    const V better = (candidate > value) | (candidate != candidate) | (place < V(0));
    value = V::blendv(value, candidate, better);
    x = V::blendv(x, from, better);
    place = V::blendv(place, V(at), better);
  }
};

template <typename T, typename V = vec_t<T>>
inline void put(const Best<V>* best, T* y, T* picked, uint8_t* places, int64_t n) {
  Pack<T>{{best[0].value, best[1].value}}.store(y, n);
  Pack<T>{{best[0].x, best[1].x}}.store(picked, n);
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (std::is_same_v<acc_t<T>, float>) {
    for (int half = 0; half < 2 && n > half * V::size(); ++half) {
      const __mmask16 valid = static_cast<__mmask16>((1u << std::min<int64_t>(V::size(), n - half * V::size())) - 1);
      _mm512_mask_cvtepi32_storeu_epi8(places + half * V::size(), valid, _mm512_cvtps_epi32(best[half].place));
    }
    return;
  }
#endif
  acc_t<T> place[kStep<T>];
  best[0].place.store(place);
  best[1].place.store(place + V::size());
  for (int64_t i = 0; i < n; ++i) {
    places[i] = static_cast<uint8_t>(static_cast<int>(place[i]));
  }
}

// One row of inputs, in the arithmetic's type, and of the values there.
template <typename T, typename A = acc_t<T>>
void activate_row(const Formula& formula, const T* x, const A* scale, const A* location, bool each, int64_t n, A* xs, A* ys) {
  using V = vec_t<T>;
  with_base<V>(formula, [&](const auto& base) {
    for (int64_t i = 0; i < n; i += kStep<T>) {
      const int64_t count = std::min(kStep<T>, n - i);
      const Pack<T> in = Pack<T>::load(x + i, count);
      Pack<T> y{{V(0), V(0)}};
      for (int half = 0; half < 2; ++half) {
        const int64_t at = i + half * V::size(), valid = std::min<int64_t>(V::size(), n - at);
        if (valid > 0) {
          y.v[half] = parameter(scale, each, at, valid) * base.f(in.v[half] - parameter(location, each, at, valid));
        }
        in.v[half].store(xs + at);
      }
      const Pack<T> stored = as_stored<T>(y);
      stored.v[0].store(ys + i);
      stored.v[1].store(ys + i + V::size());
    }
  });
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

// The numbers of one pixel; beyond them up to a vector more, which the next pixel overwrites.
template <typename A>
inline void copy_pixel(const A* from, int64_t n, A* to) {
  using V = at::vec::Vectorized<A>;
  for (int64_t i = 0; i < n; i += V::size()) {
    V::loadu(from + i).store(to + i);
  }
}

// Channels last: rows of pixels, and a vector holds channels, of several pixels if they are few.
template <typename T>
void pool_channels_last(const Formula& formula, const Pooling& p, const PoolForward& call) {
  using A = acc_t<T>;
  using V = vec_t<T>;
  const Window w(p);
  const T* x = static_cast<const T*>(call.x);
  const int64_t C = p.channels, rows = p.batch * w.out[0], K = w.kernel[0], J = w.kernel[1];
  const int64_t row = w.size[1] * C, out_row = w.out[1] * C;
  const int64_t padded = padded_to(row, kStep<T>), out_padded = padded_to(out_row, kStep<T>);
  const std::vector<A> scale = repeated<A>(call.scale, C, w.size[1], padded);
  const std::vector<A> location = repeated<A>(call.location, C, w.size[1], padded);
  // Few channels: a window's pixels are laid one behind the other for each place in the window.
  const bool whole = w.inside(), gathered = whole && C % V::size() != 0;
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, row * K));
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    std::vector<A> xs(K * padded), ys(K * padded);
    std::vector<A> by_place(gathered ? 2 * K * J * out_padded : 0);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t n = r / w.out[0], h0 = w.first(0, r % w.out[0]);
      for (int64_t i = 0; i < K; ++i) {
        const int64_t h = h0 + i * w.dilation[0];
        if (!w.inside(0, h)) {
          continue;
        }
        A* const own_x = xs.data() + i * padded;
        A* const own_y = ys.data() + i * padded;
        activate_row<T>(formula, x + (n * w.size[0] + h) * row, scale.data(), location.data(), true, row, own_x, own_y);
        for (int64_t j = 0; gathered && j < J; ++j) {
          A* const to = by_place.data() + 2 * (i * J + j) * out_padded;
          for (int64_t o = 0; o < w.out[1]; ++o) {
            const int64_t at = (w.first(1, o) + j * w.dilation[1]) * C;
            copy_pixel(own_x + at, C, to + o * C);
            copy_pixel(own_y + at, C, to + out_padded + o * C);
          }
        }
      }
      const auto deliver = [&](const Best<V>* best, int64_t at, int64_t count) {
        const int64_t to = r * out_row + at;
        put<T>(best, static_cast<T*>(call.y) + to, static_cast<T*>(call.picked) + to, call.places + to, count);
      };
      if (whole) {
        int64_t o = 0, c = 0;  // the pixel and the channel of a vector, where all its lanes are of one pixel
        for (int64_t e = 0; e < out_row; e += kStep<T>) {
          Best<V> best[2];
          for (int half = 0; half < 2; ++half) {
            best[half].start();
            for (int64_t place = 0; place < K * J && e + half * V::size() < out_row; ++place) {
              const int64_t i = place / J, j = place % J;
              const A* from_x = gathered ? by_place.data() + 2 * place * out_padded + e + half * V::size()
                                         : xs.data() + i * padded + (w.first(1, o) + j * w.dilation[1]) * C + c;
              const A* from_y = gathered ? from_x + out_padded : ys.data() + (from_x - xs.data());
              best[half].offer(V::loadu(from_y), V::loadu(from_x), place);
            }
            if (!gathered && (c += V::size()) == C) {
              c = 0;
              ++o;
            }
          }
          deliver(best, e, std::min(kStep<T>, out_row - e));
        }
        continue;
      }
      for (int64_t o = 0; o < w.out[1]; ++o) {
        for (int64_t c = 0; c < C; c += kStep<T>) {
          Best<V> best[2];
          best[0].start();
          best[1].start();
          for (int64_t i = 0; i < K; ++i) {
            for (int64_t j = 0; j < J; ++j) {
              const int64_t v = w.first(1, o) + j * w.dilation[1];
              if (w.inside(0, h0 + i * w.dilation[0]) && w.inside(1, v)) {
                const int64_t at = i * padded + v * C + c;
                for (int half = 0; half < 2; ++half) {
                  const int64_t lane = at + half * V::size();
                  best[half].offer(V::loadu(ys.data() + lane), V::loadu(xs.data() + lane), i * J + j);
                }
              }
            }
          }
          deliver(best, o * C + c, std::min(kStep<T>, C - c));
        }
      }
    }
  });
}

template <typename T>
void pool_planes(const Formula& formula, const Pooling& p, const PoolForward& call) {
  using V = vec_t<T>;
  using A = acc_t<T>;
  const Window w(p);
  const int64_t W = w.size[1], K = w.kernel[0];
  const int64_t plane = w.size[0] * W, out_plane = w.out[0] * w.out[1];
  const int64_t padded = padded_to(W, kStep<T>);
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, plane));
  at::parallel_for(0, p.batch * p.channels, grain, [&](int64_t begin, int64_t end) {
    // One row of inputs and of values for each row of the window.
    std::vector<A> xs(K * padded), ys(K * padded);
    for (int64_t r = begin; r < end; ++r) {
      const A* scale = static_cast<const A*>(call.scale) + r % p.channels;
      const A* location = static_cast<const A*>(call.location) + r % p.channels;
      const T* x = static_cast<const T*>(call.x) + r * plane;
      for (int64_t oh = 0; oh < w.out[0]; ++oh) {
        const int64_t h0 = w.first(0, oh);
        for (int64_t i = 0; i < K; ++i) {
          const int64_t h = h0 + i * w.dilation[0];
          if (!w.inside(0, h)) {
            continue;
          }
          activate_row<T>(formula, x + h * W, scale, location, false, W, xs.data() + i * padded, ys.data() + i * padded);
        }
        T* to = static_cast<T*>(call.y) + r * out_plane + oh * w.out[1];
        T* picked = static_cast<T*>(call.picked) + r * out_plane + oh * w.out[1];
        uint8_t* places = call.places + r * out_plane + oh * w.out[1];
        if (w.halves() && h0 + 1 < w.size[0] && 2 * w.out[1] <= W) {
          for (int64_t o = 0; o < w.out[1]; o += kStep<T>) {
            Best<V> best[2];
            for (int half = 0; half < 2; ++half) {
              best[half].start();
              const int64_t at = 2 * (o + half * V::size());
              for (int64_t i = 0; i < 2; ++i) {
                if (at < W) {
                  const A* from_x = xs.data() + i * padded + at;
                  const A* from_y = ys.data() + i * padded + at;
                  auto [x0, x1] = at::vec::deinterleave2<A>(V::loadu(from_x), V::loadu(from_x + V::size()));
                  auto [y0, y1] = at::vec::deinterleave2<A>(V::loadu(from_y), V::loadu(from_y + V::size()));
                  best[half].offer(y0, x0, 2 * i);
                  best[half].offer(y1, x1, 2 * i + 1);
                }
              }
            }
            put<T>(best, to + o, picked + o, places + o, std::min(kStep<T>, w.out[1] - o));
          }
          continue;
        }
        for (int64_t o = 0; o < w.out[1]; ++o) {
          const int64_t v0 = w.first(1, o);
          A best = -std::numeric_limits<A>::infinity();
          int64_t at = 0;
          int place = -1;
          for (int64_t i = 0; i < K; ++i) {
            if (!w.inside(0, h0 + i * w.dilation[0])) {
              continue;
            }
            for (int64_t j = 0; j < w.kernel[1]; ++j) {
              const int64_t v = v0 + j * w.dilation[1];
              if (!w.inside(1, v)) {
                continue;
              }
              const A y = ys[i * padded + v];
              if (place < 0 || y > best || y != y) {
                best = y;
                at = i * padded + v;
                place = static_cast<int>(i * w.kernel[1] + j);
              }
            }
          }
          to[o] = static_cast<T>(best);
          picked[o] = static_cast<T>(xs[at]);
          places[o] = static_cast<uint8_t>(place);
        }
      }
    }
  });
}

// The gradient goes to the places kept; sums are made for each sample (or plane), then added in order.
template <typename T>
void pool_backward_as(const Formula& formula, const Pooling& p, const PoolBackward& call) {
  using V = vec_t<T>;
  using A = acc_t<T>;
  const Window w(p);
  const int64_t plane = w.size[0] * w.size[1], out_plane = w.out[0] * w.out[1];
  const bool last = p.channels_last;
  // A unit of work is a plane, or, channels last, a sample: C numbers a pixel. Along a row of it the parameters are one
  // pair, or C pairs over and over.
  const int64_t C = last ? p.channels : 1, units = last ? p.batch : p.batch * p.channels;
  const int64_t row = w.out[1] * C, padded = padded_to(row, kStep<T>);
  std::vector<A> partial(units * 2 * C);
  const bool disjoint = w.disjoint(), simple = disjoint && w.inside();
  const auto fills = [&](int axis) {
    return w.dilation[axis] == 1 && w.stride[axis] == w.kernel[axis] && w.out[axis] * w.stride[axis] == w.size[axis];
  };
  const bool covered = last && simple && fills(0) && fills(1);  // every element is written anyway
  std::vector<A> scales, locations;
  if (last) {
    scales = repeated<A>(call.scale, C, w.out[1], padded);
    locations = repeated<A>(call.location, C, w.out[1], padded);
  }
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, plane * C));
  at::parallel_for(0, units, grain, [&](int64_t begin, int64_t end) {
    std::vector<A> to(padded), acc(2 * padded), where(last && simple ? padded : 0);
    for (int64_t u = begin; u < end; ++u) {
      T* grad_x = static_cast<T*>(call.grad_x) + u * plane * C;
      const A* scale = last ? scales.data() : static_cast<const A*>(call.scale) + u % p.channels;
      const A* location = last ? locations.data() : static_cast<const A*>(call.location) + u % p.channels;
      if (!covered) {
        std::memset(static_cast<void*>(grad_x), 0, plane * C * sizeof(T));
      }
      std::fill(acc.begin(), acc.end(), A(0));
      for (int64_t oh = 0; oh < w.out[0]; ++oh) {
        const int64_t at = u * out_plane * C + oh * row;
        const T* grad = static_cast<const T*>(call.grad) + at;
        const T* picked = static_cast<const T*>(call.picked) + at;
        const uint8_t* places = call.places + at;
        with_base<V>(formula, [&](const auto& base) {
          for (int64_t i = 0; i < row; i += kStep<T>) {
            const int64_t n = std::min(kStep<T>, row - i);
            const Pack<T> g = Pack<T>::load(grad + i, n), x = Pack<T>::load(picked + i, n);
            for (int half = 0; half < 2; ++half) {
              const int64_t o = i + half * V::size(), count = std::min<int64_t>(V::size(), row - o);
              if (count <= 0) {
                break;
              }
              const V valid = first_lanes<V>(count);
              V f, d;
              base.at(x.v[half] - parameter(location, last, o, count), f, d);
              const V gd = g.v[half] * d;
              (parameter(scale, last, o, count) * gd).store(to.data() + o);
              (V::loadu(acc.data() + o) + ((g.v[half] * f) & valid)).store(acc.data() + o);
              (V::loadu(acc.data() + padded + o) + (gd & valid)).store(acc.data() + padded + o);
            }
          }
        });
        if (!last && w.halves()) {
          T* pair = grad_x + 2 * oh * w.size[1];
          for (int64_t i = 0; i < row; ++i) {
            const int place = places[i] & 3;
            pair[(place >> 1) * w.size[1] + 2 * i + (place & 1)] = static_cast<T>(to[i]);
          }
          continue;
        }
        if (last && simple) {
          // Pixel by pixel: the gradients that were found there, zeros elsewhere.
          std::copy_n(places, row, where.data());
          for (int64_t i = 0; i < w.kernel[0]; ++i) {
            T* const line = grad_x + (w.first(0, oh) + i * w.dilation[0]) * w.size[1] * C;
            for (int64_t o = 0; o < w.out[1]; ++o) {
              for (int64_t j = 0; j < w.kernel[1]; ++j) {
                T* const pixel = line + (w.first(1, o) + j * w.dilation[1]) * C;
                const V place(static_cast<A>(i * w.kernel[1] + j));
                for (int64_t c = 0; c < C; c += kStep<T>) {
                  Pack<T> out;
                  for (int half = 0; half < 2; ++half) {
                    // Behind the row there is room for one more pack.
                    const int64_t at = o * C + c + half * V::size();
                    out.v[half] = V::loadu(to.data() + at) & (V::loadu(where.data() + at) == place);
                  }
                  out.store(pixel + c, std::min(kStep<T>, C - c));
                }
              }
            }
          }
          continue;
        }
        for (int64_t i = 0; i < row; ++i) {
          const int64_t h = w.first(0, oh) + places[i] / w.kernel[1] * w.dilation[0];
          const int64_t v = w.first(1, i / C) + places[i] % w.kernel[1] * w.dilation[1];
          if (!w.inside(0, h) || !w.inside(1, v)) {
            continue;  // a window without an element
          }
          T& target = grad_x[(h * w.size[1] + v) * C + i % C];
          target = static_cast<T>(disjoint ? to[i] : static_cast<A>(target) + to[i]);
        }
      }
      for (int k = 0; k < 2; ++k) {
        A* const sums = partial.data() + (2 * u + k) * C;
        std::fill_n(sums, C, A(0));
        for (int64_t i = 0; i < row; ++i) {
          sums[i % C] += acc[k * padded + i];
        }
      }
    }
  });
  for (int64_t u = 0; u < units; ++u) {
    for (int64_t c = 0; c < C; ++c) {
      const int64_t channel = last ? c : u % p.channels;
      call.sum_f[channel] += partial[2 * u * C + c];
      call.sum_d[channel] += partial[(2 * u + 1) * C + c];
    }
  }
}

}  // namespace

void pool(c10::ScalarType dtype, const Formula& formula, const Pooling& p, const PoolForward& call) {
  const auto as = [&](auto zero) {
    using T = decltype(zero);
    p.channels_last ? pool_channels_last<T>(formula, p, call) : pool_planes<T>(formula, p, call);
  };
  switch (dtype) {
    case c10::ScalarType::Double: return as(double());
    case c10::ScalarType::BFloat16: return as(c10::BFloat16());
    default: return as(float());
  }
}

void pool_backward(c10::ScalarType dtype, const Formula& formula, const Pooling& p, const PoolBackward& call) {
  switch (dtype) {
    case c10::ScalarType::Double: return pool_backward_as<double>(formula, p, call);
    case c10::ScalarType::BFloat16: return pool_backward_as<c10::BFloat16>(formula, p, call);
    default: return pool_backward_as<float>(formula, p, call);
  }
}

}  // namespace agileact
