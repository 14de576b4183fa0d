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
