"""Scales are chosen by counted errors, the same way every time."""

import numpy as np

from asr_kd.decoding.scales import choose_scales, grid_errors


def test_errors_are_summed_over_utterances_at_each_point():
    good, bad, none = ("A", "B"), ("A", "C"), ()
    errors = grid_errors([["A", "B"], ["B"]], [((good, bad), (none, good)), ((("B",), ("B",)), (none, none))])
    np.testing.assert_array_equal(errors, [[0, 1], [3, 1]])


def test_the_fewest_errors_win():
    errors = np.array([[9, 8, 7], [6, 5, 2], [9, 9, 9]])
    chosen = choose_scales(errors, (0.1, 0.2, 0.3), (-1.0, 0.0, 1.0), 100)
    assert (chosen.acoustic_scale, chosen.word_penalty, chosen.errors, chosen.words) == (0.2, 1.0, 2, 100)


def test_of_equals_the_middle_of_the_grid_wins_then_the_smaller_scale():
    assert choose_scales(np.zeros((3, 3), int), (0.1, 0.2, 0.3), (-1.0, 0.0, 1.0)).acoustic_scale == 0.2
    chosen = choose_scales(np.zeros((2, 3), int), (0.1, 0.2), (-1.0, 0.0, 1.0))
    assert (chosen.acoustic_scale, chosen.word_penalty) == (0.1, 0.0)
    corners = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    chosen = choose_scales(corners, (0.1, 0.2, 0.3), (-1.0, 0.0, 1.0))
    assert (chosen.acoustic_scale, chosen.word_penalty) == (0.1, -1.0)
