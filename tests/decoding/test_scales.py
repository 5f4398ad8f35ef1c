"""Scales are chosen by counted errors, the same way every time."""

import numpy as np

from asr_kd.decoding.scales import choose_scales, grid_errors


def test_errors_are_summed_over_utterances_at_each_point():
    good, bad, none = ("A", "B"), ("A", "C"), ()
    errors = grid_errors([["A", "B"], ["B"]], [((good, bad), (none, good)), ((("B",), ("B",)), (none, none))])
    np.testing.assert_array_equal(errors, [[0, 1], [3, 1]])


def test_the_neighbourhood_with_the_fewest_errors_wins():
    errors = np.array([[9, 8, 7], [6, 5, 2], [9, 9, 9]])
    chosen = choose_scales(errors, (0.1, 0.2, 0.3), (-1.0, 0.0, 1.0), 100)
    assert (chosen.acoustic_scale, chosen.word_penalty, chosen.errors, chosen.words) == (0.2, 1.0, 2, 100)


def test_a_lucky_point_among_bad_ones_does_not_win():
    errors = np.array([[20, 20, 20, 20, 20], [20, 9, 20, 12, 12], [20, 20, 12, 10, 11], [20, 20, 12, 11, 11]])
    chosen = choose_scales(errors, (0.1, 0.2, 0.3, 0.4), (-2.0, -1.0, 0.0, 1.0, 2.0))
    assert (chosen.acoustic_scale, chosen.errors) == (0.4, 11)


def test_a_wide_valley_is_found_where_every_point_is_noisy():
    rng = np.random.default_rng(5)
    truth = 60 + 6 * (np.arange(8)[:, None] - 3.0) ** 2 + 3 * (np.arange(5)[None] - 2.0) ** 2
    rows = []
    for _ in range(200):
        noisy = rng.poisson(truth)
        scales, penalties = tuple(np.arange(8.0)), tuple(np.arange(5.0))
        smooth = choose_scales(noisy, scales, penalties)
        i, j = np.unravel_index(noisy.argmin(), noisy.shape)
        rows.append((truth[int(smooth.acoustic_scale), int(smooth.word_penalty)], truth[i, j]))
    chosen, lowest = np.mean(rows, axis=0)
    assert chosen < lowest  # than what taking the lowest count would give


def test_of_equals_the_middle_of_the_grid_wins_then_the_smaller_scale():
    assert choose_scales(np.zeros((3, 3), int), (0.1, 0.2, 0.3), (-1.0, 0.0, 1.0)).acoustic_scale == 0.2
    chosen = choose_scales(np.zeros((2, 3), int), (0.1, 0.2), (-1.0, 0.0, 1.0))
    assert (chosen.acoustic_scale, chosen.word_penalty) == (0.1, 0.0)
