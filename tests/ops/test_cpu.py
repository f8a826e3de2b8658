"""Which library is loaded, and which is refused."""

from __future__ import annotations

import copy
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import agileact as ag
from agileact import doctor, ops
from agileact.ops import CPU
from agileact.ops import cpu as _cpu
from tests.commands import ROOT


def test_a_library_without_a_stamp_is_refused(tmp_path: Path) -> None:
    library = tmp_path / "libagileact_AVX2.so"
    library.write_bytes(b"\x7fELF and nothing else")
    assert _cpu.read_stamp(library) == {}
    assert "no stamp" in _cpu.refusal(_cpu.read_stamp(library))


@pytest.mark.skipif(not CPU.loaded, reason="the compiled kernels are not there")
@pytest.mark.parametrize("key", ["torch", "cxx11_abi", "machine", "schema", "source"])
def test_a_stale_or_foreign_library_is_refused(key: str) -> None:
    stamp = _cpu.read_stamp(Path(CPU.path))
    assert _cpu.refusal(stamp) == ""
    assert "another version of" in _cpu.refusal({**stamp, key: "other"})


def _run(kernels: str, program: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "AGILEACT_KERNELS": kernels, **more}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=environment, capture_output=True, text=True
    )


def test_everything_works_without_the_library() -> None:
    program = (
        "import torch, agileact as ag\n"
        "x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)\n"
        "m = ag.AgileSiLU(3, dtype=torch.float64)\n"
        "assert not ag.ops.CPU.loaded\n"
        "f = lambda x, a, b: ag.functional.agile(x, a, b, 'silu')\n"
        "assert torch.autograd.gradcheck(f, (x, m.scale, m.location))\n"
        "assert torch.autograd.gradgradcheck(f, (x, m.scale, m.location))\n"
        "ag.functional.agile_max_pool2d(x, m.scale, m.location, 2, base='silu').sum().backward()\n"
        "print('works')"
    )
    done = _run("default", program)
    assert done.stdout.strip() == "works", done.stderr


def test_asking_for_what_is_not_there_is_an_error() -> None:
    assert "must be 'default' or 'compiled'" in _run("fastest", "import agileact").stderr


@pytest.mark.skipif(not CPU.loaded, reason="the compiled kernels are not there")
def test_the_instruction_set_follows_aten() -> None:
    program = "import agileact as ag; print(ag.ops.CPU.capability or ag.ops.CPU.reason)"
    done = _run("", program, ATEN_CPU_CAPABILITY="default")
    if (_cpu.LIBRARIES / "libagileact_DEFAULT.so").exists():
        assert done.stdout.strip() == "DEFAULT", done.stderr
    else:  # built for this machine alone
        assert CPU.capability in done.stdout
        assert "AGILEACT_BUILD_SETS=all" in done.stdout


@pytest.mark.skipif(not CPU.loaded, reason="the compiled kernels are not there")
@pytest.mark.parametrize("name", ["_agile", "_agile_"])
def test_what_a_kernel_raises_is_not_swallowed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    calls = []

    def broken(*_: Any) -> None:
        calls.append(name)
        raise RuntimeError("out of luck")

    monkeypatch.setattr(ops, "_channels", None)
    monkeypatch.setattr(ops, name, broken)
    module = ag.Agile("relu", 3, inplace=name == "_agile_")
    with pytest.raises(RuntimeError, match="out of luck"):
        module(torch.zeros(2, 3))
    assert len(calls) == 1


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(2, 4),
        torch.zeros(2, 3, dtype=torch.int64),
        torch.zeros(2, 3).to_sparse(),
        torch.zeros(2, 3, device="meta"),
        torch.zeros(()),
    ],
    ids=["channels", "dtype", "sparse", "device", "scalar"],
)
def test_what_does_not_fit_is_told_in_words(x: torch.Tensor) -> None:
    for module in (ag.Agile("relu", 3), ag.CombinedAgile("relu", 3)):
        with pytest.raises(ag.AgileactError, match=r"x |device"):
            module(x)


