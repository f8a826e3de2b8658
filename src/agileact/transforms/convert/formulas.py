"""Activations that are written out as mathematics, such as ``h * torch.sigmoid(h)``, in one statement or several.

An expression is one if it depends on a single tensor, element by element. Its calls are in the recording, so that it
can be computed again on numbers of our own, which tell whether it is a base function. Variables that only hold its
first steps, as in ``u = torch.sigmoid(h); y = h * u``, belong to it.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.overrides import resolve_name

from agileact import bases
from agileact.bases import Value as Option
from agileact.transforms.edit.source import CannotRewriteError, Method, SourceCall, before_edits, method_at, span_of
from agileact.transforms.trace.activation_tables import ACTIVATING, FUNCTIONS, POINTWISE
from agileact.transforms.trace.recording import Call, Place, Recording, Ref, Value, Visit, mapped, words

# What makes a straight line bend: only if the whole is a base function.
_BENDING = words("gt lt ge le where maximum minimum max min clamp clip clamp_min masked_fill")
# What is no function that has a base, or bends, is an activation if a layer comes before it.
_SPECIAL = ACTIVATING - frozenset(FUNCTIONS)
_MAKING = words("tensor scalar_tensor zeros ones full new_zeros new_ones new_full new_tensor")
_SEEDS = _SPECIAL | _BENDING | frozenset(FUNCTIONS) | {"exp"}
_INSIDE = POINTWISE | _BENDING | _MAKING
_LONG = 16  # statements and calls of the longest formula
_Span = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Formula:
    """An expression that is an activation: what it is, and each time that it ran."""

    source: SourceCall
    uses: tuple[Visit, ...]  # whose modules compute it
    known: tuple[str, dict[str, Option]] | None
    name: str
    calls: frozenset[int]
    varies: bool  # whether its numbers change from run to run


@dataclass(frozen=True)
class _Region:
    """The calls of one run of an expression, and the one tensor that they depend on."""

    calls: tuple[Call, ...]
    root: Value
    result: Value

    @property
    def names(self) -> set[str]:
        return {call.name for call in self.calls}

    def at(self, x: Tensor) -> Tensor:
        """Compute it again for other numbers."""
        values = {self.root.index: x.to(self.root.device)}
        with torch.no_grad():
            for call in self.calls:
                values[call.outputs[0].index] = call.again(values)
        return values[self.result.index].to("cpu", torch.float64)

    @property
    def multiplied(self) -> bool:
        """Whether what depends on the tensor is multiplied by what depends on it, as in a gate of its own."""
        return any(call.name in ("mul", "div") and len(call.inputs) > 1 for call in self.calls)


def formulas(model: nn.Module, recording: Recording, inside: set[int]) -> tuple[list[Formula], list[list[Call]]]:
    """Return the formulas of a recording, of calls that are not ``inside``, and the special calls that are in none."""
    frames: dict[int, list[Call]] = {}
    for call in recording.calls:
        if call.index not in inside and call.caller is not None and call.frame:
            frames.setdefault(call.frame, []).append(call)
    made: dict[int, list[Visit]] = {}
    for visit in recording.visits:
        made.setdefault(visit.frame, []).append(visit)
    found: dict[tuple[int, _Span], list[tuple[SourceCall, _Region]]] = {}
    covered: set[int] = set()
    texts: dict[tuple[int, int], _Text | None] = {}
    for number, calls in frames.items():
        nodes: dict[int, ast.expr | None] | None = None
        for call in calls:
            if call.index in covered or call.name not in _SEEDS:
                continue
            text = _text(model, call, texts)
            if text is None:
                break
            nodes = {one.index: text.at(one.place) for one in calls} if nodes is None else nodes
            best = _best(text, call, calls, nodes, made.get(number, []))
            if best is not None:
                source, region = best
                covered |= {one.index for one in region.calls}
                owner = model.get_submodule(call.caller or "")
                found.setdefault((id(owner), span_of(source.node)), []).append(best)
    missed: dict[tuple[str | None, Place | None], list[Call]] = {}
    for call in recording.calls:
        special = call.name in _SPECIAL and call.index not in covered | inside
        if special and call.inputs and layer_before(call.inputs[0]) is not None:
            missed.setdefault((call.caller, call.place), []).append(call)
    return [_formula(one) for one in found.values()], list(missed.values())


def layer_before(value: Value) -> str | None:
    """Return the name of the parameter that made a value, the nearest one; None if there is none."""
    while value.maker is not None:
        name = next((one.name for one in value.maker.inputs if one.kind == "parameter"), None)
        if name is not None or not value.maker.inputs:
            return name
        value = value.maker.inputs[0]
    return None


# --- The text ---


class _Text:
    """The expressions of a method by their places."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.nodes: dict[_Span, ast.expr] = {}
        self.ends: dict[tuple[int, int], ast.expr] = {}
        self.above: dict[ast.AST, ast.AST] = {}
        for node in ast.walk(method.definition):
            if isinstance(node, ast.expr):
                self.nodes.setdefault(span_of(node), node)
                if isinstance(node, ast.Call):
                    self.ends.setdefault(span_of(node)[1], node)
            for child in ast.iter_child_nodes(node):
                self.above[child] = node

    def at(self, place: Place | None) -> ast.expr | None:
        if place is None or place.column is None:
            return None
        place = before_edits(place)
        assert place.column is not None
        assert place.end_column is not None
        start, stop = (place.line, place.column), (place.end_line or place.line, place.end_column)
        # A method that is called on the next line has the place of its name.
        return self.nodes.get((start, stop)) or self.ends.get(stop)

    def block(self, node: ast.AST) -> tuple[list[ast.stmt], int]:
        """Return the statements beside that in which an expression stands, with it, and which of them it is."""
        while not isinstance(node, ast.stmt):
            if isinstance(node, (ast.comprehension, ast.Lambda)):
                return [], 0
            node = self.above[node]
        for name in ("body", "orelse", "finalbody"):
            beside = getattr(self.above.get(node), name, None)
            if isinstance(beside, list) and any(one is node for one in beside):
                return beside, next(index for index, one in enumerate(beside) if one is node)
        return [node], 0

    def local(self, node: ast.AST) -> list[ast.Name]:
        """Return the variables of the method that are read in a part of it, but for the module itself."""
        code = self.method.function.__code__
        known = {*code.co_varnames, *code.co_cellvars} - {self.method.own}
        return [
            one
            for one in ast.walk(node)
            if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load) and one.id in known
        ]

    def around(self, node: ast.expr) -> Iterator[ast.expr]:
        """Yield an expression and those that it is a part of, from the inside to the outside."""
        above: ast.AST | None = node
        while above is not None and not isinstance(above, (ast.stmt, ast.comprehension, ast.Lambda)):
            if isinstance(above, ast.expr):
                yield above
            above = self.above.get(above)


