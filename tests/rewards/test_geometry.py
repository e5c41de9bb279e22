"""Boxes, sets, masks and grids against plain loops written from the definitions."""

import contextlib
import io
import itertools
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from guerdon.rewards import geometry
from guerdon.rewards.geometry import Sets
from guerdon.rewards.geometry.boxes import BLOCK

ANY = st.one_of(
    st.floats(-50, 50), st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e-300, 1e101, 1e308, -1e308])
)
COUNTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=5)


def some_boxes(rng, *shape, axes=2, low=0, high=8):
    corners = rng.integers(low, high, (*shape, axes)).astype(float)
    return np.concatenate([corners, corners + rng.integers(1, 6, (*shape, axes))], -1)


def volume(box, k, more=0.0):
    return math.prod(box[k + i] - box[i] + more for i in range(k))


def iou_by_hand(a, b, *, more=0.0):
    k = len(a) // 2
    if not all(math.isfinite(x) for x in (*a, *b)):
        return 0.0
    if any(box[k + i] - box[i] + more <= (more and 0.0) for box in (a, b) for i in range(k)):
        return 0.0
    shared = math.prod(max(min(a[k + i], b[k + i]) - max(a[i], b[i]) + more, 0.0) for i in range(k))
    return shared / (volume(a, k, more) + volume(b, k, more) - shared)


# --- pairs of boxes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_iou_is_shared_over_joint_volume(axes):
    rng = np.random.default_rng(axes)
    a, b = some_boxes(rng, 200, axes=axes), some_boxes(rng, 200, axes=axes)
    assert geometry.iou(a, b) == pytest.approx([iou_by_hand(p, q) for p, q in zip(a, b, strict=True)])
    pixels = [iou_by_hand(p, q, more=1.0) for p, q in zip(a, b, strict=True)]
    assert geometry.iou(a, b, edges="pixels") == pytest.approx(pixels)


def test_iou_counts_the_cells_of_a_picture():
    rng = np.random.default_rng(0)
    a, b = some_boxes(rng, 100), some_boxes(rng, 100)

    def cells(box, more):
        return set(itertools.product(*(range(int(box[i]), int(box[2 + i]) + more) for i in (0, 1))))

    for more, edges in ((0, "continuous"), (1, "pixels")):
        expected = [
            len(cells(p, more) & cells(q, more)) / len(cells(p, more) | cells(q, more))
            for p, q in zip(a, b, strict=True)
        ]
        assert geometry.iou(a, b, edges=edges) == pytest.approx(expected)


def test_generalized_iou_by_hand():
    a = np.array([0.0, 0, 2, 2])
    for b, expected in (
        ([0, 0, 2, 2], 1.0),
        ([2, 0, 4, 2], 0.0),  # they touch: no overlap, no gap
        ([4, 0, 6, 2], -4 / 12),
        ([1, 1, 3, 3], 1 / 7 - 2 / 9),
        ([3, 3, 4, 4], -(16 - 5) / 16),
        ([2, 2, 0, 0], -1.0),
    ):
        assert geometry.iou(a, np.array(b, float), generalized=True) == pytest.approx(expected)


def test_cubes_shifted_by_half():
    cube = np.array([0, 0, 0, 1, 1, 1.0])
    assert geometry.iou(cube, cube + np.array([0.5, 0, 0] * 2)) == pytest.approx(1 / 3)
    assert geometry.iou(cube, cube + 1) == 0
    assert geometry.iou(cube, np.array([0, 0, 0, 0, 1, 1.0])) == 0


def test_many_rows_are_what_each_of_them_is():
    rng = np.random.default_rng(1)
    a, b = some_boxes(rng, 20_000), some_boxes(rng, 20_000)
    a[::7, 2] = np.nan
    sizes = np.full((20_000, 2), 20.0)
    points = rng.uniform(0, 10, (20_000, 2))
    for measure, sides in (
        (geometry.iou, (a, b)),
        (geometry.coverage, (a, b)),
        (geometry.gaussian, (points, b)),
        (geometry.inside, (points, b)),
        (geometry.edge_agreement, (a, b, sizes)),
    ):
        whole = measure(*sides)
        for row in (0, 7, 8, BLOCK - 1, BLOCK, BLOCK + 1, 19_999):
            assert whole[row] == measure(*(side[row] for side in sides))


