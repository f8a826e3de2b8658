// One pass over tensors whose parameters repeat along them, with sums for each parameter.
//
// run<T, NI, NO, NT, NA>(...) calls op(in, tab, out, acc) on vectors: NI inputs, NO outputs, NT tables (one
// number a parameter) and NA sums a parameter. How the elements fall into blocks, and in what order the blocks'
// partial sums are added, depends on the shape alone, so the sums have the same bits for any number of threads.
// Within a block sums are kept in the arithmetic's type, in vectors; blocks are added in double.
#pragma once

#include <ATen/Parallel.h>

#include "kernels.h"
#include "pack.h"

#include <c10/util/SmallVector.h>

#include <array>
#include <cstring>
#include <memory>

// Without it the compiler keeps the small arrays of vectors in memory.
#define AGILEACT_UNROLL _Pragma("GCC unroll 8")
// Likewise: arrays of vectors that are handed to a real call live in memory.
#define AGILEACT_INLINE inline __attribute__((always_inline))

namespace agileact {
namespace {

constexpr int64_t kGrain = 32768;        // as ATen: below it a second thread costs more than it brings
constexpr int64_t kSegment = 16384;      // the longest run that one accumulator adds up
constexpr int64_t kShortRun = 32;        // elements with one parameter: from here on they are worth a run
constexpr int64_t kMaxColumns = 1024;    // columns of a tile: tables and sums stay in the first cache
constexpr int64_t kFar = int64_t{1} << 24;  // bytes of a result from which it is written past the caches

// Numbers for a call: on the stack where they are few, as malloc takes longer than a small tensor does.
template <typename A>
using Scratch = c10::SmallVector<A, 1024>;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int64_t tile_elements(int64_t numel) {
  return std::clamp<int64_t>(numel / 64, 16384, 262144);
}

template <typename F>
inline void each_tile(int64_t tiles, int64_t elements, const F& body) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, elements));
  at::parallel_for(0, tiles, grain, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      body(tile);
    }
  });
}

// partial is [slices][sums]; the slices are added in order.
template <typename A>
void add_slices(const A* partial, int64_t slices, int64_t sums, double* total) {
  at::parallel_for(0, sums, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, slices)), [&](int64_t begin, int64_t end) {
    std::fill(total + begin, total + end, 0.0);
    for (int64_t s = 0; s < slices; ++s) {
      const A* from = partial + s * sums;
      _Pragma("omp simd") for (int64_t i = begin; i < end; ++i) {
        total[i] += static_cast<double>(from[i]);
      }
    }
  });
}

template <typename T, int NI, int NO, int NT, int NA>
struct Streams {
  std::array<const T*, NI> in;
  std::array<T*, NO> out;
  std::array<const acc_t<T>*, NT> tab;
  std::array<double*, NA> sums;
};

// Whether results go to memory past the caches. Otherwise each of their lines is read before it is written, and pushes out
// a line of what may be needed again; of a result of this size nothing is left there for the next one who reads it.
template <typename T, size_t NO>
inline bool far(int64_t numel, const std::array<T*, NO>& out) {
  return kPast && numel * static_cast<int64_t>(sizeof(T)) >= kFar &&
         std::all_of(out.begin(), out.end(), [](T* to) { return reinterpret_cast<uintptr_t>(to) % 64 == 0; });
}

// The vectors at `at`.
template <typename T, int H, int NI, int NO, bool past = false, typename Io, typename Op, typename Tab, typename Acc>
AGILEACT_INLINE void whole(const Io& io, const Op& op, int64_t at, const Tab& tab, Acc& acc) {
  using V = vec_t<T>;
  Lanes<T, H> in[NI], out[NO];
  AGILEACT_UNROLL for (int k = 0; k < NI; ++k) {
    in[k] = Lanes<T, H>::load(io.in[k] + at);
  }
  AGILEACT_UNROLL for (int half = 0; half < H; ++half) {
    V vi[NI], vo[NO];
    AGILEACT_UNROLL for (int k = 0; k < NI; ++k) {
      vi[k] = in[k].v[half];
    }
    op(vi, tab[half], vo, acc[half]);
    AGILEACT_UNROLL for (int k = 0; k < NO; ++k) {
      out[k].v[half] = vo[k];
    }
  }
  AGILEACT_UNROLL for (int k = 0; k < NO; ++k) {
    out[k].template store<past>(io.out[k] + at);
  }
}