def _text(model: nn.Module, call: Call, texts: dict[tuple[int, int], _Text | None]) -> _Text | None:
    module = model.get_submodule(call.caller or "")
    assert call.place is not None
    key = id(type(module)), id(call.place.code)
    if key not in texts:
        try:
            texts[key] = _Text(method_at(module, call.place))
        except CannotRewriteError:
            texts[key] = None
    return texts[key]


def _within(inner: _Span, outer: _Span) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


# --- Regions ---


def _best(
    text: _Text, seed: Call, calls: Sequence[Call], nodes: dict[int, ast.expr | None], visits: Sequence[Visit]
) -> tuple[SourceCall, _Region] | None:
    """Return the outermost expression around a call that is an activation.

    One that is a base function goes before one that does a single thing more, such as adding it to its argument.
    """
    start = nodes[seed.index]
    if start is None:
        return None
    best, named = None, None
    for node in text.around(start):
        # Of the runs in a loop, the first that ends after the seed.
        sink = next((call for call in calls if call.index >= seed.index and nodes[call.index] is node), None)
        region = None if sink is None else _region(sink, [span_of(node)], nodes)
        if region is None or seed not in region.calls:
            continue
        argument = _argument(text, node, region, nodes, visits)
        known = None if argument is None else _accepted(region)
        if argument is not None and known is not None:
            best = SourceCall(text.method, node, argument), region
            named = best if known else named
    for found, known in _over_statements(text, seed, nodes):
        best = found
        named = found if known else named
    if named is not None and best is not None and len(best[1].calls) <= len(named[1].calls) + 1:
        return named
    return best


