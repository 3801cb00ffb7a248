"""Every setting of a run with its default; `configuration.checks` refuses a bad one before anything starts.

A config file is a Python file with `get_config(arg)`: it takes `default_config()` and changes what differs.
It is code and runs when it is loaded, so load only files that you trust. docs/paper.md says which
settings the paper leaves open, and why each default is what it is.
"""

from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

if TYPE_CHECKING:
    Config = Any  # a type checker cannot see the fields of a ConfigDict
else:
    Config = ConfigDict


def default_config() -> Config:
    """Return the settings of the paper's single run: model C on MNIST with Eq. 3, no adversarial twins.

    Returns:
        A new ConfigDict, one sub-dict a topic, locked: a field that is not there cannot be set.
    """
    config: Config = ConfigDict()
    config.seed = 0  # fixes everything below that is not set by itself
    config.seeds = ConfigDict(
        {
            "init": placeholder(int),  # parameters; None: config.seed
            "order": placeholder(int),  # order of the examples; None: config.seed
            "attack": placeholder(int),  # random starts of the attacks, draws of the estimators; None: config.seed
        }
    )
    config.data = ConfigDict(
        {
            "name": "mnist",  # mnist_5k, mnist, fashion_mnist, kmnist, cifar10
            "dir": placeholder(str),  # folder with local files; None: what `jl1 prepare` made
            "validation_size": 5000,  # Sec. 4.1
            "split": "official",  # official: the last of the training set; random: drawn by split_seed
            "split_seed": 0,
            "tiles": 1,  # images side by side that make one: 2 for 100 classes, 3 for 1,000
        }
    )
    config.model = ConfigDict(
        {
            "name": "C",  # A, B, C of Table 1
            "activation": "relu",
            "padding": "table",  # of each convolution, such as VALID,SAME; table: as in models.MODELS
            "init": "glorot_uniform",  # or fan_in_normal
            "convolution": "auto",  # library, patches; auto: patches on a CPU
        }
    )
    config.penalty = ConfigDict(
        {
            "name": "jacobian_l1",  # Eq. 3; class_sum_l1 is the footnote's; the others: penalties.PENALTIES
            "outputs": "probs",  # what f is in Eq. 3: logits, centred_logits, probs, log_probs
            "scale": "mean",  # over the c x d entries of the Jacobian; sum: Eq. 3 to the letter
            "lam": 50.0,  # lambda; at 0.0 no Jacobian is compiled
            "gradient": "auto",  # closed_form, automatic; auto: the closed form where there is one
            "memory_mb": placeholder(int),  # of the exact penalty, about; None: a fourth of an accelerator, or 1,000
            "outputs_per_pass": 1,  # automatic form: outputs differentiated at a time, at least
            "num_draws": 1,  # of an estimator, such as the classes of jacobian_l1_sampled_classes
            "every": 1,  # m: only in every m-th step, with weight m
        }
    )
    config.adversarial = ConfigDict(
        {
            "method": "twins",  # FGSM twins of the points (Sec. 4.2); pgd: the attacked points alone; trades
            "epsilon": 0.0,  # radius of the attack in training; 0.0: no attack
            "warmup_epochs": 0,  # over which the radius grows from 0 to epsilon, step by step
            "labels": "true",  # which loss the attack raises: of the true or of the predicted labels
            "smoothing": 0.0,  # label smoothing inside the attack's loss
            "random_start": False,  # from a random point of the ball, with a step of 1.25 epsilon
            "coupling": "mean",  # mean over the doubled batch; sum: clean + adversarial
            "num_steps": 10,  # of pgd and trades
            "step_size": placeholder(float),  # of pgd and trades; None: 2.5 epsilon / num_steps
            "clean_weight": 0.0,  # pgd: weight of the clean points, in [0, 1]; the attacked ones have the rest
            "beta": 6.0,  # trades: weight of the divergence
        }
    )
    config.optimizer = ConfigDict({"learning_rate": 1e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8})  # Sec. 4.1
    config.training = ConfigDict(
        {
            "num_epochs": 100,  # at most
            "batch_size": 128,  # before the twins double it
            "smoothing": 0.1,  # label smoothing, Sec. 4.1
            "precision": "float32",  # of the products; tf32, bfloat16: faster on some machines, and less exact
            "smoothing_form": "uniform",  # 0.91 and 0.01; off_label: 0.90 and 0.0111
            "stopping": "patience",  # fixed, patience, successive_difference
            "stopping_tolerance": 1e-4,
            "stopping_epochs": 10,
            "weights": "last",  # which are evaluated: the last, or the best on the validation points
        }
    )
    config.evaluation = ConfigDict(
        {
            "points": "test",  # validation: to choose settings without looking at the test set
            "epsilons": (0.1, 0.2, 0.3),  # radii of the attacks
            "pgd_steps": 20,
            "pgd_restarts": 1,
            "batch_size": 500,
            "epochs": (),  # after which the figures are taken too, on the way (Table 4: 100 of 150)
            "attacks": (),  # those of `jl1 evaluate` that run after training, such as ("standard",), at epsilons
            "budget": "fast",  # of these attacks: full, few_classes, fast
            "max_points": placeholder(int),  # so many points for these attacks, from the first; None: all
        }
    )
    config.log = ConfigDict(
        {
            "tensorboard": False,  # event files in the run's folder; needs the extra tensorboard
            "traced_points": 8,  # validation points of trace.jsonl, Fig. 1 by epoch; 0: none
        }
    )
    return config.lock()