def test_measures_broadcast():
    rng = np.random.default_rng(0)
    a, b = some_boxes(rng, 3), some_boxes(rng, 4)
    points, sizes = geometry.centers(a), rng.uniform(20, 30, (3, 2))
    for measure, first, rest in (
        (geometry.iou, a, ()),
        (partial(geometry.iou, generalized=True), a, ()),
        (geometry.coverage, a, ()),
        (geometry.gaussian, points, ()),
        (geometry.inside, points, ()),
        (geometry.edge_agreement, a, (sizes[:, None],)),
    ):
        each = [[measure(x, y, *(side[i, 0] for side in rest)) for y in b] for i, x in enumerate(first)]
        assert measure(first[:, None], b[None], *rest).tolist() == np.array(each).tolist()
        assert measure(first[0], b, *(side[:1, 0] for side in rest)).tolist() == np.array(each[0]).tolist()


def test_boxes_of_extreme_sizes():
    tiny, small, large = (np.array([0, 0, side, side]) for side in (1e-99, 1.0, 1e99))
    for box in (tiny, small, large):
        for spread in (0.5, 1e-300):
            assert geometry.coverage(box, box, spread=spread) == 1.0
            assert geometry.gaussian(geometry.centers(box), box, spread=spread) == 1.0
        assert geometry.iou(box, box) == geometry.inside(geometry.centers(box), box) == 1
    assert geometry.coverage(tiny, small) == geometry.coverage(large, small) == pytest.approx(0, abs=1e-90)
    for side in (1e-101, 1e101):
        box = np.array([0, 0, side, side])
        assert not geometry.usable(box)
        assert geometry.iou(box, box) == geometry.coverage(box, box) == 0
        assert geometry.inside(geometry.centers(box), box) == geometry.gaussian(geometry.centers(box), box) == 0


@settings(max_examples=300)
@given(hnp.arrays(np.float64, (3, 4), elements=ANY), hnp.arrays(np.float64, (3, 4), elements=ANY))
def test_no_box_gives_what_is_out_of_range(a, b):
    sizes, points = np.abs(b[:, 2:]), a[:, :2]
    for values in (
        geometry.iou(a, b),
        geometry.iou(a, b, edges="pixels"),
        geometry.coverage(a, b),
        geometry.gaussian(points, b),
        geometry.gaussian(points, b, spread=1e-300),
        geometry.edge_agreement(a, b, sizes),
        geometry.inside(points, b).astype(float),
    ):
        assert ((values >= 0) & (values <= 1)).all()
    wide = geometry.iou(a, b, generalized=True)
    assert ((wide >= -1) & (wide <= 1)).all()
    assert geometry.iou(b, a) == pytest.approx(geometry.iou(a, b))
    assert geometry.coverage(b, a) == pytest.approx(geometry.coverage(a, b))
    broken = ~(np.isfinite(a).all(1) & (a[:, 2:] > a[:, :2]).all(1))
    assert (geometry.iou(a, b)[broken] == 0).all()
    assert (wide[broken] == -1).all()
    assert (geometry.coverage(a, b)[broken] == 0).all()
    assert not geometry.usable(a)[broken].any()


@given(st.floats(0.01, 100), st.floats(-1000, 1000), st.integers(0, 1000))
def test_scale_and_place_do_not_matter(scale, shift, seed):
    rng = np.random.default_rng(seed)
    a, b = some_boxes(rng, 5), some_boxes(rng, 5)
    for measure in (geometry.iou, geometry.coverage):
        assert measure(a * scale + shift, b * scale + shift) == pytest.approx(measure(a, b), abs=1e-6)
    points = rng.uniform(0, 10, (5, 2))
    moved = geometry.gaussian(points * scale + shift, b * scale + shift)
    assert moved == pytest.approx(geometry.gaussian(points, b), abs=1e-6)


