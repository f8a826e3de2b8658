// What the nodes of autograd share.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include <functional>
#include <initializer_list>
#include <memory>
#include <type_traits>

#include "layout.h"

namespace agileact {

// PyTorch moved its nodes from std::shared_ptr to its own counted pointer; either will do.
using NodePtr = decltype(torch::autograd::Edge::function);

template <typename N, typename P = NodePtr>
auto make_node() {
  if constexpr (std::is_same_v<P, std::shared_ptr<torch::autograd::Node>>) {
    return std::shared_ptr<N>(new N());
  } else {
    return c10::make_intrusive<N>();
  }
}

// A template of the pointer, too: the other branch does not compile for it.
template <typename N, typename P = NodePtr>
P pointer_to(N* node) {
  if constexpr (std::is_same_v<P, std::shared_ptr<torch::autograd::Node>>) {
    return node->shared_from_this();
  } else {
    return P::unsafe_reclaim_from_nonowning(node);
  }
}

inline const at::Tensor& value(const OptionalTensor& t) {
  static const at::Tensor none;
  return t.has_value() ? *t : none;
}
inline OptionalTensor option(const at::Tensor& t) { return t.defined() ? OptionalTensor(t) : std::nullopt; }
// As collect_next_edges, but in memory that is got once.
inline torch::autograd::edge_list edges_to(std::initializer_list<std::reference_wrapper<const at::Tensor>> tensors) {
  torch::autograd::edge_list edges;
  edges.reserve(tensors.size());
  for (const at::Tensor& t : tensors) {
    edges.push_back(t.defined() ? torch::autograd::impl::gradient_edge(t) : torch::autograd::Edge());
  }
  return edges;
}
inline bool tracked(const at::Tensor& t) { return t.defined() && t.requires_grad(); }
inline bool tracked(const OptionalTensor& t) { return t.has_value() && tracked(*t); }
inline bool has_tangent(const at::Tensor& t) { return t.defined() && t._fw_grad(0).defined(); }

// An ordinary CPU tensor, no tracing, no transform: its numbers can be read here and now, and the kernels can be called
// without the dispatcher.
inline bool ordinary(const at::Tensor& t) {
  using K = c10::DispatchKey;
  constexpr c10::DispatchKeySet special({K::Python, K::Functionalize, K::FuncTorchBatched, K::FuncTorchGradWrapper,
                                         K::Fake, K::ZeroTensor});
  return !t.defined() || (t.device().is_cpu() && !t.key_set().has_any(special) && t.has_storage());
}
template <typename... Ts>
bool ordinary(const at::Tensor& first, const Ts&... rest) {
  return ordinary(first) && ordinary(rest...);
}
inline bool observed() { return c10::impl::TorchDispatchModeTLS::any_modes_set(); }

}  // namespace agileact
