// The loops of csrc/loops.h under AddressSanitizer and UBSan, against plain loops in double: every array has exactly the
// length that a call may touch. docs/sanitizers.md has the command.
#include "loops.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>

using namespace agileact;

namespace {

// Memory that begins with a line of the cache, as PyTorch's does: without it no result is written past the caches.
struct Free {
  void operator()(void* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
};
template <typename N>
using Array = std::unique_ptr<N[], Free>;
template <typename N>
Array<N> array(int64_t n) {
  return Array<N>(static_cast<N*>(::operator new[](n * sizeof(N), std::align_val_t(64))));
}

template <typename N>
Array<N> numbers(int64_t n, int64_t seed) {
  Array<N> made = array<N>(n);
  for (int64_t i = 0; i < n; ++i) {
    made[i] = static_cast<N>(static_cast<float>((i * 7 + seed * 13) % 19 - 9) / 8);  // exact in every type
  }
  return made;
}

void demand(bool fine, const char* what, const Geometry& g) {
  if (!fine) {
    std::printf("%s differs at %ld x %ld x %ld\n", what, long(g.outer), long(g.params), long(g.inner));
    std::exit(1);
  }
}

template <typename T>
void check(const Geometry& g, double close) {
  using A = acc_t<T>;
  using V = vec_t<T>;
  const int64_t n = g.numel(), p = g.params;
  const auto x = numbers<T>(n, 1), y = numbers<T>(n, 2), w = numbers<T>(n, 3);
  const auto a = numbers<A>(p, 4), b = numbers<A>(p, 5);
  const auto out = array<T>(n), second = array<T>(n), own = array<T>(n);
  const auto first_sum = array<double>(p), second_sum = array<double>(p);
  const auto at = [&](int64_t i) { return i / g.inner % p; };

  run<T, 1, 1, 2, 0>(g, {{x.get()}, {out.get()}, {a.get(), b.get()}, {}},
                     [](const V* in, const V* tab, V* to, V*) { to[0] = tab[0] * (in[0] - tab[1]); });
  std::copy_n(x.get(), n, own.get());  // in place
  run<T, 1, 1, 2, 0>(g, {{own.get()}, {own.get()}, {a.get(), b.get()}, {}},
                     [](const V* in, const V* tab, V* to, V*) { to[0] = tab[0] * (in[0] - tab[1]); });
  for (int64_t i = 0; i < n; ++i) {
    const T want = static_cast<T>(a[at(i)] * (static_cast<A>(x[i]) - b[at(i)]));
    demand(out[i] == want && own[i] == want, "forward", g);
  }
  run<T, 3, 2, 2, 2>(g, {{x.get(), y.get(), w.get()}, {out.get(), second.get()}, {a.get(), b.get()},
                         {first_sum.get(), second_sum.get()}},
                     [](const V* in, const V* tab, V* to, V* acc) {
                       to[0] = tab[0] * in[1];
                       to[1] = in[2] - tab[1];
                       acc[0] = at::vec::fmadd(in[0], in[1], acc[0]);
                       acc[1] = acc[1] + tab[1] * in[2];
                     });
  std::unique_ptr<double[]> wanted(new double[2 * p]());
  for (int64_t i = 0; i < n; ++i) {
    demand(out[i] == static_cast<T>(a[at(i)] * static_cast<A>(y[i])), "the first output", g);
    demand(second[i] == static_cast<T>(static_cast<A>(w[i]) - b[at(i)]), "the second output", g);
    wanted[at(i)] += static_cast<double>(x[i]) * static_cast<double>(y[i]);
    wanted[p + at(i)] += static_cast<double>(b[at(i)]) * static_cast<double>(w[i]);
  }
  for (int64_t c = 0; c < p; ++c) {
    const double unit = 1 + static_cast<double>(n / p);
    demand(std::abs(first_sum[c] - wanted[c]) <= close * unit, "the first sum", g);
    demand(std::abs(second_sum[c] - wanted[p + c]) <= close * unit, "the second sum", g);
  }
}

}  // namespace

int main() {
  const Geometry shapes[] = {
      {1, 1, 1},   {1, 1, 37},    {3, 1, 50000}, {4, 3, 1},    {5, 7, 3},     {64, 64, 1},  {9, 64, 1},    {7, 32, 1},
      {33, 17, 1}, {40, 1030, 1}, {6, 2500, 1},  {10, 3, 31},  {5, 5, 32},    {2, 7, 33},   {100, 4, 49},  {5, 2, 65},
      {30, 8, 196}, {2, 300, 70}, {33, 8, 226},  {2, 3, 20000}, {3, 600, 2},  {2, 130, 9},  {17, 1, 1},    {1, 2, 16385},
  };
  for (const Geometry& g : shapes) {
    check<float>(g, 1e-6);
    check<double>(g, 1e-14);
    check<c10::BFloat16>(g, 1e-6);
    check<c10::Half>(g, 1e-6);
  }
  // Results of 16 MiB and more.
  const Geometry large[] = {{2, 7, 300001}, {550, 30, 257}, {66000, 64, 1}, {4097, 1024, 1}, {4200, 1001, 1}};
  for (const Geometry& g : large) {
    check<float>(g, 1e-6);
    check<double>(g, 1e-14);
    check<c10::BFloat16>({2 * g.outer, g.params, g.inner}, 1e-6);
    check<c10::Half>({2 * g.outer, g.params, g.inner}, 1e-6);
  }
  std::printf("%zu shapes, four types: nothing found\n", std::size(shapes) + std::size(large));
}
