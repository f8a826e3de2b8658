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

// f, and f', of a row of x - location; one location for all, or one for each.
template <typename A>
void row_of(const Formula& formula, const A* x, const A* location, bool each, int64_t n, A* f, A* d) {
  using V = at::vec::Vectorized<A>;
  with_base<V>(formula, [&](const auto& base) {
    for (int64_t i = 0; i < n; i += V::size()) {
      const int64_t count = std::min<int64_t>(V::size(), n - i);
      const V z = V::loadu(x + i, count) - (each ? V::loadu(location + i, count) : V(*location));
      V value, slope;
      if (d != nullptr) {
        base.at(z, value, slope);
        slope.store(d + i, count);
      } else {
        value = base.f(z);
      }
      value.store(f + i, count);
    }
  });
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
  for (int64_t i = 0; i < n; i += kStep<T>) {
    const Pack<T> in = Pack<T>::load(x + i, std::min(kStep<T>, n - i));
    in.v[0].store(xs + i);
    in.v[1].store(xs + i + vec_t<T>::size());
  }
  row_of<A>(formula, xs, location, each, n, ys, static_cast<A*>(nullptr));
  const vec_t<T> one(*scale);
  for (int64_t i = 0; i < n; i += kStep<T>) {
    const Pack<A> a = each ? Pack<A>::load(scale + i, std::min(kStep<T>, n - i)) : Pack<A>{{one, one}};
    const Pack<A> y = Pack<A>::load(ys + i, std::min(kStep<T>, n - i));
    const Pack<T> stored = as_stored<T>({a.v[0] * y.v[0], a.v[1] * y.v[1]});
    stored.v[0].store(ys + i);
    stored.v[1].store(ys + i + vec_t<T>::size());
  }
}

inline int64_t padded_to(int64_t n, int64_t step) { return (n / step + 2) * step; }

