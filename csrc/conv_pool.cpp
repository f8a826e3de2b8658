// A convolution with few channels and the 2x2 max pooling behind it in one pass, on one thread, in float32.
//
// Of the four convolved numbers of a window the largest alone goes on, and alone has a gradient: backward is a sum over
// the windows, a quarter of a convolution's arithmetic, and the unpooled map is never written. Weights are few here and
// fit into the first cache; a library's blocked layouts have nothing to fill them with.
//
// As a study's networks are trained on one thread each, so is this: the same bits whatever the number of threads.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace agileact {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// So many floats, in whatever registers the machine has.
template <int N>
struct Lanes {
  typedef float type __attribute__((vector_size(4 * N)));
  typedef int32_t mask __attribute__((vector_size(4 * N)));
  typedef uint8_t bytes __attribute__((vector_size(N)));
};
template <int N>
using Vec = typename Lanes<N>::type;

template <int N>
inline Vec<N> load(const float* p) {
  Vec<N> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

template <int N>
inline void store(float* p, const Vec<N>& v) {
  std::memcpy(p, &v, sizeof(v));
}

// Memory at the start of a cache line: a register's worth never lies in two.
struct Floats {
  explicit Floats(int64_t n) : memory(at::zeros({n})), n(n), start(memory.mutable_data_ptr<float>()) {}
  float* data() const { return start; }
  void clear() const { std::fill_n(start, n, 0.0f); }
  Tensor memory;
  int64_t n;
  float* start;
};

// All sizes of a call. Images and weights lie with the channels last; a row of a kernel is `run` numbers in a row.
struct Sizes {
  int64_t batch, c, h, w, filters, kh, kw, ph, pw;
  int64_t oh, ow;  // windows
  int64_t line() const { return (w + 2 * pw) * c; }  // of a padded image
  int64_t plane() const { return (h + 2 * ph) * line(); }
  int64_t run() const { return kw * c; }
  int64_t taps() const { return kh * run(); }
};

void check(const Tensor& x, const Tensor& weight) {
  TORCH_CHECK(x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat && x.device().is_cpu(),
              "agileact: conv_max_pool2d takes float32 on the CPU");
  TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && x.size(1) == weight.size(1),
              "agileact: conv_max_pool2d wants images (N, C, H, W) and weights (filters, C, height, width)");
}

Sizes sizes_of(const Tensor& x, const Tensor& weight, at::IntArrayRef padding) {
  check(x, weight);
  Sizes s{x.size(0), x.size(1), x.size(2), x.size(3), weight.size(0), weight.size(2), weight.size(3), padding[0],
          padding[1], 0, 0};
  s.oh = (s.h + 2 * s.ph - s.kh + 1) / 2;
  s.ow = (s.w + 2 * s.pw - s.kw + 1) / 2;
  TORCH_CHECK(s.oh > 0 && s.ow > 0, "agileact: conv_max_pool2d leaves nothing of images of ", s.h, "x", s.w);
  return s;
}

void pad(const Sizes& s, const float* image, float* padded) {
  for (int64_t y = 0; y < s.h; ++y) {
    std::memcpy(padded + (y + s.ph) * s.line() + s.pw * s.c, image + y * s.w * s.c, sizeof(float) * s.w * s.c);
  }
}

// The largest of four numbers and its place, for N filters. Of whole registers the compiler knows the size to write.
template <int N>
inline void pool(const Vec<N>* four, float* y, uint8_t* places, int64_t filters) {
  // As PyTorch pools: the first of equals, and a number that is none goes before what came earlier.
  Vec<N> best = four[0];
  typename Lanes<N>::mask place = {};
#pragma GCC unroll 3
  for (int q = 1; q < 4; ++q) {
    const Vec<N> one = four[q];
    const typename Lanes<N>::mask better = (one > best) | (one != one);
    best = better ? one : best;
    place = (place & ~better) | (better & q);
  }
  const auto small = __builtin_convertvector(place, typename Lanes<N>::bytes);
  if (filters == N) {
    std::memcpy(y, &best, sizeof(best));
    std::memcpy(places, &small, sizeof(small));
  } else {
    std::memcpy(y, &best, sizeof(float) * filters);
    std::memcpy(places, &small, filters);
  }
}