def test_a_checkout_is_built_for_this_machine_and_a_wheel_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("agileact_build", ROOT / "csrc" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    monkeypatch.setattr(builder.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    every = ["DEFAULT", "AVX2", "AVX512"]
    monkeypatch.delenv("AGILEACT_BUILD_SETS", raising=False)
    assert [list(builder.capabilities(everywhere)) for everywhere in (False, True)] == [["AVX2"], every]
    monkeypatch.setenv("AGILEACT_BUILD_SETS", "all")
    assert list(builder.capabilities()) == every
    monkeypatch.setenv("AGILEACT_BUILD_SETS", "AVX512 DEFAULT")
    assert [list(builder.capabilities(everywhere)) for everywhere in (False, True)] == [["AVX512", "DEFAULT"]] * 2
    monkeypatch.setenv("AGILEACT_BUILD_SETS", "AVX9")
    with pytest.raises(builder.BuildError, match="'all' or some of DEFAULT, AVX2, AVX512, not 'AVX9'"):
        builder.capabilities()
    monkeypatch.delenv("AGILEACT_BUILD_SETS")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "SOMETHING NEW")
    assert list(builder.capabilities()) == ["DEFAULT"]


def test_doctor_says_who_serves_what(capsys: pytest.CaptureFixture[str]) -> None:
    found = doctor.report()
    json.dumps(found)
    relu = next(
        row for row in found["kernels"] if (row["base"], row["device"], row["dtype"]) == ("relu", "cpu", "float32")
    )
    assert relu["kernel"] == ("compiled" if CPU.loaded else "default")
    sine = [row["kernel"] for row in found["kernels"] if row["base"] == "sine"]
    assert set(sine) == {"default"}
    doctor.show(found)
    assert "hardsigmoid" in capsys.readouterr().out
    assert bool(found["advice"]) or CPU.loaded


needs_binding = pytest.mark.skipif(ops._channels is None, reason="the binding was not built for this Python")
MODULES = (
    lambda: ag.Agile("relu", 3),
    lambda: ag.Agile("leaky_relu", 3, negative_slope=0.2),
    lambda: ag.Agile("softplus", 3, beta=2.0, threshold=5.0),
    lambda: ag.Agile("gelu", 3, dim=-1, dtype=torch.bfloat16),
    lambda: ag.Agile("sigmoid", 3, dim=0),
    lambda: ag.CombinedAgile("tanh", 3, terms=2),
)


@needs_binding
@pytest.mark.parametrize("make", MODULES)
@pytest.mark.parametrize("inplace", [False, True])
def test_the_binding_does_what_torch_ops_does(monkeypatch: pytest.MonkeyPatch, make: Any, inplace: bool) -> None:
    module = make()
    module.inplace = inplace
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.linspace(-0.3, 0.4, len(parameter)))
    x = torch.linspace(-3, 3, 27).view(3, 3, 3)
    results = []
    for way in (ops._channels, None):
        monkeypatch.setattr(ops, "_channels", way)
        leaf = x.clone().requires_grad_()
        y = module(leaf * 1)
        results.append([y.detach(), *torch.autograd.grad(y, [leaf, *module.parameters()], torch.cos(x))])
        with torch.inference_mode():
            assert torch.equal(module(x.clone()), y)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def _pruned() -> ag.Agile:
    module = ag.Agile("relu", 3)
    torch.nn.utils.parametrize.register_parametrization(module, "scale", torch.nn.Softplus())
    return module


@needs_binding
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "x"),
    [
        (lambda: ag.Agile("relu", 3), torch.zeros(2, 4)),
        (lambda: ag.Agile("relu", 3), torch.zeros(3)),
        (lambda: ag.Agile("relu", 3, dim=2), torch.zeros(2, 3)),
        (lambda: ag.Agile("relu", 3), torch.zeros(2, 3, dtype=torch.int64)),
        (lambda: ag.Agile("relu", 3), torch.zeros(2, 3).to_sparse()),
        (lambda: ag.Agile("relu", 3), lambda: torch.nested.nested_tensor([torch.zeros(3)] * 2)),
        (lambda: ag.Agile("relu", 3), torch.zeros(2, 3, device="meta")),
        (lambda: ag.Agile("relu", 3, device="meta"), torch.zeros(2, 3)),
        (lambda: ag.Agile("relu", 3), torch.nn.Parameter(torch.zeros(2, 3))),
        (lambda: ag.Agile("relu"), torch.zeros(2, 3)),
        (_pruned, torch.zeros(2, 3)),
        (lambda: ag.Agile("relu", 3), [[0.0, 0.0, 0.0]]),
    ],
    ids=["channels", "axes", "dim", "dtype", "sparse", "nested", "x meta", "scale meta", "subclass", "lazy",
         "parametrised", "list"],
)  # fmt: skip
def test_the_binding_leaves_to_python_what_needs_a_check(make: Any, x: Any) -> None:
    assert ops._channels is not None
    module = make()
    x = x() if callable(x) else x  # PyTorch warns when it makes a nested tensor
    assert ops._channels(x, module._parameters, ("relu",), module.dim, 1, False) is None