def test_coverage_is_the_overlap_of_two_gaussians():
    # The Bhattacharyya coefficient is ∫ √(p q), here summed over a fine grid.
    a, b = np.array([0.0, 0, 2, 3]), np.array([1.0, -1, 4, 1])
    x, y = np.meshgrid(np.linspace(-12, 16, 1500), np.linspace(-14, 16, 1500))

    def density(box):
        total = 1.0
        for place, low, high in ((x, box[0], box[2]), (y, box[1], box[3])):
            sigma, middle = (high - low) / 2, (low + high) / 2
            total = total * np.exp(-(((place - middle) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
        return total

    cell = (28 / 1499) * (30 / 1499)
    assert geometry.coverage(a, b) == pytest.approx(np.sqrt(density(a) * density(b)).sum() * cell, abs=1e-5)


def test_boxes_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="2, 4 or 6 coordinates"):
        geometry.iou(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="cannot be compared"):
        geometry.iou(np.zeros(4), np.zeros(6))
    with pytest.raises(ValueError, match="spread"):
        geometry.gaussian(np.zeros(2), np.zeros(4), spread=0)
    with pytest.raises(ValueError, match="spread"):
        geometry.coverage(np.zeros(4), np.zeros(4), spread=math.inf)


def test_weights_by_size_have_mean_one_and_bounds():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 20, 20], [0, 0, 100, 100.0]])
    sizes = np.full((3, 2), 100.0)
    # 1/share is 100, 25 and 1; their mean is 42.
    assert geometry.size_weights(boxes, sizes, low=0, high=9) == pytest.approx([100 / 42, 25 / 42, 1 / 42])
    assert geometry.size_weights(boxes, sizes) == pytest.approx([1.5, 25 / 42, 0.5])
    assert geometry.size_weights(boxes[:0], sizes[:0]).tolist() == []
    with pytest.raises(ValueError, match="row 1"):
        geometry.size_weights(boxes[:, [2, 1, 0, 3]][[0, 0]] + np.array([[-20, 0, 0, 0], [0, 0, 0, 0]]), sizes[:2])
    with pytest.raises(ValueError, match="weights"):
        geometry.size_weights(boxes, sizes, low=2, high=1)


# --- sets of boxes -----------------------------------------------------------------------------------------------


def sets_of(counts, seed, high=8):
    rng = np.random.default_rng(seed)
    return [
        Sets(some_boxes(rng, int(sum(c[side] for c in counts)), high=high), np.array([c[side] for c in counts]))
        for side in (0, 1)
    ]


def by_row(sets, row):
    return sets.boxes[sets.starts[row] : sets.starts[row] + sets.counts[row]]


def best_total(gains):
    """The best sum of a matching of as many as can be, by trying all of them."""
    p, g = len(gains), len(gains[0]) if len(gains) else 0
    if p > g:
        gains, p, g = [list(row) for row in zip(*gains, strict=True)], g, p
    return max(
        (sum(gains[i][j] for i, j in enumerate(order)) for order in itertools.permutations(range(g), p)), default=0.0
    )


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(0, 10**6), st.sampled_from([4, 8]))
def test_hungarian_is_the_best_of_all_matchings(counts, seed, high):
    first, second = sets_of(counts, seed, high)
    pairs = geometry.pair_up(first, second)
    for row in range(len(counts)):
        a, b = by_row(first, row), by_row(second, row)
        gains = [[iou_by_hand(p, q) for q in b] for p in a]
        mine = slice(first.starts[row], first.starts[row] + len(a))
        assert pairs.quality[mine].sum() == pytest.approx(best_total(gains))
        taken = pairs.partner[mine][pairs.partner[mine] >= 0]
        assert len(set(taken.tolist())) == len(taken)
        assert ((taken >= second.starts[row]) & (taken < second.starts[row] + len(b))).all()


