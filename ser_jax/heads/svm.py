"""Linear classifiers: the ComParE 2020 support vector machine, and linear probes with nested choice of C.

Scaling, upsampling, selection of features and the choice of C see the training side of a fold only. Ties go to the
smallest C (most regularised).
"""

import numpy as np

from ser_jax.errors import UserError
from ser_jax.heads.inner import inner_parts
from ser_jax.heads.linear import LinearModel
from ser_jax.heads.newton import CrossEntropy, SquaredHinge, fit_path
from ser_jax.metrics import uar


class CompareHead:
    """The head of the ComParE 2020 baseline (Schuller et al. 2020; as the scripts of its elderly emotion task).

    Classes are upsampled by the integer factor ⌊largest / size⌋, features scaled to [0, 1] on the training part; linear
    SVM (squared hinge, L2, one against the rest), C ∈ 1e-5…1 chosen by the UAR of the dev part over chunks, before any
    vote; upsampling, scaler and SVM are then made anew on train + dev.

    Differences from the scripts: they leave the choice among equal C open (here: the smallest) and stop the final fit
    after 1000 iterations (here: at the optimum). A row and its copies are one row of that weight, and the solver is our
    own (`newton`): the same optimum, found much faster.
    """

    name = "compare"
    predicts = "labels"
    needs_dev = True
    grid = tuple(10.0**e for e in range(-5, 1))
    selection = "C in 1e-5..1 by UAR of the dev part over chunks (tie: smallest C), refit on train+dev"

    def fit(self, x, y, groups, dev, select=None):
        """See `Head.fit`; `groups` is not used."""
        y, dev = np.asarray(y, dtype=object), np.asarray(dev, bool)
        if not dev.any():
            raise UserError("--head compare needs a dev part to choose C; add one to the protocol or use --head linear")
        models = _path(self, x[~dev], y[~dev], self.grid, select)
        # A class absent from dev counts the same for every C, so leaving it out does not change the choice.
        found = [uar(y[dev], model.predict(x[dev]), sorted(set(y)), absent="skip") for model in models]
        best = int(np.argmax(found))  # the first of equals, thus the smallest C
        [model] = _path(self, x, y, self.grid[best : best + 1], select)
        model.unconverged += sum(model.unconverged for model in models)
        model.chosen = {"C": self.grid[best], "dev_UAR": {f"{c:g}": value for c, value in zip(self.grid, found)}}
        return model

    def path(self, x, y, grid):
        """Fitted models, one for each C, on rows of at least two classes."""
        from sklearn.preprocessing import MinMaxScaler

        scaler = MinMaxScaler().fit(x)
        classes, member = _classes(y)
        costs = np.repeat(upsampling_factors(y)[:, None].astype(np.float64), len(classes), axis=1)
        return _machines(x, scaler.data_min_, scaler.scale_, classes, member, costs, grid)


class LinearHead:
    """Linear SVM on standardised features, classes weighted, C chosen by inner folds of whole training speakers.

    Train and dev are one. The UAR that chooses C is that of the pooled inner predictions, over chunks. With one
    training speaker the inner folds are over rows, which is said in `chosen`. The optimum is that of scikit-learn's
    LinearSVC(class_weight="balanced"), in which the weight of a class counts in its own problem against the rest.
    """

    name = "linear"
    predicts = "labels"
    needs_dev = False
    grid = tuple(10.0**e for e in range(-6, 0))
    selection = (
        "C in 1e-6..0.1 by UAR over chunks of inner folds of whole training speakers (tie: smallest C), "
        "refit on train+dev"
    )

    def fit(self, x, y, groups, dev, select=None):
        """See `Head.fit`; `dev` is not used."""
        y = np.asarray(y, dtype=object)
        parts, inner = inner_parts(groups, y)
        predictions, unconverged = np.empty((len(self.grid), len(y)), dtype=object), 0
        for held in parts:
            if len(set(y[~held])) < 2:
                predictions[:, held] = y[~held][0]
                continue
            for row, model in zip(predictions, _path(self, x[~held], y[~held], self.grid, select)):
                row[held] = model.predict(x[held])
                unconverged += model.unconverged
        found = [uar(y, row, sorted(set(y))) for row in predictions]
        best = int(np.argmax(found))  # the first of equals, thus the smallest C
        [model] = _path(self, x, y, self.grid[best : best + 1], select)
        model.unconverged += unconverged
        model.chosen = {
            "C": self.grid[best],
            "inner": inner,
            "inner_UAR": {f"{c:g}": value for c, value in zip(self.grid, found)},
        }
        return model

    def path(self, x, y, grid):
        """Fitted models, one for each C, on rows of at least two classes."""
        shift, scale = _standardiser(x)
        classes, member = _classes(y)
        weights = len(y) / (len(classes) * np.bincount(member))
        costs = np.where(member[:, None] == np.arange(len(classes)), weights, 1.0)
        if len(classes) == 2:  # one problem, to which both weights belong
            costs[:, 1] = weights[member]
        return _machines(x, shift, scale, classes, member, costs, grid)


class LogisticHead(LinearHead):
    """As `LinearHead`, with multinomial logistic regression (class-weighted, L2)."""

    name = "logistic"

    def path(self, x, y, grid):
        """Fitted models, one for each C, on rows of at least two classes."""
        shift, scale = _standardiser(x)
        classes, member = _classes(y)
        weights = len(y) / (len(classes) * np.bincount(member))
        loss = CrossEntropy(np.eye(len(classes))[member], weights[member])
        # Of two classes scikit-learn penalises one vector w; here they are ±w/2, with half of its penalty.
        double = 2 if len(classes) == 2 else 1
        fits = fit_path((x - shift) * scale, loss, [c / double for c in grid])
        return [
            LinearModel(shift, scale, coef * double, intercept * double, classes, unconverged=int(not ended))
            for coef, intercept, ended in fits
        ]


def upsampling_factors(y):
    """How often each row counts when every class is repeated ⌊largest / size⌋ times: int64[N]."""
    _, member, counts = np.unique(np.asarray(y, dtype=str), return_inverse=True, return_counts=True)
    return (counts.max() // counts)[member.reshape(-1)]


def _path(head, x, y, grid, select):
    """`head.path` on the selected columns, as models over all columns."""
    if len(set(y)) < 2:
        raise UserError(
            f"the training part of a fold has one class only ({y[0]!r}); choose another --protocol or --classes"
        )
    if select is None:
        return head.path(x.astype(np.float64), y, grid)
    columns = select(x, y)
    return [model.spread(columns, x.shape[1]) for model in head.path(x[:, columns].astype(np.float64), y, grid)]


def _machines(x, shift, scale, classes, member, costs, grid):
    signs = np.where(member[:, None] == np.arange(len(classes)), 1.0, -1.0)
    if len(classes) == 2:
        signs, costs = signs[:, 1:], costs[:, 1:]
    models = []
    for coef, intercept, ended in fit_path((x - shift) * scale, SquaredHinge(signs, costs), grid):
        if len(classes) == 2:
            coef, intercept = np.concatenate([-coef, coef]), np.concatenate([-intercept, intercept])
        models.append(LinearModel(shift, scale, coef, intercept, classes, unconverged=int(not ended)))
    return models


def _classes(y):
    """(sorted labels, the place of each row's label among them)."""
    classes, member = np.unique(np.asarray(y, dtype=str), return_inverse=True)
    return classes.tolist(), member.reshape(-1)


def _standardiser(x):
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    return scaler.mean_, 1 / scaler.scale_