def _over_statements(
    text: _Text, seed: Call, nodes: dict[int, ast.expr | None]
) -> Iterator[tuple[tuple[SourceCall, _Region], bool]]:
    """Yield the activations that a call is a step of over several statements, and whether each is a base function."""
    start = nodes[seed.index]
    assert start is not None
    block, here = text.block(start)
    for sink in _after(seed, nodes)[:_LONG]:
        node = nodes[sink.index]
        assert node is not None
        beside, last = text.block(node)
        for first in range(min(here, last - 1), max(-1, last - _LONG), -1) if beside is block else ():
            steps = [value for one in block[first:last] for value in _values_of(one).values()]
            region = _region(sink, [span_of(one) for one in (node, *steps)], nodes)
            if region is None or seed not in region.calls or not _private(region):
                continue
            source = _sourced(text, node, region, nodes, block, last)
            known = None if source is None else _accepted(region)
            if source is None or known is None:
                continue
            # An activation with something behind it is two things; with its own argument in it twice it is one.
            if known or sum(region.root in call.inputs for call in region.calls) > 1:
                yield (source, region), known
                break


def _after(seed: Call, nodes: dict[int, ast.expr | None]) -> list[Call]:
    """Return a call and those in its method that depend on it by nothing but arithmetic, in order of time."""
    found, todo = {seed.index: seed}, [seed]
    while todo and len(found) < 2 * _LONG:
        for value in todo.pop().outputs:
            for user in value.users:
                if user.index not in found and user.name in _INSIDE and nodes.get(user.index) is not None:
                    found[user.index] = user
                    todo.append(user)
    return [found[index] for index in sorted(found)]


def _values_of(statement: ast.stmt) -> dict[str, ast.expr]:
    """Return variables and values of an assignment to variables; nothing for any other statement."""
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value is not None:
        return {statement.target.id: statement.value}
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return {}
    target, value = statement.targets[0], statement.value
    both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts)
    pairs = zip(target.elts, value.elts, strict=True) if both else [(target, value)]  # type: ignore[attr-defined]
    found = {name.id: each for name, each in pairs if isinstance(name, ast.Name)}
    return found if not both or len(found) == len(target.elts) else {}  # type: ignore[attr-defined]


def _private(region: _Region) -> bool:
    """Return whether nothing else sees what the steps of a region make."""
    inner = {call.index for call in region.calls}
    steps = [value for call in region.calls for value in call.outputs if value is not region.result]
    return all(not (one.returned or one.kept) and all(user.index in inner for user in one.users) for one in steps)