@settings(max_examples=40, deadline=None)
@given(COUNTS, st.integers(0, 10**6))
def test_detr_costs_are_minimised(counts, seed):
    first, second = sets_of(counts, seed)
    rng = np.random.default_rng(seed)
    first, second = (Sets(s.boxes, s.counts, rng.integers(-1, 2, len(s.boxes))) for s in (first, second))
    pairs = geometry.pair_up(first, second, cost="detr", above=-1, inclusive=True, generalized=True)
    for row in range(len(counts)):
        a, b = by_row(first, row), by_row(second, row)
        at, other = int(first.starts[row]), int(second.starts[row])

        def gain(i, j, a=a, b=b, at=at, other=other):
            label = first.labels[at + i]
            wide = geometry.iou(a[i], b[j], generalized=True)  # itself tested by hand above
            return -np.abs(a[i] - b[j]).sum() + float(label == second.labels[other + j] and label >= 0) + wide

        found = [(i, int(pairs.partner[at + i]) - other) for i in range(len(a)) if pairs.partner[at + i] >= 0]
        assert len(found) == min(len(a), len(b))
        gains = [[gain(i, j) for j in range(len(b))] for i in range(len(a))]
        assert sum(gain(i, j) for i, j in found) == pytest.approx(best_total(gains))


@settings(max_examples=40, deadline=None)
@given(COUNTS, st.integers(0, 10**6))
def test_as_many_pairs_of_equal_labels_as_can_be(counts, seed):
    first, second = sets_of(counts, seed)
    rng = np.random.default_rng(seed)
    first, second = (Sets(s.boxes, s.counts, rng.integers(0, 2, len(s.boxes))) for s in (first, second))
    pairs = geometry.pair_up(first, second, cost="detr", above=-1, inclusive=True, generalized=True, same_label=True)
    for row in range(len(counts)):
        at, other = int(first.starts[row]), int(second.starts[row])
        for label in (0, 1):  # each label is a matching of its own
            a = [i for i in range(at, at + int(first.counts[row])) if first.labels[i] == label]
            b = [j for j in range(other, other + int(second.counts[row])) if second.labels[j] == label]
            found = [(i, int(pairs.partner[i])) for i in a if pairs.partner[i] >= 0]
            assert len(found) == min(len(a), len(b))
            assert all(j in b for _, j in found)

            def gain(i, j):
                wide = geometry.iou(first.boxes[i], second.boxes[j], generalized=True)
                return 1 + wide - np.abs(first.boxes[i] - second.boxes[j]).sum()

            expected = best_total([[gain(i, j) for j in b] for i in a])
            assert sum(gain(i, j) for i, j in found) == pytest.approx(expected)


def greedy_by_hand(a, b, above):
    left, total = [(iou_by_hand(p, q), i, j) for i, p in enumerate(a) for j, q in enumerate(b)], []
    while left and max(left)[0] > above:
        value, i, j = max(left)
        total.append(value)
        left = [entry for entry in left if entry[1] != i and entry[2] != j]
    return total


def in_order_by_hand(a, b, above):
    left, total = list(range(len(b))), []
    for p in a:
        best = max(left, key=lambda j: iou_by_hand(p, b[j]), default=None)
        if best is not None and iou_by_hand(p, b[best]) > above:
            total.append(iou_by_hand(p, b[best]))
            left.remove(best)
    return total


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(0, 10**6), st.sampled_from([0.0, 0.2, 0.5]))
def test_greedy_and_ordered_matchings_by_hand(counts, seed, above):
    rng = np.random.default_rng(seed)
    first, second = (
        Sets(s.boxes + rng.uniform(0, 0.1, s.boxes.shape), s.counts) for s in sets_of(counts, seed)
    )  # no ties
    for match, by_hand in (("greedy", greedy_by_hand), ("order", in_order_by_hand)):
        pairs = geometry.pair_up(first, second, match=match, above=above)
        for row in range(len(counts)):
            a, b = by_row(first, row), by_row(second, row)
            mine = pairs.quality[first.starts[row] : first.starts[row] + len(a)]
            assert sorted(mine[mine > 0]) == pytest.approx(sorted(by_hand(a, b, above)))


def test_hungarian_beats_greedy():
    # The first box fits both targets, the second only the one that the first fits best.
    first = Sets.of([[[0, 0, 10, 10], [0, 0, 7, 10]]])
    second = Sets.of([[[0, 0, 9, 10], [3, 0, 13, 10]]])
    assert geometry.pair_up(first, second, match="greedy").partner.tolist() == [0, 1]
    hungarian = geometry.pair_up(first, second)
    assert hungarian.partner.tolist() == [1, 0]
    assert hungarian.quality.tolist() == pytest.approx([7 / 13, 7 / 9])


