"""Freezing, for every architecture at once.

timm orders any backbone's parameters into depth groups; `freeze_depth` is the fraction of them, from the input,
that stays as it is. The backbone is then cut in two at that depth by tracing it with torch.fx: a *prefix* that is
never trained, so that its activations can be kept, and a *suffix* that is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from timm.layers import get_notrace_functions, get_notrace_modules
from timm.models import group_parameters
from torch import Tensor, fx, nn

from tl_core.networks.backbones import StageFeatures


@dataclass(frozen=True)
class SplitBackbone:
    """A backbone cut in two: `suffix(prefix(x))` equals `backbone(x)`, and all three share their parameters.

    A network that cannot be traced is not cut: its prefix is empty, and its suffix holds what is frozen too.

    The cut is traced in evaluation mode: dropout and stochastic depth are inert in both halves.
    """

    prefix: nn.Module
    suffix: nn.Module
    n_frozen: int
    """Depth groups in the prefix."""
    n_groups: int
    """Depth groups in all."""


def split_backbone(backbone: nn.Module, freeze_depth: float) -> SplitBackbone:
    """Cut a backbone after the given fraction of its depth groups and freeze the part before the cut."""
    groups = _depth_groups(backbone)
    n_frozen = round(freeze_depth * len(groups))
    trained = {name for group in groups[n_frozen:] for name in group}
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in trained)
    backbone.eval()
    if n_frozen == len(groups):
        return SplitBackbone(backbone, nn.Identity(), n_frozen, len(groups))
    if n_frozen == 0:
        return SplitBackbone(nn.Identity(), backbone, n_frozen, len(groups))
    traced = _trace(backbone)
    if traced is None:
        return SplitBackbone(nn.Identity(), backbone, n_frozen, len(groups))
    prefix, suffix = _cut_before(traced, {f"backbone.{name}" for name in trained})
    return SplitBackbone(prefix, suffix, n_frozen, len(groups))


def _depth_groups(backbone: nn.Module) -> list[list[str]]:
    """Names of the parameters that reach the output, in groups of equal depth, from the input on."""
    if not any(True for _ in backbone.parameters()):
        return []
    # The patterns of timm's matchers are for the network's own parameter names.
    network, prefix = (backbone.network, "network.") if isinstance(backbone, StageFeatures) else (backbone, "")
    try:
        groups = group_parameters(network, network.group_matcher(coarse=True))  # type: ignore[operator]
    except (AttributeError, AssertionError):  # timm has no groups, or no coarse ones, for a few families
        groups = _groups_by_order(network)
    # What the last stages do not need, such as a final norm, could be trained, and nothing would move.
    unused = backbone.unused if isinstance(backbone, StageFeatures) else frozenset()
    kept = ([prefix + name for name in groups[depth] if name not in unused] for depth in sorted(groups))
    return [group for group in kept if group]


def _groups_by_order(network: nn.Module) -> dict[int, list[str]]:
    """Group parameters by the part that they are in, in the order of definition: a list's members are parts."""
    parts: dict[str, list[str]] = {}
    for name, _ in network.named_parameters():
        first, _, rest = name.partition(".")
        is_list = isinstance(getattr(network, first), nn.Sequential | nn.ModuleList)
        parts.setdefault(f"{first}.{rest.partition('.')[0]}" if is_list else first, []).append(name)
    return dict(enumerate(parts.values()))


class _Tracer(fx.Tracer):
    """torch.fx with timm's list of what must not be traced into."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        opaque = isinstance(module, tuple(get_notrace_modules()))
        return opaque or super().is_leaf_module(module, module_qualified_name)


class _ImagesOnly(nn.Module):
    """The backbone as a function of its images: whatever else it could be given stays at its default."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone(images)
        return features


def _trace(backbone: nn.Module) -> fx.GraphModule | None:
    """Trace a backbone; None if its control flow depends on its images, as that of a few families does."""
    tracer = _Tracer()
    try:
        graph = tracer.trace(_ImagesOnly(backbone))
    except (fx.proxy.TraceError, NameError, RuntimeError, TypeError):
        return None
    return fx.GraphModule(tracer.root, graph)


def _cut_before(traced: fx.GraphModule, trained: set[str]) -> tuple[fx.GraphModule, fx.GraphModule]:
    nodes = list(traced.graph.nodes)
    first_trained = next(i for i, node in enumerate(nodes) if trained & set(_parameters_of(traced, node)))
    cut, crossing = _narrowest_cut(nodes, first_trained)
    prefix, suffix = fx.Graph(), fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for node in nodes[:cut]:
        copied[node] = prefix.node_copy(node, copied.__getitem__)
    prefix.output(copied[crossing])
    copied = {crossing: suffix.placeholder("activations")}
    for node in nodes[cut:]:
        copied[node] = suffix.node_copy(node, copied.__getitem__)
    return fx.GraphModule(traced, prefix), fx.GraphModule(traced, suffix)


def _narrowest_cut(nodes: list[fx.Node], limit: int) -> tuple[int, fx.Node]:
    """The last position up to `limit` that a single value crosses, and that value.

    Inside a residual block two values cross; the position right after the input is crossed by the input alone,
    so there always is one.
    """
    position = {node: i for i, node in enumerate(nodes)}
    last_use = {node: max((position[user] for user in node.users), default=-1) for node in nodes}
    for cut in range(limit, 0, -1):
        crossing = [node for node in nodes[:cut] if last_use[node] >= cut]
        if len(crossing) == 1:
            return cut, crossing[0]
    raise AssertionError("a graph starts with its input, which crosses the first cut alone")


def _parameters_of(traced: fx.GraphModule, node: fx.Node) -> Iterator[str]:
    if node.op == "get_attr":
        yield str(node.target)
    elif node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        for name, _ in module.named_parameters():
            yield f"{node.target}.{name}"