// The windows that begin at `at`, W of them side by side, N filters: largest numbers and their places. Run is s.run()
// where that is known to the compiler, else 0.
template <int N, int W, int Run>
inline void windows(const Sizes& s, const float* at, const float* weights, int64_t stride, Vec<N> bias, float* y,
                    uint8_t* places, int64_t filters, int64_t all) {
  Vec<N> sum[4 * W];
#pragma GCC unroll 8
  for (int i = 0; i < 4 * W; ++i) sum[i] = bias;
  const int64_t run = Run ? Run : s.run();
  for (int64_t ky = 0; ky < s.kh; ++ky) {
    const float* upper = at + ky * s.line();
    const float* lower = upper + s.line();
#pragma GCC unroll 3
    for (int64_t k = 0; k < run; ++k, weights += stride) {
      const Vec<N> w = load<N>(weights);
#pragma GCC unroll 8
      for (int i = 0; i < W; ++i) {
        sum[4 * i] += upper[2 * i * s.c + k] * w;
        sum[4 * i + 1] += upper[(2 * i + 1) * s.c + k] * w;
        sum[4 * i + 2] += lower[2 * i * s.c + k] * w;
        sum[4 * i + 3] += lower[(2 * i + 1) * s.c + k] * w;
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < W; ++i) pool<N>(sum + 4 * i, y + i * all, places + i * all, filters);
}

template <int N, int Run>
void forward(const Sizes& s, const float* x, const float* weight, const float* bias, float* y, uint8_t* places) {
  // Filters side by side, as many as fill whole registers.
  const int64_t wide = (s.filters + N - 1) / N * N;
  const Floats weights(s.taps() * wide), biases(wide), padded(s.plane());
  for (int64_t f = 0; f < s.filters; ++f) {
    biases.data()[f] = bias ? bias[f] : 0.0f;
    for (int64_t k = 0; k < s.taps(); ++k) weights.data()[k * wide + f] = weight[f * s.taps() + k];
  }
  for (int64_t n = 0; n < s.batch; ++n) {
    pad(s, x + n * s.h * s.w * s.c, padded.data());
    for (int64_t oy = 0; oy < s.oh; ++oy) {
      for (int64_t f = 0; f < s.filters; f += N) {
        const int64_t filters = std::min<int64_t>(N, s.filters - f);
        const Vec<N> b = load<N>(biases.data() + f);
        const float* from = padded.data() + 2 * oy * s.line();
        const int64_t to = (n * s.oh + oy) * s.ow * s.filters + f;
        int64_t ox = 0;
        for (; ox + 2 <= s.ow; ox += 2) {
          windows<N, 2, Run>(s, from + 2 * ox * s.c, weights.data() + f, wide, b, y + to + ox * s.filters,
                        places + to + ox * s.filters, filters, s.filters);
        }
        for (; ox < s.ow; ++ox) {
          windows<N, 1, Run>(s, from + 2 * ox * s.c, weights.data() + f, wide, b, y + to + ox * s.filters,
                        places + to + ox * s.filters, filters, s.filters);
        }
      }
    }
  }
}

// A window of 3x3 kernels in 16 products instead of 36 for each channel and filter: F(2x2, 3x3) of S. Winograd, as A.
// Lavin and S. Gray have it (arXiv 1509.09308). Of a 4x4 patch d and a kernel g the four sums are A'[(G g G') (B' d B)]A,
// with the products of the brackets one by one. Windows of a row go side by side, W at a time.
struct Winograd {
  // Column by column: B' d, of 8 channels.
  static void down(const float* column, int64_t line, Vec<8>* t) {
    const Vec<8> d0 = load<8>(column), d1 = load<8>(column + line), d2 = load<8>(column + 2 * line),
                 d3 = load<8>(column + 3 * line);
    t[0] = d0 - d2, t[1] = d1 + d2, t[2] = d2 - d1, t[3] = d1 - d3;
  }

  // (B' d B) of W windows, as [16][W][channels].
  template <int W>
  static void patches(const Sizes& s, const float* from, int64_t count, float* to) {
    for (int64_t k = 0; k < s.c; k += 8) {
      Vec<8> t[4][4];
      down(from + k, s.line(), t[0]);
      down(from + k + s.c, s.line(), t[1]);
      for (int64_t i = 0; i < count; ++i) {
        down(from + k + (2 * i + 2) * s.c, s.line(), t[2]);
        down(from + k + (2 * i + 3) * s.c, s.line(), t[3]);
        float* own = to + i * s.c + k;
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r, own += 4 * W * s.c) {
          store<8>(own, t[0][r] - t[2][r]);
          store<8>(own + W * s.c, t[1][r] + t[2][r]);
          store<8>(own + 2 * W * s.c, t[2][r] - t[1][r]);
          store<8>(own + 3 * W * s.c, t[1][r] - t[3][r]);
          t[0][r] = t[2][r], t[1][r] = t[3][r];
        }
      }
    }
  }

  // (G g G') of all filters, as [16][channels][wide].
  static void kernels(const Sizes& s, const float* weight, int64_t wide, float* to) {
    const float g[4][3] = {{1.0f, 0.0f, 0.0f}, {0.5f, 0.5f, 0.5f}, {0.5f, -0.5f, 0.5f}, {0.0f, 0.0f, 1.0f}};
    for (int64_t f = 0; f < s.filters; ++f) {
      for (int64_t k = 0; k < s.c; ++k) {
        for (int r = 0; r < 16; ++r) {
          float sum = 0.0f;
          for (int q = 0; q < 9; ++q) sum += g[r / 4][q / 3] * g[r % 4][q % 3] * weight[f * s.taps() + q * s.c + k];
          to[(r * s.c + k) * wide + f] = sum;
        }
      }
    }
  }
};

template <int N, int W>
void forward_winograd(const Sizes& s, const float* x, const float* weight, const float* bias, float* y, uint8_t* places) {
  const int64_t wide = (s.filters + N - 1) / N * N;
  const Floats weights(16 * s.c * wide), biases(wide), padded(s.plane()), patches(16 * W * s.c), products(16 * W * N);
  if (bias) std::copy_n(bias, s.filters, biases.data());
  Winograd::kernels(s, weight, wide, weights.data());
  for (int64_t n = 0; n < s.batch; ++n) {
    pad(s, x + n * s.h * s.w * s.c, padded.data());
    for (int64_t oy = 0; oy < s.oh; ++oy) {
      for (int64_t ox = 0; ox < s.ow; ox += W) {
        const int64_t count = std::min<int64_t>(W, s.ow - ox);
        Winograd::patches<W>(s, padded.data() + 2 * oy * s.line() + 2 * ox * s.c, count, patches.data());
        for (int64_t f = 0; f < s.filters; f += N) {
          const float* v = patches.data();
          const float* u = weights.data() + f;
          for (int r = 0; r < 16; ++r, v += W * s.c) {
            Vec<N> sum[W] = {};
            for (int64_t k = 0; k < s.c; ++k, u += wide) {
              const Vec<N> w = load<N>(u);
#pragma GCC unroll 8
              for (int i = 0; i < W; ++i) sum[i] += v[i * s.c + k] * w;
            }
#pragma GCC unroll 8
            for (int i = 0; i < W; ++i) store<N>(products.data() + (r * W + i) * N, sum[i]);
          }
          const Vec<N> b = load<N>(biases.data() + f);
          const int64_t filters = std::min<int64_t>(N, s.filters - f);
          const int64_t to = ((n * s.oh + oy) * s.ow + ox) * s.filters + f;
          for (int64_t i = 0; i < count; ++i) {
            Vec<N> upper[4], lower[4];
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
              const float* m = products.data() + (j * W + i) * N;
              const Vec<N> m1 = load<N>(m + 4 * W * N), m2 = load<N>(m + 8 * W * N);
              upper[j] = load<N>(m) + m1 + m2;
              lower[j] = m1 - m2 - load<N>(m + 12 * W * N);
            }
            const Vec<N> four[4] = {
                upper[0] + upper[1] + upper[2] + b,
                upper[1] - upper[2] - upper[3] + b,
                lower[0] + lower[1] + lower[2] + b,
                lower[1] - lower[2] - lower[3] + b,
            };
            pool<N>(four, y + to + i * s.filters, places + to + i * s.filters, filters);
          }
        }
      }
    }
  }
}

