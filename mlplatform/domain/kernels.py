"""Compiled loops of the estimators that learn row by row; imported where they are first used.

Numba translates them at the first call in a new environment (seconds) and keeps the result in
`__pycache__`, or below NUMBA_CACHE_DIR. Floating point stays strict (no `fastmath`), so that a sum
does not depend on the width of a machine's vector registers.

`features` (window, k) and `targets` (window,) are everywhere the ring of a `RowWindow`: row r of the
stream is at r % window. `learned` is the number of rows that were learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba  # noqa: TID253 - the estimators import this module when they first learn or predict
import numpy as np


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package nor a cache directory can be written: compile every time
        return numba.njit(nogil=True)(function)


# Mondrian forest.
#
# A node is named by its number in the arrays below: branches from 0, leaves from -1 downwards, so that
# leaf j is node ~j. Leaf j was made by the j-th row that its tree learned.

TREE = np.dtype(
    [
        ("start", np.int64),  # the first row of the stream that it learned, -1 before it is planted
        ("learned", np.int64),  # the row of the stream that it learns next
        ("root", np.int64),
        ("branches", np.int64),  # how many there are
        ("random", np.uint64),  # state of its random generator
    ]
)
# 64 bytes, a cache line: a prediction reads one at each level.
BRANCH = np.dtype(
    [
        ("left", np.int32),  # the node of the rows whose feature is at most the threshold
        ("right", np.int32),
        ("feature", np.int32),
        ("count", np.int32),  # rows in the cell
        ("threshold", np.float64),
        ("split_time", np.float64),  # when the cell was split, in the time of the Mondrian process
        ("mean", np.float64),  # of the targets in the cell
        ("weight", np.float64),  # log weight of the node as a leaf: -step times its cumulative loss
        ("log_weight", np.float64),  # log of the weight averaged over all prunings of the subtree
        ("share", np.float64),  # of the node's own mean in what its subtree predicts, 0 to 1
    ]
)
LEAF = np.dtype([("count", np.int64), ("mean", np.float64), ("weight", np.float64)])

LOG_2 = math.log(2.0)


@_compiled
def mixed(state):
    """The output function of SplitMix64 (Steele, Lea and Flood 2014): uint64 -> uint64."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@_compiled
def uniform(tree):
    """The next random number of a tree, strictly between 0 and 1."""
    tree.random += np.uint64(0x9E3779B97F4A7C15)
    return (np.float64(mixed(tree.random) >> np.uint64(12)) + 0.5) * 2.0**-52


@_compiled
def first_row(number, trees, window, learned):
    """The row that a tree starts from once the forest has learned `learned` rows.

    A tree that would exceed the window is regrown from the newest half of it, each tree at another
    row: it always knows between half of the window and all of it.
    """
    half = window // 2
    first = half * (number + 1) // trees
    if learned < first + half:
        return 0
    return first + (learned - half - first) // half * half


@_compiled
def plant(tree, number, start, seed):
    """Empties a tree; its random numbers depend on nothing but the seed, its number and its start."""
    tree.start = start
    tree.learned = start
    tree.root = -1
    tree.branches = 0
    tree.random = mixed(mixed(mixed(seed) + np.uint64(number)) + np.uint64(start))


@_compiled
def sprout(leaf, target):
    leaf.count, leaf.mean, leaf.weight = 1, target, 0.0


@_compiled
def observe(node, target, step):
    """Charges a node with its squared error, then lets it learn the target."""
    node.weight -= step * (node.mean - target) ** 2 / 2.0
    node.count += 1
    node.mean += (target - node.mean) / node.count


@_compiled
def insert_branch(tree, branches, leaves, boxes, node, features, slot, extension, new_leaf):
    """Puts a branch above a node, which separates the node's box from the row; returns the branch."""
    window, width = features.shape
    point = (tree.start + ~node) % window
    new = tree.branches
    tree.branches += 1

    # The feature is drawn in proportion to how far the row is outside the box along it.
    remaining = uniform(tree) * extension
    chosen, lower, upper, above = -1, 0.0, 0.0, False
    for feature in range(width):
        value = features[slot, feature]
        low = boxes[node, 0, feature] if node >= 0 else features[point, feature]
        high = boxes[node, 1, feature] if node >= 0 else features[point, feature]
        outside = max(low - value, value - high, 0.0)
        if outside > 0.0 and remaining >= 0.0:
            chosen, above = feature, value > high
            lower, upper = (high, value) if above else (value, low)
            remaining -= outside
        boxes[new, 0, feature] = min(low, value)
        boxes[new, 1, feature] = max(high, value)
    threshold = lower + (upper - lower) * uniform(tree)

    branch = branches[new]
    branch.feature = chosen
    # Between two neighbouring numbers there is no third.
    branch.threshold = threshold if threshold < upper else lower
    branch.left, branch.right = (node, ~new_leaf) if above else (~new_leaf, node)
    if node >= 0:
        branch.count, branch.mean, branch.weight = (
            branches[node].count,
            branches[node].mean,
            branches[node].weight,
        )
    else:
        branch.count, branch.mean, branch.weight = (
            leaves[~node].count,
            leaves[~node].mean,
            leaves[~node].weight,
        )
    return new