class _Sub(torch.Tensor):
    pass


def _of(*shape: int, **options: Any) -> torch.Tensor:
    return torch.linspace(-2, 3, torch.Size(shape).numel()).view(shape).to(**options)


# x, and what differs from a call for channels in axis 1, with three numbers of float32 for scale and for location.
BOTH_WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "usual": (_of(4, 3, 5), {}),
    "two axes": (_of(4, 3), {}),
    "five axes": (_of(2, 3, 2, 2, 2), {}),
    "last axis": (_of(4, 5, 3), {"dim": -1}),
    "first axis": (_of(3, 5), {"dim": 0}),
    "axis too far": (_of(4, 3, 5), {"dim": 3}),
    "axis too far below": (_of(4, 3, 5), {"dim": -4}),
    "one axis": (_of(3), {"dim": 0}),
    "no axes": (torch.tensor(1.0), {"dim": 0}),
    "no samples": (_of(0, 3, 2), {}),
    "no channels": (_of(2, 0), {"sizes": (0, 0)}),
    "four channels": (_of(4, 4), {}),
    "scale of four": (_of(4, 3), {"sizes": (4, 3)}),
    "location of four": (_of(4, 3), {"sizes": (3, 4)}),
    "parameters of two axes": (_of(4, 3), {"shape": (3, 1)}),
    "two terms": (_of(4, 3), {"terms": 2, "sizes": (6, 6)}),
    "two terms, sizes of one": (_of(4, 3), {"terms": 2}),
    "no terms": (_of(4, 3), {"terms": 0, "sizes": (0, 0)}),
    "transposed": (_of(3, 4).t(), {}),
    "sliced": (_of(8, 6, 5)[::2, ::2, 1:], {}),
    "expanded": (_of(1, 3, 1).expand(4, 3, 5), {}),
    "overlapping": (_of(12).as_strided((4, 3), (2, 1)), {}),
    "channels last": (_of(2, 3, 4, 4).contiguous(memory_format=torch.channels_last), {}),
    "float64": (_of(4, 3, dtype=torch.float64), {}),
    "bfloat16": (_of(4, 3, dtype=torch.bfloat16), {}),
    "float16": (_of(4, 3, dtype=torch.float16), {}),
    "parameters of float64": (_of(4, 3), {"dtype": torch.float64}),
    "parameters of bfloat16": (_of(4, 3), {"dtype": torch.bfloat16}),
    "parameters of float8": (_of(4, 3), {"dtype": torch.float8_e4m3fn}),
    "int64": (_of(4, 3, dtype=torch.int64), {}),
    "bool": (_of(4, 3, dtype=torch.bool), {}),
    "complex": (_of(4, 3, dtype=torch.complex64), {}),
    "sparse": (_of(4, 3).to_sparse(), {}),
    "mkldnn": (_of(4, 3).to_mkldnn() if torch.backends.mkldnn.is_available() else _of(4, 3).to_sparse(), {}),
    "meta": (_of(4, 3, device="meta"), {}),
    "parameters on meta": (_of(4, 3), {"device": "meta"}),
    "a subclass": (_of(4, 3).as_subclass(_Sub), {}),
    "a parameter": (torch.nn.Parameter(_of(4, 3)), {}),
    "a leaf": (_of(4, 3).requires_grad_(), {}),
    "no tensor": (None, {}),
    "no parameters": (_of(4, 3), {"parameters": {}}),
    "plain tensors": (_of(4, 3), {"parameters": {"scale": torch.ones(3), "location": torch.zeros(3)}}),
    "no location": (_of(4, 3), {"parameters": {"scale": torch.nn.Parameter(torch.ones(3)), "location": None}}),
    "an option": (_of(4, 3), {"call": ("leaky_relu", 0.3)}),
    "an option as integer": (_of(4, 3), {"call": ("softplus", 2, 5)}),
    "no kernel": (_of(4, 3), {"call": ("sine",)}),
}


