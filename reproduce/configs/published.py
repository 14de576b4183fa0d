"""The published numbers that can be cited."""

# Deutsch, Nijkamp, Yang (2019), arXiv 1905.02898, section 4.1 and appendix A, by the keys of a
# run's rows. The paper's accuracies are in figures that are not available to this project. The
# 10,000 images are those of its program; the paper says validation set.
MNIST: dict[str, float] = {
    "target_weights": 20018,
    "parameters": 633640,
    "ensembles_num_ensembles": 20,
    "ensembles_num_networks": 200,
    "scatter_num_networks": 3_000,
    "paths_num_paths": 10,
    "paths_num_networks": 40,
    "paths_num_images": 10_000,
    "adversarial_num_images": 10_000,
    "adversarial_num_networks": 100,
}

# The same paper, Table 1: CIFAR-10, maximum test accuracy in %, of (mean of ten networks, majority
# vote). "With entropy" cites the entropy of the outputs, while its appendix E describes that of the
# weights: the numbers are shown beside both. Ten constant-rate networks: independent chains, as its
# text says. A deep ensemble is not in it.
TABLE_1: dict[str, dict[str, tuple[float | None, float | None]]] = {
    "lenet": {
        "sgd": (77.36, None),
        "sgd_chains": (74.95, 80.60),
        "hypernetwork-none": (76.26, 76.47),
        "hypernetwork-weights": (72.34, 78.21),
        "hypernetwork-outputs": (72.34, 78.21),
    },
    "resnet32": {
        "sgd": (93.57, None),
        "sgd_chains": (91.03, 94.96),
        "hypernetwork-none": (88.20, 88.26),
        "hypernetwork-weights": (83.61, 90.37),
        "hypernetwork-outputs": (83.61, 90.37),
    },
}