def _sourced(
    text: _Text, node: ast.expr, region: _Region, nodes: dict[int, ast.expr | None], block: list[ast.stmt], last: int
) -> SourceCall | None:
    """Return the source of an activation over several statements; None if it cannot be exchanged.

    Its argument is a variable that nothing gives another value in between, and its steps are read nowhere else.
    """
    inner = {id(nodes[call.index]) for call in region.calls}
    made = {id(one) for one in nodes.values() if one is not None}
    stored = [
        {one.id for one in ast.walk(each) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
        for each in block
    ]

    def defined(name: str, before: int) -> int:
        return next((index for index in range(before - 1, -1, -1) if name in stored[index]), -1)

    todo: list[tuple[ast.AST, int]] = [(node, last)]
    roots: dict[str, set[int]] = {}
    steps: dict[tuple[int, str], ast.expr] = {}
    reads: set[int] = set()
    while todo:
        part, at = todo.pop()
        for one in text.local(part):
            reads.add(id(one))
            index = defined(one.id, at)
            value = _values_of(block[index]).get(one.id) if index >= 0 else None
            if value is not None and id(value) in inner:
                if (index, one.id) not in steps:
                    steps[index, one.id] = value
                    todo.append((value, index))
            elif value is not None and _is_number(text, value, made):
                todo.append((value, index))  # a number, or another name
            else:
                roots.setdefault(one.id, set()).add(index)
    if not steps or len(roots) != 1:
        return None
    ((root, where),) = roots.items()
    if where != {defined(root, last)}:
        return None
    parts = [node, *steps.values()]
    for part in parts:
        calls = [one for one in ast.walk(part) if isinstance(one, ast.Call) and id(one) not in inner]
        if part is not node and any(not ast.unparse(one.func).startswith("math.") for one in calls):
            return None  # what else it does would be lost
    places = [span_of(part) for part in parts]
    for call in region.calls:
        place = nodes[call.index]
        if place is None or not any(_within(span_of(place), one) for one in places):
            return None
    for index, name in steps:
        end = next((other for other in range(index + 1, len(block)) if name in _values_of(block[other])), None)
        within = block[index + 1 : end + 1] if end is not None else [text.method.definition]
        for one in (each for statement in within for each in text.local(statement) if each.id == name):
            if id(one) not in reads:
                return None
    names = [one for one in text.local(node) if one.id == root]
    argument = names[0] if names else ast.copy_location(ast.Name(root, ast.Load()), block[0])
    return SourceCall(text.method, node, argument, steps=tuple(steps[key] for key in sorted(steps)))


def _is_number(text: _Text, value: ast.expr, made: set[int]) -> bool:
    """Return whether a value is a number, or another name of something: no tensor is ``made`` in it."""
    parts = list(ast.walk(value))
    return not any(id(one) in made for one in parts) and not (
        text.local(value) and any(isinstance(one, ast.Call) for one in parts)
    )


def _region(sink: Call, spans: Sequence[_Span], nodes: dict[int, ast.expr | None]) -> _Region | None:
    """Return the calls in expressions that the last one depends on, if they depend on one tensor alone."""
    chosen: dict[int, Call] = {}
    roots: dict[int, Value] = {}
    used: set[int] = set()
    stack = [sink]
    while stack:
        call = stack.pop()
        node = nodes.get(call.index)
        if call.index in chosen:
            continue
        if call.name not in _INSIDE or call.inplace or len(call.outputs) != 1 or node is None or id(node) in used:
            return None
        if call.name in _MAKING and call.outputs[0].shape.numel() != 1:
            return None
        chosen[call.index] = call
        used.add(id(node))
        for value in call.inputs:
            maker = value.maker
            near = None if maker is None else nodes.get(maker.index)
            inner = near is not None and any(_within(span_of(near), span) for span in spans)
            again = near is not None and id(near) in used and maker is not None and maker.index not in chosen
            if maker is not None and inner and not again and maker.name in _INSIDE:
                stack.append(maker)
            else:
                roots[value.index] = value
    if len(roots) != 1:
        return None
    root, result = next(iter(roots.values())), sink.outputs[0]
    fits = root.kind in ("result", "input") and root.shape == result.shape and root.dtype == result.dtype
    return _Region(tuple(chosen[index] for index in sorted(chosen)), root, result) if fits else None


def _argument(
    text: _Text, node: ast.expr, region: _Region, nodes: dict[int, ast.expr | None], visits: Sequence[Visit]
) -> ast.expr | None:
    """Return the part of an expression that is the tensor: what makes it there, or the one variable in it."""
    places = [nodes.get(region.root.maker.index)] if region.root.maker is not None else []
    places += [text.at(visit.place) for visit in visits if region.root in visit.outputs]
    for place in places:
        if place is not None and place is not node and _within(span_of(place), span_of(node)):
            return place
    found = text.local(node)
    return found[0] if len({one.id for one in found}) == 1 else None


def _accepted(region: _Region) -> bool | None:
    """Return whether a region is a base function; None if it is no activation, or not written out."""
    names = region.names
    plain = names & frozenset(FUNCTIONS)
    if plain:
        # A function with a base is a site of its own, unless it gates its own argument or is shifted to 0 at 0.
        shifted = len(region.calls) > 1 and names <= plain | {"sub", "add"} and _shifted(region)
        return _identified(region) is not None if region.multiplied or shifted else None
    bell = "exp" in names and names & {"pow", "square", "abs"}
    if not (names & (_SPECIAL | _BENDING) or bell) or layer_before(region.root) is None:
        return None
    known = _identified(region)
    if names & _SPECIAL or bell:
        return known is not None
    # A range that is limited is no activation, but for a ReLU.
    limits = names <= {"clamp", "clip", "clamp_min"}
    return True if known is not None and (not limits or known[0] == "relu") else None


def _shifted(region: _Region) -> bool:
    inner = next(call for call in region.calls if call.name in FUNCTIONS)
    zero = torch.zeros((), dtype=torch.float64, device=region.root.device)
    with torch.no_grad():
        first = inner.again({value.index: zero for value in inner.inputs})
    return abs(float(first)) > 1e-3 and abs(float(region.at(zero))) < 1e-6


# --- What it is ---


def graph_of(region: _Region) -> fx.GraphModule:
    """Return a region as a module that needs PyTorch alone."""
    graph = fx.Graph()
    values = {region.root.index: graph.placeholder("x")}
    for call in region.calls:
        args, kwargs = mapped((call.args, call.kwargs), lambda ref: values[ref.index], Ref)
        name = resolve_name(call.function) or ""
        if name.startswith("torch.Tensor."):
            made = graph.call_method(name.rpartition(".")[2], tuple(args), kwargs)
        else:
            made = graph.call_function(call.function, tuple(args), kwargs)
        values[call.outputs[0].index] = made
    graph.output(values[region.result.index])
    return fx.GraphModule(nn.Module(), graph, class_name=_name(region))


def _name(region: _Region) -> str:
    names = region.names
    return next(
        (name for kind in (_SPECIAL, {"exp"}, FUNCTIONS, _BENDING) for name in sorted(names & {*kind})), "formula"
    )


_GRID = torch.cat([torch.tensor([-1.0, -30.0, 30.0, -1e-3, 1e-3]), torch.linspace(-9, 9, 181)]).double()


def _values(region: _Region) -> Tensor | None:
    try:
        made = region.at(_GRID)
    except (RuntimeError, TypeError):  # a function that takes no float64
        return None
    return made if made.shape == _GRID.shape else None


def _identified(region: _Region) -> tuple[str, dict[str, Option]] | None:
    """Return the base function that has the same values, and its options."""
    made = _values(region)
    if made is None:
        return None
    at = {x: float(made[index]) for index, x in enumerate((-1.0, -30.0, 30.0))}
    options = {
        "leaky_relu": {"negative_slope": round(-at[-1.0], 6)},
        "elu": {"alpha": round(-at[-30.0], 6)},
        "hardtanh": {"min_val": at[-30.0], "max_val": at[30.0]},
    }
    for name in ("relu", *bases.names()):
        for chosen in ({}, options.get(name), {"approximate": "tanh"} if name == "gelu" else None):
            if chosen is None or name == "identity":
                continue
            try:
                resolved = bases.get(name).resolve(chosen)
                wanted = bases.get(name).function(_GRID, **resolved)
            except Exception:
                continue
            if torch.allclose(made, wanted.to(torch.float64), rtol=1e-5, atol=1e-6):
                return name, resolved
    return None


def _formula(runs: Sequence[tuple[SourceCall, _Region]]) -> Formula:
    source = runs[0][0]
    uses = []
    for _, region in runs:
        first, last = region.calls[0].index, region.calls[-1]
        where = last.caller, last.place, last.frame
        uses.append(Visit("", graph_of(region), [region.root], [region.result], first, last.index + 1, *where))
    calls = frozenset(call.index for _, region in runs for call in region.calls)
    first_run = runs[0][1]
    made = [_values(region) for _, region in runs]
    varies = any(one is None or made[0] is None or not torch.equal(one, made[0]) for one in made[1:])
    return Formula(source, tuple(uses), _identified(first_run), _name(first_run), calls, varies)