@needs_binding
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("name", BOTH_WAYS)
def test_the_binding_and_python_take_and_refuse_the_same(
    monkeypatch: pytest.MonkeyPatch, name: str, inplace: bool
) -> None:
    x, other = BOTH_WAYS[name]
    scale, location = other.get("sizes", (3, 3))
    options = {key: other[key] for key in ("dtype", "device") if key in other}
    sizes = {"scale": other.get("shape", (scale,)), "location": other.get("shape", (location,))}
    made = {key: torch.nn.Parameter(_of(*size, **options)) for key, size in sizes.items()}
    parameters = other.get("parameters", made)

    def outcome(binding: bool) -> tuple[str, Any]:
        """What came of it: a check is due, a result, or an error."""
        rest = other.get("call", ("relu",)), other.get("dim", 1), other.get("terms", 1), inplace
        # A copy with the same strides, of what may be written to.
        own = copy.deepcopy(x) if inplace and name not in ("mkldnn", "a subclass") else x
        try:
            if binding:
                assert ops._channels is not None
                done = ops._channels(own, parameters, *rest)
            else:
                with monkeypatch.context() as patch:
                    patch.setattr(ops, "_channels", None)
                    done = ops.agile_channels(own, parameters, *rest)
        except Exception as error:
            return type(error).__name__, str(error)
        if done is None:
            return "a check", None
        assert not inplace or done is own
        return "a result", done.detach().clone()

    short, long = outcome(binding=True), outcome(binding=False)
    assert short[0] == long[0]
    if short[0] == "a result":
        assert short[1].stride() == long[1].stride()
        torch.testing.assert_close(short[1], long[1], rtol=0, atol=0, equal_nan=True)
    else:
        assert short[1] == long[1]


@needs_binding
def test_the_binding_passes_on_what_the_kernel_raises() -> None:
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        ag.Agile("relu", 3, inplace=True)(torch.zeros(2, 3, requires_grad=True))
    calls: list[tuple[Any, ...]] = [
        (),
        (torch.zeros(2, 3), None, None, 1, 1, False),
        (torch.zeros(2, 3), {}, (), 1.5, 1, False),
    ]
    for wrong in calls:
        with pytest.raises(TypeError):
            ops._channels(*wrong)  # type: ignore[misc]


@needs_binding
def test_a_function_mode_sees_the_operator() -> None:
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(function)
            return function(*args, **(kwargs or {}))

    with Mode():
        ag.Agile("relu", 3)(torch.zeros(2, 3))
    assert torch.ops.agileact.agile.default in seen


@needs_binding
@pytest.mark.filterwarnings("ignore")
def test_a_trace_has_the_operator() -> None:
    module = ag.Agile("relu", 3)
    with torch.no_grad():
        module.location.fill_(0.5)
    traced: Any = torch.jit.trace(module, torch.zeros(2, 3), check_trace=False)
    assert "agileact::agile" in str(traced.graph)
    x = torch.linspace(-1, 2, 6).view(2, 3)
    torch.testing.assert_close(traced(x), torch.relu(x - 0.5))


@pytest.mark.skipif(not CPU.loaded, reason="the compiled kernels are not there")
def test_a_file_with_the_right_stamp_that_is_no_library_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stamp = json.dumps(_cpu.read_stamp(Path(CPU.path))).encode()
    (suffix, *_) = importlib.machinery.EXTENSION_SUFFIXES
    for name in (f"libagileact_{CPU.capability}.so", f"binding{suffix}"):
        (tmp_path / name).write_bytes(b"no ELF" + _cpu._BEFORE + stamp + _cpu._AFTER)
    monkeypatch.setattr(_cpu, "LIBRARIES", tmp_path)
    assert _cpu.load_binding() is None
    status = _cpu._load()
    assert not status.loaded
    assert status.reason.startswith("the system cannot load it: ")


@needs_binding
def test_a_stale_binding_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (path,) = _cpu.LIBRARIES.glob("binding*")
    monkeypatch.setattr(_cpu, "LIBRARIES", tmp_path)
    assert _cpu.load_binding() is None
    stale = path.read_bytes().replace(torch.__version__.encode(), b"x" * len(torch.__version__))
    (tmp_path / path.name).write_bytes(stale)
    assert _cpu.load_binding() is None