// Their first n elements, fewer than a pack. A call, for its many copies would take the compiler long: hence the sums of its
// own, which leave the caller's in registers.
template <typename T, int NI, int NO, int NA, typename Io, typename Op, typename Tab>
__attribute__((noinline)) void ragged_sums(const Io& io, const Op& op, int64_t at, int64_t n, const Tab& tab,
                                           vec_t<T> (&acc)[2][NA > 0 ? NA : 1]) {
  using V = vec_t<T>;
  constexpr int H = 2;
  Lanes<T, H> in[NI], out[NO];
  AGILEACT_UNROLL for (int k = 0; k < NI; ++k) {
    in[k] = Lanes<T, H>::load(io.in[k] + at, n);
  }
  AGILEACT_UNROLL for (int half = 0; half < H; ++half) {
    V vi[NI], vo[NO], sums[NA > 0 ? NA : 1];
    AGILEACT_UNROLL for (int k = 0; k < NI; ++k) {
      vi[k] = in[k].v[half];
    }
    AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
      sums[k] = V(0);
    }
    op(vi, tab[half], vo, sums);
    // The lanes behind the end computed something (0 * inf, say): it must not count.
    const V valid = Lanes<T, H>::first(half, n);
    AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
      acc[half][k] = sums[k] & valid;
    }
    AGILEACT_UNROLL for (int k = 0; k < NO; ++k) {
      out[k].v[half] = vo[k];
    }
  }
  AGILEACT_UNROLL for (int k = 0; k < NO; ++k) {
    out[k].store(io.out[k] + at, n);
  }
}
template <typename T, int NI, int NO, int NT, int NA, typename Io, typename Op, typename Tab, typename Acc>
AGILEACT_INLINE void ragged(const Io& io, const Op& op, int64_t at, int64_t n, const Tab& tab, Acc& acc) {
  using V = vec_t<T>;
  V tables[2][NT > 0 ? NT : 1], sums[2][NA > 0 ? NA : 1];
  AGILEACT_UNROLL for (int half = 0; half < 2; ++half) {
    AGILEACT_UNROLL for (int t = 0; t < NT; ++t) {
      tables[half][t] = tab[half][t];
    }
  }
  ragged_sums<T, NI, NO, NA>(io, op, at, n, tables, sums);
  AGILEACT_UNROLL for (int half = 0; half < 2; ++half) {
    AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
      acc[half][k] = acc[half][k] + sums[half][k];
    }
  }
}