// Adds to F rows of sums, each of B registers, what so many windows send them: g times the numbers that lie at their
// offsets. The sums stay in registers meanwhile.
template <int B, int F>
void gather(const float* from, const int32_t* offsets, const float* g, int64_t stride, int64_t count, float* to,
            int64_t wide) {
  Vec<8> sum[F][B];
#pragma GCC unroll 8
  for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) sum[f][b] = load<8>(to + f * wide + 8 * b);
  for (int64_t i = 0; i < count; ++i, offsets += stride, g += stride) {
#pragma GCC unroll 8
    for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) sum[f][b] += g[f] * load<8>(from + offsets[f] + 8 * b);
  }
#pragma GCC unroll 8
  for (int f = 0; f < F; ++f)
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) store<8>(to + f * wide + 8 * b, sum[f][b]);
}

// The same for rows of `eights` registers and all filters; a row of few registers is taken with three others.
void gather_rows(const float* from, const int32_t* offsets, const float* g, int64_t filters, int64_t count, float* to,
                 int64_t wide, int64_t eights) {
  while (eights > 0) {
    const int64_t b = eights % 6 == 0 ? 6 : eights % 3 == 0 ? 3 : eights % 2 == 0 ? 2 : 1;
    int64_t f = 0;
    for (; b <= 2 && f + 4 <= filters; f += 4) {
      const auto run = b == 2 ? gather<2, 4> : gather<1, 4>;
      run(from, offsets + f, g + f, filters, count, to + f * wide, wide);
    }
    for (; f < filters; ++f) {
      const auto run = b == 6 ? gather<6, 1> : b == 3 ? gather<3, 1> : b == 2 ? gather<2, 1> : gather<1, 1>;
      run(from, offsets + f, g + f, filters, count, to + f * wide, wide);
    }
    from += 8 * b, to += 8 * b, eights -= b;
  }
}

