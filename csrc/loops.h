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
constexpr int64_t kMaxColumns = 1024;    // columns of a tile: tables and sums stay in the first cache

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

// One pack, or its first n elements, at `at`.
template <typename T, int NI, int NO, typename Io, typename Op, typename Tab, typename Acc, typename Whole>
AGILEACT_INLINE void part(const Io& io, const Op& op, int64_t at, const Tab& tab, Acc& acc, Whole, int64_t n) {
  using V = vec_t<T>;
  constexpr bool full = Whole::value;
  Pack<T> in[NI], out[NO];
  AGILEACT_UNROLL for (int k = 0; k < NI; ++k) {
    in[k] = full ? Pack<T>::load(io.in[k] + at) : Pack<T>::load(io.in[k] + at, n);
  }
  AGILEACT_UNROLL for (int half = 0; half < 2; ++half) {
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
    full ? out[k].store(io.out[k] + at) : out[k].store(io.out[k] + at, n);
  }
}

// Each parameter's elements lie in runs of `inner`: the parameters are loaded once a run.
template <typename T, int NI, int NO, int NT, int NA, typename Op>
void run_rows(const Geometry& g, const Streams<T, NI, NO, NT, NA>& io, const Op& op) {
  using V = vec_t<T>;
  using A = acc_t<T>;
  constexpr int64_t step = kStep<T>;
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

  each_tile(row_tiles * column_tiles * segments, rows * columns * segment, [&](int64_t tile) {
    const int64_t s = tile % segments;
    const int64_t c0 = tile / segments % column_tiles * columns;
    const int64_t r0 = tile / segments / column_tiles * rows;
    const int64_t c1 = std::min(c0 + columns, g.params);
    const int64_t r1 = std::min(r0 + rows, g.outer);
    const int64_t start = s * segment;
    const int64_t n = std::min(segment, g.inner - start);
    // Numbers, not vectors: those would all be set to zero first.
    alignas(64) A block[NA > 0 ? NA : 1][256 * V::size()];
    const auto tail = [&](const V* in, const V* tab, V* out, V* sums, int64_t count, V* acc) {
      AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
        sums[k] = V(0);
      }
      op(in, tab, out, sums);
      // The lanes behind the end computed something (0 * inf, say): it must not count.
      const V valid = first_lanes<V>(count);
      AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
        acc[k] = acc[k] + (sums[k] & valid);
      }
    };
    for (int64_t r = r0; r < r1; ++r) {
      for (int64_t c = c0; c < c1; ++c) {
        const int64_t at = (r * g.params + c) * g.inner + start;
        V tab[NT > 0 ? NT : 1];
        AGILEACT_UNROLL for (int t = 0; t < NT; ++t) {
          tab[t] = V(io.tab[t][c]);
        }
        const V* const both[2] = {tab, tab};
        V acc[2][NA > 0 ? NA : 1];
        AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
          acc[0][k] = V(0);
          acc[1][k] = V(0);
        }
        int64_t i = 0;
        for (; i + step <= n; i += step) {
          part<T, NI, NO>(io, op, at + i, both, acc, std::true_type(), step);
        }
        if constexpr (std::is_same_v<T, A>) {
          // One vector at a time: short runs are mostly ends.
          for (int half = 0; i < n; ++half, i += V::size()) {
            const int64_t count = std::min<int64_t>(V::size(), n - i);
            V vi[NI], vo[NO], va[NA > 0 ? NA : 1];
            AGILEACT_UNROLL for (int k = 0; k < NI; ++k) {
              vi[k] = load_first(io.in[k] + at + i, count);
            }
            tail(vi, tab, vo, va, count, acc[half]);
            AGILEACT_UNROLL for (int k = 0; k < NO; ++k) {
              store_first(vo[k], io.out[k] + at + i, count);
            }
          }
        } else if (i < n) {
          Pack<T> in[NI], out[NO];
          AGILEACT_UNROLL for (int k = 0; k < NI; ++k) {
            in[k] = Pack<T>::load(io.in[k] + at + i, n - i);
          }
          AGILEACT_UNROLL for (int half = 0; half < 2; ++half) {
            V vi[NI], vo[NO], va[NA > 0 ? NA : 1];
            AGILEACT_UNROLL for (int k = 0; k < NI; ++k) {
              vi[k] = in[k].v[half];
            }
            tail(vi, tab, vo, va, n - i - half * V::size(), acc[half]);
            AGILEACT_UNROLL for (int k = 0; k < NO; ++k) {
              out[k].v[half] = vo[k];
            }
          }
          AGILEACT_UNROLL for (int k = 0; k < NO; ++k) {
            out[k].store(io.out[k] + at + i, n - i);
          }
        }
        AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
          const V sum = acc[0][k] + acc[1][k];
          A* const own = block[k] + (c - c0) * V::size();
          (r == r0 ? sum : V::loadu(own) + sum).store(own);
        }
      }
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
  const bool repeated = period != g.params;
  Scratch<A> storage;
  storage.resize_for_overwrite(repeated ? NT * period : 0);
  std::array<const A*, NT> tab = io.tab;
  if (repeated) {
    AGILEACT_UNROLL for (int t = 0; t < NT; ++t) {
      A* to = storage.data() + t * period;
      for (int64_t c = 0; c < g.params; ++c) {
        std::fill_n(to + c * g.inner, g.inner, io.tab[t][c]);
      }
      for (int64_t i = short_period; i < period; i += short_period) {
        std::memcpy(to + i, to, short_period * sizeof(A));
      }
      tab[t] = to;
    }
  }
  const int64_t all_rows = ceil_div(total, period);
  const int64_t columns = std::min(period, kMaxColumns);
  const int64_t rows = std::clamp<int64_t>(tile_elements(total) / columns, 1, all_rows);
  const int64_t column_tiles = ceil_div(period, columns);
  const int64_t row_tiles = ceil_div(all_rows, rows);
  Scratch<A> partial;
  partial.resize_for_overwrite(NA * row_tiles * period);

  each_tile(row_tiles * column_tiles, rows * columns, [&](int64_t tile) {
    const int64_t c0 = tile % column_tiles * columns;
    const int64_t c1 = std::min(c0 + columns, period);
    const int64_t r0 = tile / column_tiles * rows;
    const int64_t r1 = std::min(r0 + rows, all_rows);
    A block[NA > 0 ? NA : 1][kMaxColumns];
    AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
      std::fill_n(block[k], c1 - c0, A(0));
    }
    // Columns [c, c + n) of row r. Rows one after the other, as they lie in memory: taking two or four at once to
    // share their tables and sums was measured to be slower, for the jumps.
    const auto patch = [&](int64_t r, int64_t c, auto whole, int64_t n) {
      constexpr bool full = decltype(whole)::value;
      V t[2][NT > 0 ? NT : 1];
      V acc[2][NA > 0 ? NA : 1];
      AGILEACT_UNROLL for (int k = 0; k < NT; ++k) {
        const Pack<A> p = full ? Pack<A>::load(tab[k] + c) : Pack<A>::load(tab[k] + c, n);
        t[0][k] = p.v[0];
        t[1][k] = p.v[1];
      }
      AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
        const Pack<A> p = full ? Pack<A>::load(block[k] + c - c0) : Pack<A>::load(block[k] + c - c0, n);
        acc[0][k] = p.v[0];
        acc[1][k] = p.v[1];
      }
      part<T, NI, NO>(io, op, r * period + c, t, acc, whole, n);
      AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
        const Pack<A> p{{acc[0][k], acc[1][k]}};
        full ? p.store(block[k] + c - c0) : p.store(block[k] + c - c0, n);
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
      for (; r < r1 && (r + 1) * period <= total; ++r) {
        AGILEACT_UNROLL for (int pack = 0; pack < 2; ++pack) {
          part<T, NI, NO>(io, op, r * period + pack * step, t[pack], acc[pack], std::true_type(), step);
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
      for (; c + step <= end; c += step) {
        patch(r, c, std::true_type(), step);
      }
      if (c < end) {
        patch(r, c, std::false_type(), end - c);
      }
    }
    AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
      std::copy_n(block[k], c1 - c0, partial.data() + (r0 / rows * NA + k) * period + c0);
    }
  });
  if constexpr (NA > 0) {
    Scratch<double> totals;
    totals.resize_for_overwrite(NA * period);
    add_slices(partial.data(), row_tiles, NA * period, totals.data());
    AGILEACT_UNROLL for (int k = 0; k < NA; ++k) {
      std::fill_n(io.sums[k], g.params, 0.0);
      for (int64_t i = 0; i < period; i += short_period) {
        for (int64_t c = 0; c < g.params; ++c) {
          for (int64_t j = 0; j < g.inner; ++j) {
            io.sums[k][c] += totals[k * period + i + c * g.inner + j];
          }
        }
      }
    }
  }
}

// Whether a parameter stays the same for long enough to be kept in a register.
inline bool in_rows(const Geometry& g) {
  return g.params == 1 || (g.inner > 1 && (g.inner >= 64 || g.params * g.inner > kMaxColumns));
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