def test_pairs_at_the_threshold_and_of_other_labels():
    first, second = Sets.of([[[0, 0, 2, 1]]]), Sets.of([[[0, 0, 2, 2]]])
    for match in ("hungarian", "greedy", "order", "best"):
        assert geometry.pair_up(first, second, match=match, above=0.5).partner.tolist() == [-1]
        assert geometry.pair_up(first, second, match=match, above=0.5, inclusive=True).partner.tolist() == [0]
    labelled = [Sets(s.boxes, s.counts, np.array([label])) for s, label in ((first, 0), (second, 1))]
    assert geometry.pair_up(*labelled, same_label=True).partner.tolist() == [-1]
    assert geometry.pair_up(*labelled).partner.tolist() == [0]
    nothing = [Sets(s.boxes, s.counts, np.array([-1])) for s in (first, second)]
    assert geometry.pair_up(*nothing, same_label=True).partner.tolist() == [-1]
    for match in ("hungarian", "greedy", "order", "best"):
        broken = Sets.of([[[2, 1, 0, 0], [math.nan] * 4]])
        pairs = geometry.pair_up(broken, second, match=match, above=-1, inclusive=True, generalized=True)
        assert pairs.partner.tolist() == [-1, -1]


def test_a_row_is_matched_alike_alone_and_beside_others():
    counts = [(i % 7, (i * 5) % 6) for i in range(400)] + [(90, 3)]
    first, second = sets_of(counts, 5)
    for match in ("hungarian", "greedy", "order", "best"):
        whole = geometry.pair_up(first, second, match=match)
        for row in (0, 13, 100, 399, 400):
            alone = geometry.pair_up(*(Sets.of([by_row(s, row)]) for s in (first, second)), match=match)
            mine = slice(first.starts[row], first.starts[row] + first.counts[row])
            assert whole.quality[mine].tolist() == alone.quality.tolist()


@pytest.mark.parametrize("count", [2, 20])
def test_of_equal_targets_the_first_is_taken(count):
    first, second = Sets.of([[[0, 0, 1, 1]]]), Sets.of([[[0, 0, 1, 1]] * count])
    for match in ("hungarian", "greedy", "order", "best"):
        assert geometry.pair_up(first, second, match=match).partner.tolist() == [0]


def test_sets_are_checked():
    one, two = Sets.of([[[0, 0, 1, 1]]]), Sets.of([[], []])
    with pytest.raises(ValueError, match="counts sum to 2"):
        Sets(np.zeros((1, 4)), np.array([2]))
    with pytest.raises(ValueError, match="1 labels for 0 boxes"):
        Sets(np.zeros((0, 4)), np.array([0]), np.array([1]))
    with pytest.raises(ValueError, match="cannot be matched"):
        geometry.pair_up(one, two)
    with pytest.raises(ValueError, match="none there is"):
        geometry.pair_up(one, one, match="nearest")
    with pytest.raises(ValueError, match="both sets need them"):
        geometry.pair_up(one, one, same_label=True)
    with pytest.raises(ValueError, match="cannot be compared"):
        geometry.average_precision(one, two)


# --- average precision -------------------------------------------------------------------------------------------