// Where in an image, or among patches, each filter's largest number of a window comes from.
inline void find(const uint8_t* places, int64_t filters, int32_t corner, int32_t down, int32_t right, int32_t* offsets) {
  int64_t f = 0;
  for (; f + 8 <= filters; f += 8) {
    Lanes<8>::bytes small;
    std::memcpy(&small, places + f, 8);
    const auto place = __builtin_convertvector(small, Lanes<8>::mask);
    const Lanes<8>::mask found = corner + (place >> 1) * down + (place & 1) * right;
    std::memcpy(offsets + f, &found, sizeof(found));
  }
  for (; f < filters; ++f) offsets[f] = corner + (places[f] >> 1) * down + (places[f] & 1) * right;
}

// The sum over all windows of an image, for each filter.
inline void sum(const float* g, int64_t filters, int64_t count, float* to) {
  int64_t f = 0;
  for (; f + 8 <= filters; f += 8) {
    Vec<8> all = {};
    for (int64_t i = 0; i < count; ++i) all += load<8>(g + i * filters + f);
    store<8>(to + f, load<8>(to + f) + all);
  }
  for (; f < filters; ++f) {
    float all = 0.0f;
    for (int64_t i = 0; i < count; ++i) all += g[i * filters + f];
    to[f] += all;
  }
}

// The other way: to each window's numbers its g times a row of B registers, which stay there meanwhile.
template <int B>
void spread(const float* row, const int32_t* offsets, const float* g, int64_t stride, int64_t count, float* to) {
  Vec<8> weight[B];
#pragma GCC unroll 8
  for (int b = 0; b < B; ++b) weight[b] = load<8>(row + 8 * b);
  for (int64_t i = 0; i < count; ++i, offsets += stride, g += stride) {
    if (*g == 0.0f) continue;  // half of them behind a ReLU
    float* own = to + *offsets;
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) store<8>(own + 8 * b, load<8>(own + 8 * b) + *g * weight[b]);
  }
}

// Of one image; channels in eights, so that the rows of a kernel are whole registers where they lie.
void backward_rows(const Sizes& s, const float* g, const uint8_t* places, const float* padded, const float* weight,
                   int32_t* offsets, float* to_weight, float* to_padded) {
  const int64_t count = s.oh * s.ow, eights = s.run() / 8;
  for (int64_t window = 0; window < count; ++window) {
    const int64_t corner = 2 * (window / s.ow) * s.line() + 2 * (window % s.ow) * s.c, at = window * s.filters;
    find(places + at, s.filters, static_cast<int32_t>(corner), static_cast<int32_t>(s.line()), static_cast<int32_t>(s.c),
         offsets + at);
  }
  for (int64_t ky = 0; ky < s.kh; ++ky) {
    gather_rows(padded + ky * s.line(), offsets, g, s.filters, count, to_weight + ky * s.run(), s.taps(), eights);
  }
  const int64_t step = eights % 6 == 0 ? 6 : eights % 3 == 0 ? 3 : 1;
  const auto spread_row = step == 6 ? spread<6> : step == 3 ? spread<3> : spread<1>;
  for (int64_t f = 0; to_padded && f < s.filters; ++f) {
    for (int64_t ky = 0; ky < s.kh; ++ky) {
      for (int64_t k = 0; k < s.run(); k += 8 * step) {
        const int64_t at = ky * s.line() + k;
        spread_row(weight + f * s.taps() + ky * s.run() + k, offsets + f, g + f, s.filters, count, to_padded + at);
      }
    }
  }
}

