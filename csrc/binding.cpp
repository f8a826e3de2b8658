// From Python to the operator without torch.ops, whose way of arguments takes longer than a small tensor does. It belongs to
// one version of Python; where it is not there, torch.ops leads to the same operator.
#include <Python.h>

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/TracerMode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <pybind11/pybind11.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include "nodes.h"

namespace {

using at::Tensor;
using agileact::OptionalTensor;

bool is_a(PyObject* object, PyObject* type) { return reinterpret_cast<PyObject*>(Py_TYPE(object)) == type; }

// What torch.func wraps goes by torch.ops, which leaves its warnings to torch.func.
bool fits(const Tensor& t) {
  const auto dtype = t.scalar_type();
  return t.is_cpu() && agileact::ordinary(t) && t.layout() == at::kStrided && !t.is_nested() &&
         (dtype == at::kFloat || dtype == at::kDouble || dtype == at::kBFloat16 || dtype == at::kHalf);
}

// agile_channels(x, parameters, call, dim, terms, inplace), as agileact.ops has it: None if a check is due.
PyObject* channels(PyObject*, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  static const auto agile = c10::Dispatcher::singleton().findSchemaOrThrow("agileact::agile", "").typed<Tensor(
      const Tensor&, const OptionalTensor&, const OptionalTensor&, std::string_view, double, double, int64_t, int64_t,
      int64_t)>();
  static const auto agile_ = c10::Dispatcher::singleton().findSchemaOrThrow("agileact::agile_", "").typed<Tensor&(
      Tensor&, const OptionalTensor&, const OptionalTensor&, std::string_view, double, double, int64_t, int64_t,
      int64_t)>();
  static PyObject* const names[] = {PyUnicode_InternFromString("scale"), PyUnicode_InternFromString("location")};
  TORCH_CHECK_TYPE(count == 6 && PyDict_Check(args[1]) && PyTuple_Check(args[2]) && PyTuple_GET_SIZE(args[2]) > 0,
                   "agileact: not a call of agile_channels");
  // Modes of torch functions see calls of torch.ops alone, and only there does torch.jit.trace note them down.
  if (!is_a(args[0], THPVariableClass) || at::impl::torch_function_mode_enabled() ||
      at::tracer::impl::is_dispatch_enabled()) {
    Py_RETURN_NONE;
  }
  const int64_t terms = PyLong_AsLongLong(args[4]);
  const bool inplace = PyObject_IsTrue(args[5]) == 1;
  int64_t dim = PyLong_AsLongLong(args[3]);
  if (PyErr_Occurred()) {
    return nullptr;
  }
  Tensor x = THPVariable_Unpack(args[0]);
  const int64_t ndim = x.is_nested() ? 0 : x.dim();
  if (!fits(x) || ndim < 2 || dim < -ndim || dim >= ndim) {
    Py_RETURN_NONE;
  }
  dim += dim < 0 ? ndim : 0;
  OptionalTensor parameters[2];
  for (int i = 0; i < 2; ++i) {
    // A parametrised or pruned scale is no longer among the parameters.
    PyObject* const found = PyDict_GetItemWithError(args[1], names[i]);
    if (found == nullptr || !is_a(found, ParameterClass)) {
      Py_RETURN_NONE;
    }
    const Tensor& parameter = THPVariable_Unpack(found);
    if (!fits(parameter) || parameter.dim() != 1 || parameter.size(0) != x.size(dim) * terms) {
      Py_RETURN_NONE;
    }
    parameters[i] = parameter;
  }
  const auto option = [&](Py_ssize_t i) {
    return i < PyTuple_GET_SIZE(args[2]) ? PyFloat_AsDouble(PyTuple_GET_ITEM(args[2], i)) : 0.0;
  };
  const double p = option(1), q = option(2);
  Py_ssize_t length = 0;
  const char* const base = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(args[2], 0), &length);
  if (base == nullptr || PyErr_Occurred()) {
    return nullptr;
  }
  const std::string_view name(base, static_cast<size_t>(length));
  {
    pybind11::gil_scoped_release no_gil;
    if (inplace) {
      agile_.call(x, parameters[0], parameters[1], name, p, q, dim, 1, terms);
    } else {
      x = agile.call(x, parameters[0], parameters[1], name, p, q, dim, 1, terms);
    }
  }
  return THPVariable_Wrap(std::move(x));
  END_HANDLE_TH_ERRORS
}

PyMethodDef methods[] = {
    {"channels", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(channels)), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "binding", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_binding() { return PyModule_Create(&module); }
