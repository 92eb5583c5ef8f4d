import pytest

from crosslayer.core.errors import InputError
from crosslayer.core.graph.graph import Graph
from crosslayer.core.graph.operation import Shape
from crosslayer.networks.zoo import NETWORKS, network
from crosslayer.simplify.activations import fuse_activations
from crosslayer.simplify.norms import fold_norms

PUBLISHED = [  # network, input, classes, multiply-accumulates, parameters once normalizations are folded (or None)
    ("lenet5", (28, 28, 1), 10, 416_520, 61_706),
    ("lenet5", (32, 32, 1), 10, 416_520, 61_706),
    ("lenet5", (32, 32, 3), 10, 651_720, 62_006),
    ("lenet-threshold", (28, 28, 1), 10, 784_500, 92_208),  # ours
    ("vgg11", (32, 32, 3), 10, 152_769_536, 9_225_610),
    ("resnet8", (32, 32, 3), 10, 12_501_632, None),
    ("dscnn", (49, 10, 1), 12, 2_656_768, None),
    ("mobilenet", (96, 96, 3), 2, 7_489_664, None),
    ("autoencoder", (640,), 0, 264_192, None),
]


@pytest.mark.parametrize(("name", "shape", "classes", "macs", "parameters"), PUBLISHED)
def test_a_network_has_the_published_size(
    name: str, shape: Shape, classes: int, macs: int, parameters: int | None
) -> None:
    graph = fold_norms(network(name, shape, classes, 0))
    assert sum(graph.macs.values()) == macs
    assert parameters is None or graph.parameters == parameters


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"autoencoder"}))
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (33, 17, 3), (64, 64, 2)])
def test_a_network_takes_any_image_size(name: str, shape: Shape) -> None:
    graph = network(name, shape, 7, 0)
    assert graph.types[graph.outputs[0]].shape == (7,)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_seed_decides_the_weights(name: str) -> None:
    def build(seed: int) -> Graph:
        return network(name, (16, 16, 1), 4, seed)

    assert build(1) == build(1)
    assert build(1) != build(2)


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"autoencoder"}))
def test_folding_and_fusing_leave_no_normalization_and_no_relu(name: str) -> None:
    graph = fuse_activations(fold_norms(network(name, (32, 32, 3), 10, 0)))
    assert {type(node.op).__name__ for node in graph.nodes} & {"BatchNorm", "Relu"} == set()


def test_an_unknown_network_is_met_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="did you mean 'lenet5'"):
        network("lenet", (8, 8, 1), 10, 0)


def test_features_where_images_are_expected_are_refused() -> None:
    with pytest.raises(InputError, match="height, width, channels"):
        network("resnet8", (640,), 10, 0)