// Of one image with any channels, without its own gradient: a row of windows has its patches brought together first.
template <int Run>
void backward_patches(const Sizes& s, const float* g, const uint8_t* places, const float* padded, float* patches,
                      int32_t* offsets, float* to_weight, int64_t wide) {
  const int64_t run = Run ? Run : s.run(), line = s.line(), filters = s.filters;
  for (int64_t oy = 0; oy < s.oh; ++oy, g += s.ow * filters) {
    float* patch = patches;
    for (int64_t ox = 0; ox < s.ow; ++ox, places += filters) {
      const float* corner = padded + 2 * oy * line + 2 * ox * s.c;
      for (int q = 0; q < 4; ++q, patch += wide) {
        const float* from = corner + (q >> 1) * line + (q & 1) * s.c;
        float* to = patch;
        for (int64_t ky = 0; ky < s.kh; ++ky, from += line, to += run) {
          // Four at a time: what is too much, the next row overwrites or nobody reads.
          for (int64_t k = 0; k < run; k += 4) store<4>(to + k, load<4>(from + k));
        }
      }
      const auto own = static_cast<int32_t>(wide);
      find(places, filters, 4 * static_cast<int32_t>(ox) * own, 2 * own, own, offsets + ox * filters);
    }
    gather_rows(patches, offsets, g, filters, s.ow, to_weight, wide, wide / 8);
  }
}

// Of an image of one channel and 3x3 kernels, N filters side by side: each number of a patch goes, for all filters at
// once, to the taps that it met, and to those filters whose largest number came from there.
template <int N>
void backward_one_channel(const Sizes& s, const float* g, const uint8_t* places, const float* padded, float* to_weight,
                          int64_t wide) {
  for (int64_t f = 0; f < s.filters; f += N) {
    Vec<N> sum[9] = {};
    for (int64_t window = 0; window < s.oh * s.ow; ++window) {
      const int64_t at = window * s.filters + f;
      const float* corner = padded + 2 * (window / s.ow) * s.line() + 2 * (window % s.ow);
      typename Lanes<N>::bytes small;
      std::memcpy(&small, places + at, N);
      const auto place = __builtin_convertvector(small, typename Lanes<N>::mask);
      const Vec<N> all = load<N>(g + at), none = {};
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) {
        const Vec<N> own = place == q ? all : none;
        const float* from = corner + (q >> 1) * s.line() + (q & 1);
#pragma GCC unroll 9
        for (int k = 0; k < 9; ++k) sum[k] += from[k / 3 * s.line() + k % 3] * own;
      }
    }
    for (int k = 0; k < 9; ++k) {
      for (int i = 0; i < N; ++i) to_weight[(f + i) * wide + k] += sum[k][i];
    }
  }
}

std::tuple<Tensor, Tensor> conv_max_pool2d(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                                           at::IntArrayRef padding) {
  const Sizes s = sizes_of(x, weight, padding);
  const auto last = at::MemoryFormat::ChannelsLast;
  const Tensor images = x.permute({0, 2, 3, 1}).contiguous(), kernels = weight.permute({0, 2, 3, 1}).contiguous();
  Tensor y = at::empty({s.batch, s.filters, s.oh, s.ow}, x.options().memory_format(last));
  Tensor places = at::empty(y.sizes(), x.options().dtype(at::kByte).memory_format(last));
  Tensor shift;
  if (bias.has_value() && bias->defined()) shift = bias->contiguous();
  TORCH_CHECK(!shift.defined() || (shift.numel() == s.filters && shift.scalar_type() == at::kFloat),
              "agileact: conv_max_pool2d wants a float32 bias of ", s.filters);
#if defined(CPU_CAPABILITY_AVX512)
  const bool wide = s.filters > 8;
#else
  const bool wide = false;  // eight sums would not stay in registers
#endif
  auto run = s.run() == 3 ? (wide ? forward<16, 3> : forward<8, 3>) : wide ? forward<16, 0> : forward<8, 0>;
  if (s.kh == 3 && s.kw == 3 && s.c % 8 == 0) {
    // As many windows side by side as a row has, or half as many.
    const bool few = s.ow <= 4;
    run = wide ? (few ? forward_winograd<16, 4> : forward_winograd<16, 8>)
               : (few ? forward_winograd<8, 4> : forward_winograd<8, 8>);
  }
  run(s, images.const_data_ptr<float>(), kernels.const_data_ptr<float>(),
      shift.defined() ? shift.const_data_ptr<float>() : nullptr, y.mutable_data_ptr<float>(),
      places.mutable_data_ptr<uint8_t>());
  return {y, places};
}

