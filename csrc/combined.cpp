// Sums of several activations of one input, in one pass over memory: a chunk of it is read into the first cache in the
// arithmetic's type, every term works on it there, and the result is written. Compiled once for each instruction set.
#include "bases.h"
#include "loops.h"

#include <vector>

namespace agileact {
namespace {

constexpr int64_t kChunk = 512;

// A chunk in the first cache: n numbers each, with room for whole vectors. Parameters and sums of the term at hand:
// one number for the whole chunk, or (each) one for every element.
template <typename A>
struct Chunk {
  int64_t n;
  bool first;  // the first term overwrites the outputs, the others add
  const A *x, *grad, *tangent;
  A *out, *second_out;
  const A *scale, *location, *tangent_scale, *tangent_location;
  A *sum_f, *sum_d;
};

enum class Pass { kForward, kBackward, kDoubleBackward };

template <Pass pass, bool each, typename A>
void term(const Formula& formula, const Chunk<A>& c) {
  using V = at::vec::Vectorized<A>;
  constexpr int64_t W = V::size();
  with_base<V>(formula, [&](const auto& base) {
    const auto parameter = [&](const A* from, int64_t i, int64_t n) {
      return each ? V::loadu(from + i, n) : V(*from);
    };
    V total_f(0), total_d(0);
    for (int64_t i = 0; i < c.n; i += W) {
      const int64_t n = std::min(W, c.n - i);
      const V a = parameter(c.scale, i, n);
      const V z = V::loadu(c.x + i) - parameter(c.location, i, n);
      const auto put = [&](A* to, V value) { (c.first ? value : V::loadu(to + i) + value).store(to + i); };
      V sum_f(0), sum_d(0);
      if constexpr (pass == Pass::kForward) {
        put(c.out, a * base.f(z));
        continue;
      } else if constexpr (pass == Pass::kBackward) {
        V f, d;
        base.at(z, f, d);
        const V g = V::loadu(c.grad + i);
        sum_f = g * f;
        sum_d = g * d;
        put(c.out, a * sum_d);
      } else {
        // The sums of the single activation's double_backward_as, term by term.
        V f, d, e;
        base.at(z, f, d, e);
        const V g = V::loadu(c.grad + i);
        const V t = V::loadu(c.tangent + i) - parameter(c.tangent_location, i, n);
        const V v = parameter(c.tangent_scale, i, n), ta = t * a;
        put(c.out, ta * d + v * f);
        sum_f = g * t * d;
        sum_d = g * (ta * e + v * d);
        put(c.second_out, sum_d);
      }
      if constexpr (each) {
        (V::loadu(c.sum_f + i, n) + sum_f).store(c.sum_f + i, n);
        (V::loadu(c.sum_d + i, n) + sum_d).store(c.sum_d + i, n);
      } else {
        const V valid = first_lanes<V>(n);
        total_f = total_f + (sum_f & valid);
        total_d = total_d + (sum_d & valid);
      }
    }
    if constexpr (!each && pass != Pass::kForward) {
      *c.sum_f += sum_lanes(total_f);
      *c.sum_d += sum_lanes(total_d);
    }
  });
}

template <typename T>
void fetch(const T* from, int64_t n, acc_t<T>* to) {
  for (int64_t i = 0; i < n; i += kStep<T>) {
    const Pack<T> p = Pack<T>::load(from + i, std::min(kStep<T>, n - i));
    p.v[0].store(to + i);
    p.v[1].store(to + i + vec_t<T>::size());
  }
}

template <typename T>
void deliver(const acc_t<T>* from, int64_t n, T* to) {
  for (int64_t i = 0; i < n; i += kStep<T>) {
    Pack<T>{{vec_t<T>::loadu(from + i), vec_t<T>::loadu(from + i + vec_t<T>::size())}}.store(
        to + i, std::min(kStep<T>, n - i));
  }
}

template <typename T>
struct Tensors {
  const T *x, *grad, *tangent;
  T *out, *second_out;
  const acc_t<T>*scale, *location, *tangent_scale, *tangent_location;
  int64_t terms;
  double *sum_f, *sum_d;
  int64_t repeats = 1;  // of the rows of parameters, so that a row is worth a loop
};

// Runs of one parameter each (inner > 1), or rows of parameters. Blocks follow from the shape alone, and are added
// in order: equal bits for any number of threads.
template <Pass pass, bool each, typename T>
void run_terms(const Formula& formula, const Geometry& g, const Tensors<T>& io) {
  using A = acc_t<T>;
  // A run, and what it repeats over: rows of params numbers, or rows of params runs of inner numbers.
  const int64_t period = g.params * g.inner, total = g.numel();
  const int64_t columns = each ? period * io.repeats : g.inner, runs = each ? 1 : g.params;
  const int64_t outer = each ? ceil_div(total, columns) : g.outer;
  const int64_t width = std::min(columns, each ? kChunk : kSegment);
  const int64_t pieces = ceil_div(columns, width);
  const int64_t rows = std::clamp<int64_t>(tile_elements(g.numel()) / width, 1, outer);
  const int64_t slices = ceil_div(outer, rows);
  const int64_t own = each ? width : 1;  // sums of a tile, a term
  const int64_t tiles = slices * runs * pieces;
  const int64_t n = io.terms;
  const bool sums = pass != Pass::kForward;
  std::unique_ptr<A[]> partial(sums ? new A[2 * n * own * tiles] : nullptr);
  each_tile(tiles, rows * width, [&](int64_t tile) {
    const int64_t piece = tile % pieces, run = tile / pieces % runs, r0 = tile / pieces / runs * rows;
    const int64_t c0 = piece * width, c1 = std::min(c0 + width, columns);
    A* const mine = sums ? partial.get() + 2 * n * own * tile : nullptr;
    if (sums) {
      std::fill_n(mine, 2 * n * own, A(0));
    }
    alignas(64) A x[kChunk + kStep<T>], grad[kChunk + kStep<T>], tangent[kChunk + kStep<T>];
    alignas(64) A out[kChunk + kStep<T>], second[kChunk + kStep<T>];
    for (int64_t r = r0; r < std::min(r0 + rows, outer); ++r) {
      for (int64_t c = c0; c < c1; c += kChunk) {
        const int64_t at = (r * runs + run) * columns + c;
        // The last row may stop short.
        const int64_t count = std::min({kChunk, c1 - c, total - at});
        if (count <= 0) {
          break;
        }
        fetch<T>(io.x + at, count, x);
        if (sums) {
          fetch<T>(io.grad + at, count, grad);
        }
        if (pass == Pass::kDoubleBackward) {
          fetch<T>(io.tangent + at, count, tangent);
        }
        for (int64_t j = 0; j < n; ++j) {
          const int64_t p = j * (each ? columns : runs) + (each ? c : run);
          const bool twice = pass == Pass::kDoubleBackward;
          term<pass, each, A>(formula, {count, j == 0, x, grad, tangent, out, second, io.scale + p, io.location + p,
                                        twice ? io.tangent_scale + p : nullptr,
                                        twice ? io.tangent_location + p : nullptr, sums ? mine + 2 * j * own : nullptr,
                                        sums ? mine + (2 * j + 1) * own : nullptr});
        }
        deliver<T>(out, count, io.out + at);
        if (pass == Pass::kDoubleBackward) {
          deliver<T>(second, count, io.second_out + at);
        }
      }
    }
  });
  for (int64_t tile = 0; sums && tile < tiles; ++tile) {
    const int64_t piece = tile % pieces, run = tile / pieces % runs;
    const A* mine = partial.get() + 2 * n * own * tile;
    for (int64_t j = 0; j < n; ++j) {
      const int64_t count = each ? std::min(width, columns - piece * width) : 1;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t p = j * g.params + (each ? (piece * width + i) % period / g.inner : run);
        io.sum_f[p] += static_cast<double>(mine[2 * j * own + i]);
        io.sum_d[p] += static_cast<double>(mine[(2 * j + 1) * own + i]);
      }
    }
  }
}

template <typename T>
void spread(const Geometry& g, const Tensors<T>& io, const acc_t<T>*& table, std::vector<acc_t<T>>& storage) {
  if (table == nullptr || (g.inner == 1 && io.repeats == 1)) {
    return;
  }
  storage.reserve(io.terms * io.repeats * g.params * g.inner);
  for (int64_t j = 0; j < io.terms; ++j) {
    for (int64_t i = 0; i < io.repeats * g.params; ++i) {
      storage.insert(storage.end(), g.inner, table[j * g.params + i % g.params]);
    }
  }
  table = storage.data();
}

template <Pass pass, typename T>
void go(const Formula& formula, const Geometry& g, Tensors<T> io) {
  if (g.params == 1) {
    return run_terms<pass, false, T>(formula, {1, 1, g.numel()}, io);
  }
  if (g.inner >= 32) {
    return run_terms<pass, false, T>(formula, g, io);
  }
  io.repeats = ceil_div(256, g.params * g.inner);
  std::vector<acc_t<T>> storage[4];
  spread<T>(g, io, io.scale, storage[0]);
  spread<T>(g, io, io.location, storage[1]);
  spread<T>(g, io, io.tangent_scale, storage[2]);
  spread<T>(g, io, io.tangent_location, storage[3]);
  run_terms<pass, true, T>(formula, g, io);
}

}  // namespace

