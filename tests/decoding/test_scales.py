"""Scales are chosen by counted errors, the same way every time."""

import numpy as np

from asr_kd.decoding.scales import choose_scales, grid_errors


def test_errors_are_summed_over_utterances_at_each_point():
    good, bad, none = ("A", "B"), ("A", "C"), ()
    errors = grid_errors([["A", "B"], ["B"]], [((good, bad), (none, good)), ((("B",), ("B",)), (none, none))])
    np.testing.assert_array_equal(errors, [[0, 1], [3, 1]])


def test_clearly_fewer_errors_win():
    errors = np.array([[90, 80, 70], [60, 50, 9], [90, 90, 90]])
    chosen = choose_scales(errors, (0.1, 0.2, 0.3), (-1.0, 0.0, 1.0), 100)
    assert (chosen.acoustic_scale, chosen.word_penalty, chosen.errors, chosen.words) == (0.2, 1.0, 9, 100)


def test_a_lucky_point_among_bad_ones_does_not_win():
    bad = np.full((5, 7), 400)
    bad[0, 0] = 300
    bad[2:, 4:] = 310
    chosen = choose_scales(bad, (0.1, 0.2, 0.3, 0.4, 0.5), (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0))
    assert (chosen.acoustic_scale, chosen.word_penalty, chosen.errors) == (0.4, 2.0, 310)


def test_where_chance_decides_the_middle_of_the_grid_is_taken():
    assert choose_scales(np.zeros((3, 3), int), (0.1, 0.2, 0.3), (-1.0, 0.0, 1.0)).acoustic_scale == 0.2
    chosen = choose_scales(np.zeros((2, 3), int), (0.1, 0.2), (-1.0, 0.0, 1.0))
    assert (chosen.acoustic_scale, chosen.word_penalty) == (0.1, 0.0)
    noisy = 80 + np.array([[2, -3, 1], [0, 3, -2], [1, 2, -4]])
    chosen = choose_scales(noisy, (0.1, 0.2, 0.3), (-1.0, 0.0, 1.0))
    assert (chosen.acoustic_scale, chosen.word_penalty, chosen.errors) == (0.2, 0.0, 83)


def test_a_flat_valley_is_found_where_every_point_is_noisy():
    """The true rate at the chosen point is lower, on average, than at the point with the lowest count."""
    rng = np.random.default_rng(5)
    truth = 60 + 6 * (np.arange(8)[:, None] - 3.0) ** 2 + 3 * (np.arange(5)[None] - 2.0) ** 2
    rows = []
    for _ in range(200):
        noisy = rng.poisson(truth)
        result = choose_scales(noisy, tuple(np.arange(8.0)), tuple(np.arange(5.0)))
        lowest = np.unravel_index(noisy.argmin(), noisy.shape)
        rows.append((truth[int(result.acoustic_scale), int(result.word_penalty)], truth[lowest]))
    chosen, lowest_count = np.mean(rows, axis=0)
    assert chosen < lowest_count
