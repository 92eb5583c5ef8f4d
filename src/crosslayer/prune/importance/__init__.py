"""How much each channel matters. Each measure is a file with one function of one signature, and a row here."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

from crosslayer.core.dataset import Split
from crosslayer.core.graph.channels import Layer
from crosslayer.core.graph.graph import Graph
from crosslayer.core.quant import Array
from crosslayer.prune.importance.activation import activation
from crosslayer.prune.importance.attribution import attribution
from crosslayer.prune.importance.batch_norm import batch_norm
from crosslayer.prune.importance.fisher import fisher
from crosslayer.prune.importance.l1 import l1
from crosslayer.prune.importance.l2 import l2
from crosslayer.prune.importance.taylor import taylor

Measure = Callable[[Graph, Sequence[Layer], Split], tuple[Array, ...]]
"""(float graph, its layers, samples) -> for each layer the importance of each of its channels, float64.

Only the order inside a layer means anything. Infinity says that the measure knows nothing of a channel, which then
stays. Measures of weights look at no sample.
"""


class Importance(StrEnum):
    """The measures, as a study file names them. Those of weights cost nothing; the others run the network.

    Called, each is a `Measure`.
    """

    L1 = "l1"
    L2 = "l2"
    BATCH_NORM = "batch-norm"
    TAYLOR = "taylor"
    FISHER = "fisher"
    ACTIVATION = "activation"
    ATTRIBUTION = "attribution"

    def __call__(self, graph: Graph, layers: Sequence[Layer], samples: Split) -> tuple[Array, ...]:
        """The importance of each channel of each layer."""
        return MEASURES[self](graph, layers, samples)


MEASURES: Mapping[Importance, Measure] = MappingProxyType(
    {
        Importance.L1: l1,
        Importance.L2: l2,
        Importance.BATCH_NORM: batch_norm,
        Importance.TAYLOR: taylor,
        Importance.FISHER: fisher,
        Importance.ACTIVATION: activation,
        Importance.ATTRIBUTION: attribution,
    }
)