@_compiled
def learn_row(tree, branches, leaves, boxes, features, targets, step, path):
    """Lets a tree learn its next row, but for the averaged weights.

    The row extends the Mondrian partition (Lakshminarayanan, Roy and Teh 2014) as long as the tree has
    learned less than half of the window; later rows refine the means and weights of the cells.

    Returns how many branches hold the row; `path` names them, from the root.
    """
    window, width = features.shape
    slot, target = tree.learned % window, targets[tree.learned % window]
    new_leaf = tree.learned - tree.start
    growing = new_leaf < len(leaves)
    tree.learned += 1
    if new_leaf == 0:
        sprout(leaves[0], target)
        return 0

    node, birth, depth = tree.root, 0.0, 0
    while True:
        extension = 0.0
        if growing and node >= 0:
            for feature in range(width):
                value = features[slot, feature]
                extension += max(boxes[node, 0, feature] - value, value - boxes[node, 1, feature], 0.0)
        elif growing:
            # A growing leaf holds one row or copies of it, as any other row splits it: its box is a point.
            point = (tree.start + ~node) % window
            for feature in range(width):
                extension += abs(features[point, feature] - features[slot, feature])

        if extension > 0.0:
            time = birth - math.log(uniform(tree)) / extension
            if node < 0 or time < branches[node].split_time:
                new = insert_branch(tree, branches, leaves, boxes, node, features, slot, extension, new_leaf)
                branches[new].split_time = time
                if depth == 0:
                    tree.root = new
                elif branches[path[depth - 1]].left == node:
                    branches[path[depth - 1]].left = new
                else:
                    branches[path[depth - 1]].right = new
                observe(branches[new], target, step)
                sprout(leaves[new_leaf], target)
                path[depth] = new
                return depth + 1

        if node < 0:
            observe(leaves[~node], target, step)
            return depth
        branch = branches[node]
        observe(branch, target, step)
        if extension > 0.0:
            for feature in range(width):
                value = features[slot, feature]
                boxes[node, 0, feature] = min(boxes[node, 0, feature], value)
                boxes[node, 1, feature] = max(boxes[node, 1, feature], value)
        path[depth] = node
        depth += 1
        birth = branch.split_time
        node = branch.left if features[slot, branch.feature] <= branch.threshold else branch.right


@_compiled
def log_weight(node, branches, leaves):
    return branches[node].log_weight if node >= 0 else leaves[~node].weight


@_compiled
def weigh(branch, branches, leaves):
    """Context tree weighting (Willems, Shtarkov and Tjalkens 1995): the node's mean against its split's."""
    split = log_weight(branch.left, branches, leaves) + log_weight(branch.right, branches, leaves)
    smaller = math.exp(-abs(split - branch.weight))
    branch.log_weight = max(split, branch.weight) + math.log1p(smaller) - LOG_2
    branch.share = (smaller if split > branch.weight else 1.0) / (1.0 + smaller)


@_compiled
def weigh_all(tree, branches, leaves, order):
    """Weighs every branch after its children; `order` has room for all of them."""
    listed = 0
    if tree.root >= 0:
        order[0], listed = tree.root, 1
    for index in range(tree.branches):
        for child in (branches[order[index]].left, branches[order[index]].right):
            if child >= 0:
                order[listed] = child
                listed += 1
    for index in range(listed - 1, -1, -1):
        weigh(branches[order[index]], branches, leaves)


@_compiled
def grow_forest(trees, branches, leaves, boxes, features, targets, learned, seed, step):
    """Brings every tree to what it is after `learned` rows, and plants those that must start anew."""
    path = np.empty(branches.shape[1], np.int64)
    for number in range(len(trees)):
        tree, own_branches, own_leaves, own_boxes = (
            trees[number],
            branches[number],
            leaves[number],
            boxes[number],
        )
        start = first_row(number, len(trees), len(targets), learned)
        if tree.start == start and tree.learned == learned - 1:
            depth = learn_row(tree, own_branches, own_leaves, own_boxes, features, targets, step, path)
            for level in range(depth - 1, -1, -1):
                weigh(own_branches[path[level]], own_branches, own_leaves)
        else:
            plant(tree, number, start, seed)
            while tree.learned < learned:
                learn_row(tree, own_branches, own_leaves, own_boxes, features, targets, step, path)
            weigh_all(tree, own_branches, own_leaves, path)