def coco(predictions, targets):
    """pycocotools on one picture: [(box, label)] in the order of their scores."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labels = sorted({label for _, label in targets})

    def entry(i, box, label, **more):
        x1, y1, x2, y2 = map(float, box)
        wide, high = x2 - x1, y2 - y1
        return {
            "id": i + 1, "image_id": 1, "category_id": int(label), "bbox": [x1, y1, wide, high], "area": wide * high,
            "iscrowd": 0, **more,
        }  # fmt: skip

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {}, "images": [{"id": 1}], "categories": [{"id": int(label)} for label in labels],
            "annotations": [entry(i, *target) for i, target in enumerate(targets)],
        }  # fmt: skip
        truth.createIndex()
        said = [entry(i, *p, score=1.0) for i, p in enumerate(predictions) if p[1] in labels]
        if not said:
            return 0.0
        evaluation = COCOeval(truth, truth.loadRes(said), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def test_average_precision_is_pycocotools():
    pytest.importorskip("pycocotools")
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(25):
        targets = [(box, int(rng.integers(1, 4))) for box in some_boxes(rng, int(rng.integers(1, 7)), high=30) * 10]
        said = [(box + rng.normal(0, 4, 4), label) for box, label in targets if rng.random() < 0.8]
        said += [(box, int(rng.integers(1, 5))) for box in some_boxes(rng, int(rng.integers(0, 4)), high=30) * 10]
        said = [p for p in said if (p[0][2:] > p[0][:2]).all()]
        rows.append(([said[i] for i in rng.permutation(len(said))], targets))
    # The first fits both targets alike, and takes the last of them: the only one that the second fits well.
    tie = [([0, 0, 10, 10], 1), ([0, 2, 10, 10], 1)], [([0, 0, 10, 8], 1), ([0, 2, 10, 10], 1)]
    rows.append(tie)

    def sets(side):
        flat = [entry for row in rows for entry in row[side]]
        counts = np.array([len(row[side]) for row in rows])
        return Sets(np.array([box for box, _ in flat]), counts, np.array([label for _, label in flat]))

    found = geometry.average_precision(sets(0), sets(1))
    assert found == pytest.approx([coco(*row) for row in rows], abs=1e-9)
    assert 0.2 < found.mean() < 0.9


def test_average_precision_at_the_corners():
    target = [[0, 0, 10, 10], [20, 20, 30, 30]]
    junk = [[50 + i, 50, 60 + i, 60] for i in range(18)]
    rows = [target, target + junk, junk + target, [target[0]] * 2, [], [[math.nan] * 4, *target]]
    found = geometry.average_precision(Sets.of(rows), Sets.of([target] * len(rows)))
    # Behind 18 boxes that are wrong precision is 1/19 and 2/20, at best 1/10 at every recall.
    # One of two found: recalls up to 50 of the 101. Both found, behind one that is no box: 2/3 at every recall.
    assert found == pytest.approx([1, 1, 1 / 10, 51 / 101, 0, 2 / 3])
    assert geometry.average_precision(Sets.of([[]]), Sets.of([[]])).tolist() == [0]


# --- masks, grids, views -----------------------------------------------------------------------------------------


def test_mask_iou_counts_pixels():
    rng = np.random.default_rng(0)
    a, b = rng.random((6, 4, 5)) < 0.5, rng.random((6, 4, 5)) < 0.5
    a[0] = b[0] = False
    a[1] = False
    for empty in (1.0, 0.0):
        expected = [
            empty if not (p | q).any() else len(set(np.flatnonzero(p)) & set(np.flatnonzero(q))) / (p | q).sum()
            for p, q in zip(a, b, strict=True)
        ]
        assert geometry.mask_iou(a, b, empty=empty) == pytest.approx(expected)
    with pytest.raises(ValueError, match="cannot be compared"):
        geometry.mask_iou(a, b[..., 1:])


def test_filled_boxes_have_the_iou_of_the_boxes():
    a, b = [2, 3, 9, 8], [4, 1, 12, 6]
    masks = [geometry.fill([box], 16, 16) for box in (a, b)]
    assert geometry.mask_iou(*masks) == pytest.approx(iou_by_hand(a, b))
    assert geometry.fill([a, b], 16, 16).sum() == 35 + 40 - 5 * 3
    assert not geometry.fill([[9, 8, 2, 3], [math.nan] * 4], 16, 16).any()
    assert not geometry.fill([], 4, 4).any()


def test_boxes_are_followed_until_they_are_lost():
    frames = [[[0, 0, 2, 2]], [[1, 0, 3, 2], [8, 8, 9, 9]], [[2, 0, 4, 2]], [[8, 0, 9, 1]], [[2, 0, 4, 2]]]
    masks = geometry.follow([[1, 0, 3, 2]], frames, 1, height=10, width=10)
    for frame, box in enumerate([[0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 4, 2], None, None]):
        assert (masks[frame] == (geometry.fill([box], 10, 10) if box else False)).all()
    with pytest.raises(ValueError, match="no frame 5"):
        geometry.follow([], frames, 5, height=1, width=1)


def test_frames_are_worth_their_share_of_the_largest():
    assert geometry.frame_worth(np.array([[10, 40, 20], [0, 0, 0]])).tolist() == [[0.25, 1, 0.5], [0, 0, 0]]
    for bad in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="areas"):
            geometry.frame_worth(np.array([1, bad]))


@given(
    st.integers(1, 7), st.integers(1, 7), st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.integers(0, 99)
)
def test_tiers_of_blocks_by_hand(height, width, down, across, tiers, seed):
    rng = np.random.default_rng(seed)
    answer, solution = rng.integers(0, 3, (2, height, width))
    counted = rng.random((height, width)) < 0.7
    for cells in (None, counted):
        found = []
        for y, x in itertools.product(range(0, height, down), range(0, width, across)):
            block = [
                answer[i, j] == solution[i, j]
                for i in range(y, min(y + down, height))
                for j in range(x, min(x + across, width))
                if cells is None or cells[i, j]
            ]
            if block:
                found.append(sum(block) * tiers // len(block) / tiers)
        expected = sum(found) / len(found) if found else 0.0
        value = geometry.block_match(answer, solution, block=(down, across), tiers=tiers, counted=cells)
        assert value == pytest.approx(expected)


def test_a_grid_is_checked():
    with pytest.raises(ValueError, match="is not one of shape"):
        geometry.block_match(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="positive"):
        geometry.block_match(np.zeros((2, 2)), np.zeros((2, 2)), tiers=0)


def test_views_are_ranked_by_their_worth():
    torch = pytest.importorskip("torch")
    text, coverage, picture = np.random.default_rng(0).random((3, 5, 8))
    worth = geometry.view_worth(text, coverage, picture, weights=(0.3, 1.0, 3.0))
    assert worth == pytest.approx(0.3 * text + 0.25 * coverage + 0.75 * picture)
    best = geometry.top_views(worth)
    assert best.shape == (5, 4)
    for row, chosen in zip(worth, best, strict=True):
        assert sorted(row[chosen])[::-1] == pytest.approx(row[chosen].tolist())
        assert row[chosen].min() >= max(row[i] for i in range(8) if i not in chosen)
    assert (geometry.top_views(worth + 7) == best).all(), "a constant changes nothing"

    weights = torch.tensor([0.5, 1.0, 3.0], requires_grad=True)
    learned = geometry.view_worth(*map(torch.as_tensor, (text, coverage, picture)), weights=tuple(weights))
    (learned.sum() + geometry.view_anchor(weights[0])).backward()
    assert weights.grad[0].item() == pytest.approx(text.sum() + 2 * 0.2, rel=1e-5)
    with pytest.raises(ValueError, match="not both 0"):
        geometry.view_worth(text, coverage, picture, weights=(1, 0, 0))
    with pytest.raises(ValueError, match="keep"):
        geometry.top_views(worth, keep=0)


def test_edges_are_inside_and_what_is_behind_them_is_not():
    box = np.array([1.0, 2.0, 4.0, 6.0])
    for x, y in ((1, 3), (4, 3), (2, 2), (2, 6), (1, 2), (4, 6)):
        assert geometry.inside(np.array([x, y], float), box)
    for x, y in ((0.9, 3), (4.1, 3), (2, 1.9), (2, 6.1)):
        assert not geometry.inside(np.array([x, y]), box)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_box_that_is_broken_along_one_axis_has_no_point_near_it(axis):
    boxes = np.tile([0.0, 0.0, 4.0, 4.0], (3, 1))
    boxes[1, axis], boxes[2, axis + 2] = 5.0, np.inf
    points = np.full((3, 2), 4.0)
    assert (geometry.gaussian(points, boxes) > 0).tolist() == [True, False, False]
    assert geometry.inside(points, boxes).tolist() == [True, False, False]