// Channels last: a vector holds channels.
template <typename T>
void pool_channels_last(const Formula& formula, const Pooling& p, const PoolForward& call) {
  using A = acc_t<T>;
  using V = vec_t<T>;
  const Window w(p);
  const T* x = static_cast<const T*>(call.x);
  const int64_t C = p.channels, rows = p.batch * w.out[0], K = w.kernel[0];
  const int64_t cell = padded_to(C, kStep<T>);
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, w.size[1] * K * C));
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    std::vector<A> xs(K * w.size[1] * cell), ys(K * w.size[1] * cell);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t n = r / w.out[0], h0 = w.first(0, r % w.out[0]);
      for (int64_t i = 0; i < K; ++i) {
        const int64_t h = h0 + i * w.dilation[0];
        for (int64_t v = 0; w.inside(0, h) && v < w.size[1]; ++v) {
          activate_row<T>(formula, x + ((n * w.size[0] + h) * w.size[1] + v) * C, static_cast<const A*>(call.scale),
                          static_cast<const A*>(call.location), true, C, xs.data() + (i * w.size[1] + v) * cell,
                          ys.data() + (i * w.size[1] + v) * cell);
        }
      }
      for (int64_t o = 0; o < w.out[1]; ++o) {
        const int64_t to = (r * w.out[1] + o) * C;
        for (int64_t c = 0; c < C; c += kStep<T>) {
          Best<V> best[2];
          best[0].start();
          best[1].start();
          for (int64_t i = 0; i < K; ++i) {
            for (int64_t j = 0; j < w.kernel[1]; ++j) {
              const int64_t v = w.first(1, o) + j * w.dilation[1];
              if (w.inside(0, h0 + i * w.dilation[0]) && w.inside(1, v)) {
                const int64_t at = (i * w.size[1] + v) * cell + c;
                for (int half = 0; half < 2; ++half) {
                  const int64_t lane = at + half * V::size();
                  best[half].offer(V::loadu(ys.data() + lane), V::loadu(xs.data() + lane), i * w.kernel[1] + j);
                }
              }
            }
          }
          put<T>(best, static_cast<T*>(call.y) + to + c, static_cast<T*>(call.picked) + to + c, call.places + to + c,
                 std::min(kStep<T>, C - c));
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
  const int64_t C = p.channels, plane = w.size[0] * w.size[1], out_plane = w.out[0] * w.out[1];
  const bool last = p.channels_last;
  // One unit of work is a plane, or, channels last, a sample; along a row of it the parameters are one pair or C.
  const int64_t units = last ? p.batch : p.batch * C;
  const int64_t row = last ? C : w.out[1], rows = last ? out_plane : w.out[0];
  const int64_t unit_in = last ? plane * C : plane, unit_out = last ? out_plane * C : out_plane;
  const int64_t sums = last ? C : 1;
  std::vector<A> partial(units * 2 * sums);
  const bool disjoint = w.disjoint();
  const A* scale = static_cast<const A*>(call.scale);
  const A* location = static_cast<const A*>(call.location);
  at::parallel_for(0, units, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, unit_in)), [&](int64_t begin, int64_t end) {
    const int64_t padded = padded_to(row, kStep<T>);
    std::vector<A> to(padded), xs(padded), fs(padded), ds(padded), acc(2 * padded);
    for (int64_t u = begin; u < end; ++u) {
      T* grad_x = static_cast<T*>(call.grad_x) + u * unit_in;
      std::memset(static_cast<void*>(grad_x), 0, unit_in * sizeof(T));
      std::fill(acc.begin(), acc.end(), A(0));
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t at = u * unit_out + r * row;
        const T* grad = static_cast<const T*>(call.grad) + at;
        const T* picked = static_cast<const T*>(call.picked) + at;
        const uint8_t* places = call.places + at;
        for (int64_t i = 0; i < row; i += kStep<T>) {
          const Pack<T> x = Pack<T>::load(picked + i, std::min(kStep<T>, row - i));
          x.v[0].store(xs.data() + i);
          x.v[1].store(xs.data() + i + V::size());
        }
        row_of<A>(formula, xs.data(), last ? location : location + u % C, last, row, fs.data(), ds.data());
        for (int64_t i = 0; i < row; i += kStep<T>) {
          const int64_t n = std::min(kStep<T>, row - i);
          const Pack<T> g = Pack<T>::load(grad + i, n);
          const V one(last ? A(0) : scale[u % C]);
          const Pack<A> a = last ? Pack<A>::load(scale + i, n) : Pack<A>{{one, one}};
          for (int half = 0; half < 2; ++half) {
            const int64_t o = i + half * V::size();
            const V valid = first_lanes<V>(n - half * V::size());
            const V gd = g.v[half] * V::loadu(ds.data() + o);
            (a.v[half] * gd).store(to.data() + o);
            (V::loadu(acc.data() + o) + ((g.v[half] * V::loadu(fs.data() + o)) & valid)).store(acc.data() + o);
            (V::loadu(acc.data() + padded + o) + (gd & valid)).store(acc.data() + padded + o);
          }
        }
        const auto scatter = [&](auto add) {
          for (int64_t i = 0; i < row; ++i) {
            const int64_t oh = last ? r / w.out[1] : r, ow = last ? r % w.out[1] : i;
            const int64_t h = w.first(0, oh) + places[i] / w.kernel[1] * w.dilation[0];
            const int64_t v = w.first(1, ow) + places[i] % w.kernel[1] * w.dilation[1];
            if (!w.inside(0, h) || !w.inside(1, v)) {
              continue;  // a window without an element
            }
            T& target = last ? grad_x[(h * w.size[1] + v) * C + i] : grad_x[h * w.size[1] + v];
            target = static_cast<T>(decltype(add)::value ? static_cast<A>(target) + to[i] : to[i]);
          }
        };
        if (!last && w.halves()) {
          T* pair = grad_x + 2 * r * w.size[1];
          for (int64_t i = 0; i < row; ++i) {
            const int place = places[i] & 3;
            pair[(place >> 1) * w.size[1] + 2 * i + (place & 1)] = static_cast<T>(to[i]);
          }
        } else if (disjoint) {
          scatter(std::false_type());
        } else {
          scatter(std::true_type());
        }
      }
      for (int k = 0; k < 2; ++k) {
        if (last) {
          std::copy_n(acc.data() + k * padded, C, partial.data() + (u * 2 + k) * C);
        } else {
          A sum = 0;
          for (int64_t i = 0; i < padded; ++i) {
            sum += acc[k * padded + i];
          }
          partial[u * 2 + k] = sum;
        }
      }
    }
  });
  for (int64_t n = 0; n < p.batch; ++n) {
    for (int64_t c = 0; c < C; ++c) {
      const A* from = last ? partial.data() + n * 2 * C + c : partial.data() + (n * C + c) * 2;
      call.sum_f[c] += from[0];
      call.sum_d[c] += from[last ? C : 1];
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