// Each parameter's elements lie in runs of `inner`: the parameters are loaded once a run. Runs that follow one another
// are gone through without a break: the vector in which one ends works on the beginning of the next one too, with the
// parameters of both. So no vector of a short run is a part, or lies across two lines of the cache.
template <typename T, int NI, int NO, int NT, int NA, typename Op>
void run_rows(const Geometry& g, const Streams<T, NI, NO, NT, NA>& io, const Op& op) {
  using V = vec_t<T>;
  using A = acc_t<T>;
  constexpr int64_t step = kStep<T>;
  constexpr int H = std::is_same_v<T, A> ? 1 : 2;  // vectors where a run ends
  constexpr int64_t unit = H * V::size();
  const int64_t wanted = tile_elements(g.numel());
  const int64_t segment = std::min(g.inner, kSegment);
  const int64_t segments = ceil_div(g.inner, segment);
  const int64_t columns = segments > 1 ? 1 : std::clamp<int64_t>(wanted / segment, 1, std::min<int64_t>(g.params, 256));
  const int64_t rows = segments > 1 ? 1 : std::clamp<int64_t>(wanted / (segment * columns), 1, g.outer);
  const int64_t column_tiles = ceil_div(g.params, columns);
  const int64_t row_tiles = ceil_div(g.outer, rows);
  const int64_t slices = row_tiles * segments;
  Scratch<A> partial;
  partial.resize_for_overwrite(NA * slices * g.params);
  const bool past = far(g.numel(), io.out);

  each_tile(row_tiles * column_tiles * segments, rows * columns * segment, [&](int64_t tile) {
    const int64_t s = tile % segments;
    const int64_t c0 = tile / segments % column_tiles * columns;
    const int64_t r0 = tile / segments / column_tiles * rows;
    const int64_t c1 = std::min(c0 + columns, g.params);
    const int64_t r1 = std::min(r0 + rows, g.outer);
    const int64_t n = std::min(segment, g.inner - s * segment);
    // Numbers, not vectors: those would all be set to zero first.
    alignas(64) A block[NA > 0 ? NA : 1][256 * V::size()];
    AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
      std::fill_n(block[k], (c1 - c0) * V::size(), A(0));
    }
    // Runs of n elements from `at` on, of the parameters c, c + 1, ..., c1 - 1, c0, ...
    const auto stretch = [&](int64_t at, int64_t c, int64_t runs) {
      // A copy: a vector that is stored may overwrite anything, so that the compiler would read the pointers of `io` anew
      // with each vector.
      const Streams<T, NI, NO, NT, NA> own_io = io;
      V tab[NT > 0 ? NT : 1], next[NT > 0 ? NT : 1];
      V acc[2][NA > 0 ? NA : 1];
      const V* const both[2] = {tab, tab};
      // AVX2 has no registers for two sums beside what bfloat16 is taken apart with.
      V* const adds[2] = {acc[0], acc[Lanes<T>::place(1) == 1 ? 1 : 0]};
      AGILEACT_UNROLL for (int t = 0; t < NT; ++t) {
        tab[t] = V(parameter<T>(io.tab[t][c]));
      }
      AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
        acc[0][k] = V(0);
        acc[1][k] = V(0);
      }
      int64_t i = at, end = at + n;
      if (at % unit != 0 && n >= 8 * unit) {
        i += unit - at % unit;
        ragged<T, NI, NO, NT, NA>(io, op, at, i - at, both, acc);
      }
      const bool own_past = past && i % unit == 0;
      for (int64_t left = runs - 1;; --left) {
        if (const int64_t last = end - step; own_past) {
          for (; i <= last; i += step) {
            whole<T, 2, NI, NO, true>(own_io, op, i, both, adds);
          }
        } else {
          for (; i <= last; i += step) {
            whole<T, 2, NI, NO>(own_io, op, i, both, adds);
          }
        }
        if constexpr (H == 1) {
          if (i + unit <= end) {
            whole<T, 1, NI, NO>(own_io, op, i, both, acc);
            i += unit;
          }
        }
        const int64_t own = end - i, follower = c + 1 == c1 ? c0 : c + 1;
        V begun[2][NA > 0 ? NA : 1];
        AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
          begun[0][k] = V(0);
          begun[1][k] = V(0);
        }
        if (left > 0) {
          AGILEACT_UNROLL for (int t = 0; t < NT; ++t) {
            next[t] = V(parameter<T>(io.tab[t][follower]));
          }
        }
        if (own > 0 && left > 0) {
          V mixed[H][NT > 0 ? NT : 1], sums[H][NA > 0 ? NA : 1];
          AGILEACT_UNROLL for (int half = 0; half < H; ++half) {
            const V mine = Lanes<T, H>::first(half, own);
            AGILEACT_UNROLL for (int t = 0; t < NT; ++t) {
              mixed[half][t] = V::blendv(next[t], tab[t], mine);
            }
            AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
              sums[half][k] = V(0);
            }
          }
          whole<T, H, NI, NO>(own_io, op, i, mixed, sums);
          i += unit;
          AGILEACT_UNROLL for (int half = 0; half < H; ++half) {
            const V mine = Lanes<T, H>::first(half, own);
            AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
              const V ended = sums[half][k] & mine;
              acc[half][k] = acc[half][k] + ended;
              begun[half][k] = sums[half][k] ^ ended;  // what is not there is 0
            }
          }
        } else if (own > 0) {
          ragged<T, NI, NO, NT, NA>(io, op, i, own, both, acc);
        }
        AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
          A* const total = block[k] + (c - c0) * V::size();
          (V::loadu(total) + (acc[0][k] + acc[1][k])).store(total);
          acc[0][k] = begun[0][k];
          acc[1][k] = begun[1][k];
        }
        if (left == 0) {
          break;
        }
        AGILEACT_UNROLL for (int t = 0; t < NT; ++t) {
          tab[t] = next[t];
        }
        c = follower;
        end += n;
      }
    };
    const int64_t beginning = (r0 * g.params + c0) * g.inner + s * segment;
    if (n < unit || segments > 1) {
      for (int64_t r = r0; r < r1; ++r) {
        for (int64_t c = c0; c < c1; ++c) {
          stretch(beginning + ((r - r0) * g.params + c - c0) * g.inner, c, 1);
        }
      }
    } else {
      // All rows at once where the tile has them whole.
      const int64_t together = c1 - c0 == g.params ? r1 - r0 : 1;
      for (int64_t r = r0; r < r1; r += together) {
        stretch(beginning + (r - r0) * g.params * g.inner, c0, together * (c1 - c0));
      }
    }
    if (past) {
      fence();
    }
    if constexpr (NA > 0) {
      const int64_t slice = r0 / rows * segments + s;
      AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
        for (int64_t c = c0; c < c1; ++c) {
          partial[(slice * NA + k) * g.params + c] = sum_lanes(V::loadu(block[k] + (c - c0) * V::size()));
        }
      }
    }
  });
  if constexpr (NA > 0) {
    Scratch<double> total;
    total.resize_for_overwrite(NA * g.params);
    add_slices(partial.data(), slices, NA * g.params, total.data());
    AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
      std::copy_n(total.data() + k * g.params, g.params, io.sums[k]);
    }
  }
}

