// Backward of activation and max pooling: gradients go where the windows found their values, zeros everywhere else.
#include "window.h"

namespace agileact {
namespace {

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

// One window, as pool_window read it.
template <typename T, bool Whole, typename Base, int H, typename V = vec_t<T>>
AGILEACT_INLINE void scatter_window(const Base& base, const T* grad, const T* picked, const uint8_t* places,
                                    const V (&scale)[H], const V (&location)[H], int64_t n, T* const* to,
                                    V (&sum_f)[H], V (&sum_d)[H]) {
  const Pack<T> g = load_lanes<T, Whole>(grad, n), x = load_lanes<T, Whole>(picked, n);
  V place[H], value[H];
  AGILEACT_UNROLL for (int half = 0; half < H; ++half) {
    const int64_t first = half * V::size();
    const int64_t count = Whole ? V::size() : std::clamp<int64_t>(n - first, 0, V::size());
    place[half] = load_places<V>(places + first, count);
    V f, d;
    base.at(x.v[half] - location[half], f, d);
    const V gd = g.v[half] * d;
    value[half] = scale[half] * gd;
    sum_f[half] = sum_f[half] + g.v[half] * f;
    sum_d[half] = sum_d[half] + gd;
  }
  AGILEACT_UNROLL for (int k = 0; k < 4; ++k) {
    store_lanes<T, Whole>({{at_place(value[0], place[0], k), at_place(value[H - 1], place[H - 1], k)}}, to[k], n);
  }
}

// Channels last, two by two: every window writes its four pixels, and nothing else does.
template <typename T>
void pool_backward_halves_last(const Formula& formula, const Pooling& p, const PoolBackward& call) {
  using A = acc_t<T>;
  using V = vec_t<T>;
  constexpr int H = kHalves<T>;
  constexpr int64_t step = H * V::size();
  const int64_t C = p.channels, row = p.width * C;
  const int64_t padded = ceil_div(C, step) * step;
  const std::vector<A> scales = repeated<A>(call.scale, C, 1, padded);
  const std::vector<A> locations = repeated<A>(call.location, C, 1, padded);
  // Behind the last whole window there may be a row and a column.
  const bool covered = p.height == 2 * p.out_height && p.width == 2 * p.out_width;
  std::vector<A> partial(p.batch * 2 * padded);
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, p.height * row));
  at::parallel_for(0, p.batch, grain, [&](int64_t begin, int64_t end) {
    with_base<V>(formula, [&](const auto& base) {
      for (int64_t u = begin; u < end; ++u) {
        T* const grad_x = static_cast<T*>(call.grad_x) + u * p.height * row;
        if (!covered) {
          std::memset(static_cast<void*>(grad_x), 0, p.height * row * sizeof(T));
        }
        A* const sums = partial.data() + u * 2 * padded;
        for (int64_t oh = 0; oh < p.out_height; ++oh) {
          for (int64_t c = 0; c < C; c += step) {
            V scale[H], location[H], sum_f[H], sum_d[H];
            AGILEACT_UNROLL for (int half = 0; half < H; ++half) {
              const int64_t at = c + half * V::size();
              scale[half] = V::loadu(scales.data() + at);
              location[half] = V::loadu(locations.data() + at);
              sum_f[half] = V::loadu(sums + at);
              sum_d[half] = V::loadu(sums + padded + at);
            }
            const int64_t n = std::min(step, C - c);
            const auto windows = [&](auto whole) {
              for (int64_t o = 0; o < p.out_width; ++o) {
                T* const first = grad_x + 2 * (oh * row + o * C) + c;
                T* const to[4] = {first, first + C, first + row, first + row + C};
                const int64_t at = ((u * p.out_height + oh) * p.out_width + o) * C + c;
                scatter_window<T, decltype(whole)::value>(base, static_cast<const T*>(call.grad) + at,
                                                          static_cast<const T*>(call.picked) + at, call.places + at,
                                                          scale, location, n, to, sum_f, sum_d);
              }
            };
            n == step ? windows(std::true_type()) : windows(std::false_type());
            // Lanes behind the last channel hold whatever came of it; nobody reads them.
            AGILEACT_UNROLL for (int half = 0; half < H; ++half) {
              sum_f[half].store(sums + c + half * V::size());
              sum_d[half].store(sums + padded + c + half * V::size());
            }
          }
        }
      }
    });
  });
  for (int64_t u = 0; u < p.batch; ++u) {
    for (int64_t c = 0; c < C; ++c) {
      call.sum_f[c] += partial[2 * u * padded + c];
      call.sum_d[c] += partial[(2 * u + 1) * padded + c];
    }
  }
}

}  // namespace

void pool_backward(c10::ScalarType dtype, const Formula& formula, const Pooling& p, const PoolBackward& call) {
  const Window w(p);
  const bool halves_last = p.channels_last && w.halves() && w.inside();
  with_type<float, double, c10::BFloat16>(dtype, [&](auto zero) {
    using T = decltype(zero);
    halves_last ? pool_backward_halves_last<T>(formula, p, call) : pool_backward_as<T>(formula, p, call);
  });
}

}  // namespace agileact