@_compiled
def predict_forest(trees, branches, leaves, row):
    """The mean over the trees of the weighted mean of all prunings' predictions: (k,) -> float."""
    total = 0.0
    for number in range(len(trees)):
        node, remaining = trees[number].root, 1.0
        while node >= 0:
            branch = branches[number, node]
            total += remaining * branch.share * branch.mean
            remaining *= 1.0 - branch.share
            node = branch.left if row[branch.feature] <= branch.threshold else branch.right
        total += remaining * leaves[number, ~node].mean
    return total / len(trees)


@_compiled
def fold_forest(
    trees, branches, leaves, boxes, features, targets, learned, seed, step, rows, values, predictions
):
    """Predicts each row, then learns it: (n, k), (n,) -> (n,) in `predictions`."""
    for index in range(len(values)):
        predictions[index] = predict_forest(trees, branches, leaves, rows[index]) if learned else 0.0
        slot = learned % len(targets)
        features[slot], targets[slot] = rows[index], values[index]
        learned += 1
        grow_forest(trees, branches, leaves, boxes, features, targets, learned, seed, step)


# Nearest neighbours.


@_compiled
def predict_neighbors(features, targets, learned, neighbors, row):
    """The mean target of the rows nearest to a row, the older of equally near ones: (k,) -> float.

    The target of the oldest exact copy of the row, if there is one; 0 before anything was learned.
    """
    window, width = features.shape
    distances, nearest = np.full(neighbors, np.inf), np.empty(neighbors, np.int64)
    found = 0
    for older in range(max(learned - window, 0), learned):
        slot = older % window
        distance = 0.0
        for feature in range(width):
            distance += (row[feature] - features[slot, feature]) ** 2
        if distance < distances[-1]:
            rank = min(found, neighbors - 1)
            while rank > 0 and distance < distances[rank - 1]:
                distances[rank], nearest[rank] = distances[rank - 1], nearest[rank - 1]
                rank -= 1
            distances[rank], nearest[rank] = distance, slot
            found = min(found + 1, neighbors)
    if found == 0:
        return 0.0
    if distances[0] == 0.0:
        return targets[nearest[0]]
    total = 0.0
    for rank in range(found):
        total += targets[nearest[rank]]
    return total / found


@_compiled
def fold_neighbors(features, targets, learned, neighbors, rows, values, predictions):
    """Predicts each row, then learns it: (n, k), (n,) -> (n,) in `predictions`."""
    for index in range(len(values)):
        predictions[index] = predict_neighbors(features, targets, learned, neighbors, rows[index])
        slot = learned % len(targets)
        features[slot], targets[slot] = rows[index], values[index]
        learned += 1


# The running scale of the errors remembers about 20 rows.
FADE = 0.05


@_compiled
def dot(left, right):
    # Not np.dot: its order of summation, and so the last bit, depends on the machine.
    total = 0.0
    for i in range(len(left)):
        total += left[i] * right[i]
    return total


@_compiled
def fold_least_squares(features, targets, innovations, residuals, scale, weights, root, memory, ridge):
    rows, given = features.shape
    size = len(weights)
    x, image = np.empty(size), np.empty(size)
    predictions = np.empty(rows)
    for row in range(rows):
        x[:given] = features[row]
        for i in range(len(innovations)):
            x[given + i] = residuals[innovations[i] - 1]
        predictions[row] = dot(weights, x)
        error = targets[row] - predictions[row]
        scale[0] += 1
        scale[1] += (abs(error) - scale[1]) * max(1 / scale[0], FADE)
        noise = scale[1] ** 2
        # No forgetting where the coefficients would become less certain than before any data.
        if np.sum(root * root) <= memory * size / ridge:
            root /= np.sqrt(memory)
        image[:] = 0.0
        for i in range(size):
            for j in range(size):
                image[j] += root[i, j] * x[i]
        total = noise + dot(image, image)
        if 0 < total < np.inf:
            shrink = 1 / (1 + np.sqrt(noise / total))
            for i in range(size):
                gain = dot(root[i], image) / total
                weights[i] += gain * error
                for j in range(size):
                    root[i, j] -= shrink * gain * image[j]
            error = targets[row] - dot(weights, x)
        if len(residuals):
            residuals[1:] = residuals[:-1].copy()
            residuals[0] = error
    return predictions
