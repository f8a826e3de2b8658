// Calls the loops on made-up numbers for instructions.py: one call by each line of the form "pass base dtype elements".
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <valgrind/callgrind.h>

#include <iostream>
#include <map>
#include <string>

#include "kernels.h"
#include "layout.h"

int main() {
  using namespace agileact;
  at::set_num_threads(1);
  const std::map<std::string, at::ScalarType> dtypes{
      {"float32", at::kFloat}, {"bfloat16", at::kBFloat16}, {"float16", at::kHalf}};
  std::string pass, base, dtype;
  int64_t n = 0;
  while (std::cin >> pass >> base >> dtype >> n) {
    const auto type = dtypes.at(dtype);
    const Formula formula = formula_of(base, base == "softplus" || base == "elu" ? 1 : 0.01, 20);
    // One channel in two: rows of n / 2 elements.
    const Geometry geometry{1, 2, n / 2};
    const auto x = at::linspace(-4, 4, n).to(type), grad = at::ones_like(x), out = at::empty_like(x);
    const float scale[] = {1.5f, 0.75f}, location[] = {0.25f, -0.25f}, inverse[] = {1 / 1.5f, 1 / 0.75f};
    double sums[4] = {};
    const bool from_output = pass == "from-output";
    const auto call = [&] {
      if (pass == "forward") {
        forward(type, formula, geometry, {x.const_data_ptr(), out.mutable_data_ptr(), scale, location, 0});
      } else {
        backward(type, formula, geometry,
                 {grad.const_data_ptr(), x.const_data_ptr(), out.mutable_data_ptr(), scale,
                  from_output ? inverse : location, from_output, sums, sums + 2});
      }
    };
    call();
    CALLGRIND_ZERO_STATS;
    call();
    // The request reads the text after its macro has let go of a temporary.
    const std::string label = pass + " " + base + " " + dtype + " " + std::to_string(n);
    CALLGRIND_DUMP_STATS_AT(label.c_str());
  }
}