void combined(c10::ScalarType dtype, const Formula& formula, const Geometry& g, const CombinedForward& call) {
  with_any_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = acc_t<T>;
    go<Pass::kForward, T>(formula, g,
                          {static_cast<const T*>(call.x), nullptr, nullptr, static_cast<T*>(call.y), nullptr,
                           static_cast<const A*>(call.scale), static_cast<const A*>(call.location), nullptr, nullptr,
                           call.terms, nullptr, nullptr});
  });
}

void combined_backward(c10::ScalarType dtype, const Formula& formula, const Geometry& g, const CombinedBackward& call) {
  with_any_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = acc_t<T>;
    go<Pass::kBackward, T>(formula, g,
                           {static_cast<const T*>(call.x), static_cast<const T*>(call.grad), nullptr,
                            static_cast<T*>(call.grad_x), nullptr, static_cast<const A*>(call.scale),
                            static_cast<const A*>(call.location), nullptr, nullptr, call.terms, call.sum_f,
                            call.sum_d});
  });
}

void combined_double_backward(const Formula& formula, const Geometry& g, const CombinedDoubleBackward& call) {
  using T = double;
  go<Pass::kDoubleBackward, T>(
      formula, g,
      {static_cast<const T*>(call.x), static_cast<const T*>(call.grad), static_cast<const T*>(call.tangent_x),
       static_cast<T*>(call.grad_grad), static_cast<T*>(call.grad_x), static_cast<const T*>(call.scale),
       static_cast<const T*>(call.location), static_cast<const T*>(call.tangent_scale),
       static_cast<const T*>(call.tangent_location), call.terms, call.sum_scale, call.sum_x});
}

}  // namespace agileact
