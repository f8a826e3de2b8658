// Activation and max pooling in one pass: the unpooled activation exists only as a few rows in the cache.
//
// A window's value is the largest scale * f(x - location), by torch's rule: the first of equals in row-major order,
// and a NaN beats what came before it. Kept for backward are the input and the place (in the window, one byte) where
// it was found: everything else has the gradient zero.
#include "window.h"

namespace agileact {
namespace {

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

template <typename V>
struct Best {
  V value, x, place;
  void start() {
    value = V(-std::numeric_limits<typename V::value_type>::infinity());
    x = V(0);
    place = V(-1);
  }
  // A place of -1 takes anything: the first valid element wins over the -inf that stands for none. Where a window has
  // its first element anyway (not Open), nobody has to ask.
  template <bool Open = true>
  AGILEACT_INLINE void offer(V candidate, V from, double at) {
#if defined(CPU_CAPABILITY_AVX512)
    if constexpr (std::is_same_v<typename V::value_type, float>) {
      __mmask16 better = _mm512_cmp_ps_mask(candidate, value, _CMP_GT_OQ) |
          _mm512_cmp_ps_mask(candidate, candidate, _CMP_UNORD_Q);
      if constexpr (Open) {
        better |= _mm512_cmp_ps_mask(place, _mm512_setzero_ps(), _CMP_LT_OQ);
      }
      value = _mm512_mask_mov_ps(value, better, candidate);
      x = _mm512_mask_mov_ps(x, better, from);
      place = _mm512_mask_mov_ps(place, better, _mm512_set1_ps(static_cast<float>(at)));
      return;
    }
#endif
    V better = (candidate > value) | (candidate != candidate);
    if constexpr (Open) {
      better = better | (place < V(0));
    }
    value = V::blendv(value, candidate, better);
    x = V::blendv(x, from, better);
    place = V::blendv(place, V(at), better);
  }
};

template <typename T, typename V = vec_t<T>>
inline void put(const Best<V>* best, T* y, T* picked, uint8_t* places, int64_t n) {
  Pack<T>{{best[0].value, best[1].value}}.store(y, n);
  Pack<T>{{best[0].x, best[1].x}}.store(picked, n);
  for (int half = 0; half < 2 && n > half * V::size(); ++half) {
    const int64_t first = half * V::size();
    store_places(best[half].place, places + first, std::min<int64_t>(V::size(), n - first));
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

// One window, for as many channels as a load fills; without a whole load, for the first n of them.
template <typename T, bool Whole, typename Base, int H, typename V = vec_t<T>>
AGILEACT_INLINE void pool_window(const Base& base, const T* const* from, const V (&scale)[H], const V (&location)[H],
                                 int64_t n, T* y, T* picked, uint8_t* places) {
  Best<V> best[2];
  AGILEACT_UNROLL for (int place = 0; place < 4; ++place) {
    const Pack<T> in = load_lanes<T, Whole>(from[place], n);
    Pack<T> out{{V(0), V(0)}};
    AGILEACT_UNROLL for (int half = 0; half < H; ++half) {
      out.v[half] = scale[half] * base.f(in.v[half] - location[half]);
    }
    out = as_stored<T>(out);
    AGILEACT_UNROLL for (int half = 0; half < H; ++half) {
      if (place == 0) {
        best[half] = {out.v[half], in.v[half], V(0)};
      } else {
        best[half].template offer<false>(out.v[half], in.v[half], place);
      }
    }
  }
  store_lanes<T, Whole>({{best[0].value, best[H - 1].value}}, y, n);
  store_lanes<T, Whole>({{best[0].x, best[H - 1].x}}, picked, n);
  AGILEACT_UNROLL for (int half = 0; half < H; ++half) {
    const int64_t first = half * V::size();
    if (Whole || n > first) {
      store_places(best[half].place, places + first, Whole ? V::size() : std::min<int64_t>(V::size(), n - first));
    }
  }
}

// Channels last, two by two: a window's four pixels are read where they are, and compared as they are read.
template <typename T>
void pool_halves_last(const Formula& formula, const Pooling& p, const PoolForward& call) {
  using A = acc_t<T>;
  using V = vec_t<T>;
  constexpr int H = kHalves<T>;
  constexpr int64_t step = H * V::size();
  const int64_t C = p.channels, row = p.width * C, rows = p.batch * p.out_height;
  const int64_t padded = ceil_div(C, step) * step;
  const std::vector<A> scales = repeated<A>(call.scale, C, 1, padded);
  const std::vector<A> locations = repeated<A>(call.location, C, 1, padded);
  at::parallel_for(0, rows, std::max<int64_t>(1, kGrain / (2 * row)), [&](int64_t begin, int64_t end) {
    with_base<V>(formula, [&](const auto& base) {
      for (int64_t r = begin; r < end; ++r) {
        const T* x = static_cast<const T*>(call.x) + (r / p.out_height * p.height + r % p.out_height * 2) * row;
        for (int64_t c = 0; c < C; c += step) {
          V scale[H], location[H];
          AGILEACT_UNROLL for (int half = 0; half < H; ++half) {
            scale[half] = V::loadu(scales.data() + c + half * V::size());
            location[half] = V::loadu(locations.data() + c + half * V::size());
          }
          const int64_t n = std::min(step, C - c);
          const auto windows = [&](auto whole) {
            for (int64_t o = 0; o < p.out_width; ++o) {
              const T* const first = x + 2 * o * C + c;
              const T* const from[4] = {first, first + C, first + row, first + row + C};
              const int64_t to = (r * p.out_width + o) * C + c;
              pool_window<T, decltype(whole)::value>(base, from, scale, location, n, static_cast<T*>(call.y) + to,
                                                     static_cast<T*>(call.picked) + to, call.places + to);
            }
          };
          n == step ? windows(std::true_type()) : windows(std::false_type());
        }
      }
    });
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

}  // namespace

void pool(c10::ScalarType dtype, const Formula& formula, const Pooling& p, const PoolForward& call) {
  with_type<float, double, c10::BFloat16>(dtype, [&](auto zero) {
    using T = decltype(zero);
    if (!p.channels_last) {
      pool_planes<T>(formula, p, call);
    } else if (const Window w(p); w.halves() && w.inside()) {
      pool_halves_last<T>(formula, p, call);
    } else {
      pool_channels_last<T>(formula, p, call);
    }
  });
}

}  // namespace agileact
