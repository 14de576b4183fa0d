"""The published numbers that can be cited; None where this project has no copy."""

# Deutsch, Nijkamp, Yang (2019), arXiv 1905.02898, section 4.1 and appendix A. The accuracies are
# shown there as histograms; their figures are not available to this project.
MNIST: dict[str, float | None] = {
    "weights of the target": 20018,
    "trainable parameters": 633640,
    "mean accuracy of the networks (%)": None,
    "accuracy of the majority vote (%)": None,
    "accuracy of the mean probability (%)": None,
    "accuracy of the most confident network (%)": None,
    "ensembles": 20,
    "networks in each ensemble": 200,
    "majority vote, mean over ensembles (%)": None,
    "mean probability, mean over ensembles (%)": None,
    "most confident, mean over ensembles (%)": None,
    "networks in the scatter matrices": 3_000,
    "paths": 10,
    "networks on a path": 40,
    "test images seen by them": 10_000,
    "test images looked at by attacks": 10_000,
    "networks in the ensemble under attack": 100,
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