// The parameters change from element to element: the tensor is a flat row of periods, and the tables are
// repeated until one period is worth a loop.
template <typename T, int NI, int NO, int NT, int NA, typename Op>
void run_periods(const Geometry& g, const Streams<T, NI, NO, NT, NA>& io, const Op& op) {
  using V = vec_t<T>;
  using A = acc_t<T>;
  constexpr int64_t step = kStep<T>;
  const int64_t total = g.numel();
  const int64_t short_period = g.params * g.inner;
  int64_t period = short_period;
  const bool narrow = 2 * step % period == 0;
  if (narrow) {
    period = 2 * step;
  } else if (period < 256) {
    // A whole number of steps where that stays short, so that no row has a ragged end.
    int64_t whole = period;
    while (whole % step != 0 && whole <= 1024) {
      whole += period;
    }
    period = whole <= 1024 ? whole : period;
    period *= ceil_div(256, period);
  }
  // Tables lie as the lanes do, in whole packs.
  constexpr bool moved = Lanes<T>::place(1) != 1;
  const bool repeated = moved || period != g.params;
  const int64_t stride = ceil_div(period, step) * step;
  Scratch<A> storage;
  storage.resize_for_overwrite(repeated ? NT * stride : 0);
  std::array<const A*, NT> tab = io.tab;
  if (repeated) {
    AGILEACT_UNROLL for (int t = 0; t < NT; ++t) {
      A* to = storage.data() + t * stride;
      for (int64_t c = 0; c < g.params; ++c) {
        std::fill_n(to + c * g.inner, g.inner, parameter<T>(io.tab[t][c]));
      }
      for (int64_t i = short_period; i < period; i += short_period) {
        std::memcpy(to + i, to, short_period * sizeof(A));
      }
      std::fill_n(to + period, stride - period, A(1));
      if constexpr (moved) {
        for (int64_t c = 0; c < stride; c += step) {
          A pack[step];
          std::copy_n(to + c, step, pack);
          for (int64_t i = 0; i < step; ++i) {
            to[c + Lanes<T>::place(i)] = pack[i];
          }
        }
      }
      tab[t] = to;
    }
  }
  const int64_t all_rows = ceil_div(total, period);
  const int64_t columns = std::min(period, kMaxColumns);
  const int64_t rows = std::clamp<int64_t>(2 * tile_elements(total) / columns, 1, all_rows);
  const int64_t column_tiles = ceil_div(period, columns);
  const int64_t row_tiles = ceil_div(all_rows, rows);
  Scratch<A> partial;
  partial.resize_for_overwrite(NA * row_tiles * stride);
  const bool past = period % step == 0 && far(total, io.out);

  each_tile(row_tiles * column_tiles, rows * columns, [&](int64_t tile) {
    const int64_t c0 = tile % column_tiles * columns;
    const int64_t c1 = std::min(c0 + columns, period);
    const int64_t r0 = tile / column_tiles * rows;
    const int64_t r1 = std::min(r0 + rows, all_rows);
    alignas(64) A block[NA > 0 ? NA : 1][kMaxColumns];
    AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
      std::fill_n(block[k], ceil_div(c1 - c0, step) * step, A(0));
    }
    // The columns from c on of row r, or the first n of them. Rows one after the other, as they lie in memory: taking two
    // or four at once to share their tables and sums brought a tenth at most, and lost as much elsewhere.
    const Streams<T, NI, NO, NT, NA> own_io = io;  // copies, as above
    const std::array<const A*, NT> own_tab = tab;
    const auto patch = [&](int64_t r, int64_t c, auto full, auto far_away, int64_t n) {
      V t[2][NT > 0 ? NT : 1];
      V acc[2][NA > 0 ? NA : 1];
      AGILEACT_UNROLL for (int k = 0; k < NT; ++k) {
        const Pack<A> p = full.value || repeated ? Pack<A>::load(own_tab[k] + c) : Pack<A>::load(own_tab[k] + c, n);
        t[0][k] = p.v[0];
        t[1][k] = p.v[1];
      }
      AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
        const Pack<A> p = Pack<A>::load(block[k] + c - c0);
        acc[0][k] = p.v[0];
        acc[1][k] = p.v[1];
      }
      if constexpr (full.value) {
        whole<T, 2, NI, NO, far_away.value>(own_io, op, r * period + c, t, acc);
      } else {
        ragged<T, NI, NO, NT, NA>(io, op, r * period + c, n, t, acc);
      }
      AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
        Pack<A>{{acc[0][k], acc[1][k]}}.store(block[k] + c - c0);
      }
    };
    int64_t r = r0;
    if (narrow) {
      // A row is two packs: tables and sums stay in registers from row to row.
      V t[2][2][NT > 0 ? NT : 1];
      V acc[2][2][NA > 0 ? NA : 1];
      AGILEACT_UNROLL for (int pack = 0; pack < 2; ++pack) {
        AGILEACT_UNROLL for (int half = 0; half < 2; ++half) {
          AGILEACT_UNROLL for (int k = 0; k < NT; ++k) {
            t[pack][half][k] = V::loadu(tab[k] + pack * step + half * V::size());
          }
          AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
            acc[pack][half][k] = V(0);
          }
        }
      }
      const int64_t whole_rows = std::min(r1, total / period);
      for (; past && r < whole_rows; ++r) {
        AGILEACT_UNROLL for (int pack = 0; pack < 2; ++pack) {
          whole<T, 2, NI, NO, true>(own_io, op, r * period + pack * step, t[pack], acc[pack]);
        }
      }
      for (; r < whole_rows; ++r) {
        AGILEACT_UNROLL for (int pack = 0; pack < 2; ++pack) {
          whole<T, 2, NI, NO>(own_io, op, r * period + pack * step, t[pack], acc[pack]);
        }
      }
      AGILEACT_UNROLL for (int pack = 0; pack < 2; ++pack) {
        AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
          Pack<A>{{acc[pack][0][k], acc[pack][1][k]}}.store(block[k] + pack * step);
        }
      }
    }
    for (; r < r1; ++r) {
      // The last row may stop short of the period.
      const int64_t end = std::min(c1, total - r * period);
      int64_t c = c0;
      for (; past && c + step <= end; c += step) {
        patch(r, c, std::true_type(), std::true_type(), step);
      }
      for (; c + step <= end; c += step) {
        patch(r, c, std::true_type(), std::false_type(), step);
      }
      if (c < end) {
        patch(r, c, std::false_type(), std::false_type(), end - c);
      }
    }
    if (past) {
      fence();
    }
    AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
      std::copy_n(block[k], ceil_div(c1 - c0, step) * step, partial.data() + (r0 / rows * NA + k) * stride + c0);
    }
  });
  if constexpr (NA > 0) {
    Scratch<double> totals;
    totals.resize_for_overwrite(NA * stride);
    add_slices(partial.data(), row_tiles, NA * stride, totals.data());
    AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
      std::fill_n(io.sums[k], g.params, 0.0);
      for (int64_t i = 0; i < period; i += short_period) {
        for (int64_t c = 0; c < g.params; ++c) {
          for (int64_t j = 0; j < g.inner; ++j) {
            const int64_t at = i + c * g.inner + j;
            io.sums[k][c] += totals[k * stride + (moved ? at / step * step + Lanes<T>::place(at % step) : at)];
          }
        }
      }
    }
  }
}

// Whether a parameter stays the same for long enough to be kept in a register.
inline bool in_rows(const Geometry& g) {
  return g.params == 1 || (g.inner > 1 && (g.inner >= kShortRun || g.params * g.inner > kMaxColumns));
}

template <typename T, int NI, int NO, int NT, int NA, typename Op>
void run(const Geometry& g, const Streams<T, NI, NO, NT, NA>& io, const Op& op) {
  if (!in_rows(g)) {
    return run_periods<T, NI, NO, NT, NA>(g, io, op);
  }
  run_rows<T, NI, NO, NT, NA>(g.params == 1 ? Geometry{1, 1, g.numel()} : g, io, op);
}

}  // namespace
}  // namespace agileact
