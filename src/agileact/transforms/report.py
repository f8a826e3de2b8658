"""What was done to each activation of a model, and why not more."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from agileact._common.terminal import format_table


@dataclass(frozen=True)
class Site:
    """One place of a model where there is an activation.

    Attributes:
        name: The name of the agile module, as in ``model.get_submodule(name)``; for what is not agile, of the module
            that it is or that calls it. The empty name is the model itself.
        base: The name of the function f, or of what stands there if there is no base function for it.
        status: What became of it: "converted", "skipped" or "already agile" in a :class:`ConversionReport`.
        reason: Why, or what is to be known about it; may be empty.
    """

    name: str
    base: str
    status: str
    reason: str = ""


@dataclass(frozen=True)
class ConvertedSite(Site):
    """A site in the report of a conversion.

    Attributes:
        origin: What stood there before, such as "nn.ReLU" or "F.relu in Net.forward, line 12".
        channels: The number of pairs of scale and location in each term; 0 if there are none, or not yet.
        dim: The channel axis; None if there is none.
    """

    origin: str = ""
    channels: int = 0
    dim: int | None = None


@dataclass(frozen=True)
class StandardizedSite(Site):
    """A layer in the report of :func:`agileact.standardize`.

    Attributes:
        status: "standardized" or "left free".
        base: f of the activation behind it; empty where there is none.
        activation: The name of that activation.
        rows: How many rows the weight has, and ``numbers``: how many numbers a row.
        scale: Where the scale of the activation starts; None where it differs from row to row.
        gain: Whether the activation has a gain.
        centred: Whether its rows are kept at mean 0 too.
    """

    activation: str = ""
    rows: int = 0
    numbers: int = 0
    scale: float | None = None
    gain: bool = False
    centred: bool = False


@dataclass(frozen=True)
class StandardizeReport:
    """What :func:`agileact.standardize` did, layer by layer; prints as a table."""

    sites: Sequence[StandardizedSite] = field(default_factory=list)

    @property
    def standardized(self) -> list[StandardizedSite]:
        """The layers whose rows are directions."""
        return [site for site in self.sites if site.status == "standardized"]

    @property
    def left_free(self) -> list[StandardizedSite]:
        """The layers whose weights are free, each with its reason."""
        return [site for site in self.sites if site.status != "standardized"]

    def __str__(self) -> str:
        head = f"{len(self.standardized)} standardized, {len(self.left_free)} left free"
        rows = []
        for site in self.sites:
            shape = f"{site.rows} x {site.numbers}{', mean 0' * site.centred}" if site.rows else "-"
            start = "-" if site.status != "standardized" else "by row" if site.scale is None else f"{site.scale:.4g}"
            rows.append((site.name or "(the model itself)", site.status, shape, site.activation, start, site.reason))
        names = ("layer", "status", "rows", "activation", "scale at the start", "reason")
        return f"{head}\n{format_table(names, rows)}" if rows else head


@dataclass(frozen=True)
class ConversionReport:
    """What :func:`agileact.convert` did, site by site; prints as a table.

    Attributes:
        sites: All activations, in the order in which they run.
        note: What the report cannot know; empty if there is nothing of that kind.
        weights: What became of the layers, with ``weights="standardized"``; else None.
    """

    sites: Sequence[ConvertedSite]
    note: str = ""
    weights: StandardizeReport | None = None

    @property
    def converted(self) -> list[ConvertedSite]:
        """The sites that became agile."""
        return [site for site in self.sites if site.status == "converted"]

    @property
    def skipped(self) -> list[ConvertedSite]:
        """The sites that were left as they are, each with its reason; those that were agile before among them."""
        return [site for site in self.sites if site.status != "converted"]

    def __str__(self) -> str:
        rows = [
            (
                site.name or "(the model itself)",
                site.base,
                site.status,
                str(site.channels or "-"),
                "-" if site.dim is None else str(site.dim),
                site.origin,
                site.reason,
            )
            for site in self.sites
        ]
        head = f"{len(self.converted)} converted, {len(self.skipped)} skipped"
        table = format_table(("name", "base", "status", "channels", "dim", "was", "reason"), rows)
        return "\n".join(filter(None, [head, table, self.note]))


@dataclass(frozen=True)
class FoldedSite(Site):
    """A site in the report of a fold.

    Attributes:
        location_into: The names of the biases that took up its location.
        scale_into: The names of the modules whose weights took up its scale: those behind it, or those before it.
        created: Those of ``location_into`` that the architecture did not have.
        kept: What is left of it, of "location", "scale" and "gain".
        new_parameters: The names in the state of the model that the architecture did not have.
        gain_into: The names of the modules whose weights took up its gain, if it has one.
    """

    location_into: tuple[str, ...] = ()
    scale_into: tuple[str, ...] = ()
    created: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    new_parameters: tuple[str, ...] = ()
    gain_into: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoldReport:
    """What :func:`agileact.fold` did, site by site; prints as a table.

    Attributes:
        sites: All agile modules; their status is "folded", "partly folded" or "refused".
        absolute: The largest absolute difference between the outputs of the two models on the example, in evaluation.
        relative: The same, relative to the largest number of the output.
        training: The largest relative difference in training mode, of outputs and buffers, each by its own size; None
            if the model does not run in training mode on the example, or is folded for evaluation alone.
        note: What else is to be known; empty if there is nothing of that kind.
    """

    sites: Sequence[FoldedSite] = field(default_factory=list)
    absolute: float = 0.0
    relative: float = 0.0
    training: float | None = None
    note: str = ""

    @property
    def folded(self) -> list[FoldedSite]:
        """The sites of which nothing is left."""
        return [site for site in self.sites if site.status == "folded"]

    @property
    def refused(self) -> list[FoldedSite]:
        """The sites that stay, whole or in part, as plain operations; each with its reason."""
        return [site for site in self.sites if site.status != "folded"]

    @property
    def same_architecture(self) -> bool:
        """Whether the state_dict loads into the architecture as it was before it was made agile."""
        return not self.refused and not self.new_parameters

    @property
    def new_parameters(self) -> tuple[str, ...]:
        """The names in the state that the architecture did not have: biases that were made, and what stays."""
        return tuple(dict.fromkeys(name for site in self.sites for name in site.new_parameters))

    @property
    def fit(self) -> str:
        """Whether the state fits the original class, in words, and what is new in it."""
        if self.same_architecture:
            return "the state fits the original class"
        return f"the state does not fit the original class; new: {few(self.new_parameters)}"

    def __str__(self) -> str:
        rows = [
            (
                site.name or "(the model itself)",
                site.base,
                site.status,
                ", ".join(name + " (new)" * (name in site.created) for name in site.location_into) or "-",
                few(site.scale_into),
                site.reason,
            )
            for site in self.sites
        ]
        head = f"{self.fit}\n{len(self.folded)} folded, {len(self.refused)} refused"
        measured = f"largest difference: {self.absolute:.1e} absolute, {self.relative:.1e} relative"
        if self.training is not None:
            measured += f"; in training mode {self.training:.1e} relative"
        table = format_table(("name", "base", "status", "location into", "scale into", "reason"), rows)
        return "\n".join(filter(None, [head, table, measured, self.note]))


def few(names: Sequence[str]) -> str:
    """Return names for a cell: the first two, and how many more."""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more or "-"