std::tuple<Tensor, Tensor, Tensor> conv_max_pool2d_backward(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                                            const Tensor& places, at::IntArrayRef padding,
                                                            bool want_x) {
  const Sizes s = sizes_of(x, weight, padding);
  const bool rows = s.c % 8 == 0;
#if defined(CPU_CAPABILITY_AVX512)
  constexpr int lanes = 16;
#else
  constexpr int lanes = 8;
#endif
  TORCH_CHECK(rows || !want_x, "agileact: conv_max_pool2d has a gradient of images with channels in eights alone");
  const auto last = at::MemoryFormat::ChannelsLast;
  const Tensor g = grad.contiguous(last), picked = places.contiguous(last);
  const Tensor images = x.permute({0, 2, 3, 1}).contiguous(), kernels = weight.permute({0, 2, 3, 1}).contiguous();
  // A row of sums for each filter, as long as whole registers; and the sums of one image first, which stay exact.
  const int64_t wide = (s.taps() + 7) / 8 * 8, each = s.oh * s.ow * s.filters;
  TORCH_CHECK(grad.sizes() == places.sizes() && grad.numel() == s.batch * each,
              "agileact: conv_max_pool2d wants a gradient of what it returned");
  TORCH_CHECK(std::max(s.plane(), 4 * s.ow * wide) < INT32_MAX, "agileact: conv_max_pool2d wants smaller images");
  const Floats sums(s.filters * wide), total(sums.n), of_bias(s.filters);
  const Floats padded(s.plane() + 4), to_padded(want_x ? s.plane() : 0), patches(rows ? 0 : 4 * s.ow * wide + 4);
  std::vector<int32_t> offsets(rows ? each : s.ow * s.filters);
  Tensor to_x = want_x ? at::empty({s.batch, s.c, s.h, s.w}, x.options().memory_format(last))
                       : at::empty({0}, x.options());
  for (int64_t n = 0; n < s.batch; ++n) {
    pad(s, images.const_data_ptr<float>() + n * s.h * s.w * s.c, padded.data());
    sums.clear();
    to_padded.clear();
    const float* own = g.const_data_ptr<float>() + n * each;
    const uint8_t* where = picked.const_data_ptr<uint8_t>() + n * each;
    sum(own, s.filters, s.oh * s.ow, of_bias.data());
    if (rows) {
      backward_rows(s, own, where, padded.data(), kernels.const_data_ptr<float>(), offsets.data(), sums.data(),
                    want_x ? to_padded.data() : nullptr);
    } else if (s.c == 1 && s.kh == 3 && s.kw == 3 && s.filters % lanes == 0) {
      backward_one_channel<lanes>(s, own, where, padded.data(), sums.data(), wide);
    } else {
      const auto run = s.run() == 3 ? backward_patches<3> : backward_patches<0>;
      run(s, own, where, padded.data(), patches.data(), offsets.data(), sums.data(), wide);
    }
    for (int64_t i = 0; i < sums.n; i += 8) store<8>(total.data() + i, load<8>(total.data() + i) + load<8>(sums.data() + i));
    for (int64_t row = 0; want_x && row < s.h; ++row) {
      std::memcpy(to_x.mutable_data_ptr<float>() + (n * s.h + row) * s.w * s.c,
                  to_padded.data() + (row + s.ph) * s.line() + s.pw * s.c, sizeof(float) * s.w * s.c);
    }
  }
  Tensor to_weight = at::empty({s.filters, s.kh, s.kw, s.c}, weight.options());
  float* to = to_weight.mutable_data_ptr<float>();
  for (int64_t f = 0; f < s.filters; ++f) std::copy_n(total.data() + f * wide, s.taps(), to + f * s.taps());
  return {to_x, to_weight.permute({0, 3, 1, 2}), of_bias.memory};
}

}  // namespace

TORCH_LIBRARY_IMPL(agileact, CPU, m) {
  m.impl("conv_max_pool2d", conv_max_pool2d);
  m.impl("conv_max_pool2d_backward", conv_max_pool2d_backward);
}

}  // namespace agileact
