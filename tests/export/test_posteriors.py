"""Posteriors in the files of other toolkits: what is written is read back, and what is wrong is named."""

from pathlib import Path
from typing import get_args

import kaldi_native_io
import numpy as np
import pytest

from asr_kd.errors import UserError
from asr_kd.export.posteriors import Format, PosteriorFolder, write_posteriors


def log_posteriors(frames: int, seed: int = 0, senones: int = 7) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 3, (frames, senones))
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


UTTERANCES = {"b-2": log_posteriors(5, 1), "a/1": log_posteriors(3, 2), "c": log_posteriors(1, 3)}


@pytest.mark.parametrize("form", get_args(Format))
def test_what_is_written_is_read_back(tmp_path: Path, form: str) -> None:
    assert write_posteriors(tmp_path, UTTERANCES.items(), form) == 3
    folder = PosteriorFolder(tmp_path)
    for name in ("c", "b-2", "a/1"):  # in another order
        assert name in folder
        np.testing.assert_allclose(folder.read(name), UTTERANCES[name], atol=1e-6)
    assert "d" not in folder


@pytest.mark.parametrize("method", ["kSpeechFeature", "kTwoByteAuto", "kOneByteAuto", "kOneByteZeroOne"])
def test_matrices_that_kaldi_compresses_are_read(tmp_path: Path, method: str) -> None:
    long = {"u1": np.exp(log_posteriors(40, 1)), "u2": np.exp(log_posteriors(60, 2))}
    with kaldi_native_io.CompressedMatrixWriter(f"ark:{tmp_path / 'post.ark'}") as writer:
        for name, posteriors in long.items():
            writer.write(name, posteriors, kaldi_native_io.CompressionMethod.__members__[method])
    folder = PosteriorFolder(tmp_path)
    for name, posteriors in reversed(long.items()):
        np.testing.assert_allclose(np.exp(folder.read(name)), posteriors, atol=0.02)


def test_an_scp_may_name_its_archive_relative_to_itself(tmp_path: Path) -> None:
    ark, scp = tmp_path / "post.ark", tmp_path / "post.scp"
    with kaldi_native_io.FloatMatrixWriter(f"ark,scp:{ark},{scp}") as writer:
        for name, matrix in UTTERANCES.items():
            writer.write(name, np.exp(matrix))
    scp.write_text(scp.read_text().replace(f"{tmp_path}/", ""))
    np.testing.assert_allclose(PosteriorFolder(tmp_path).read("b-2"), UTTERANCES["b-2"], atol=1e-5)


def sparse(matrix: np.ndarray) -> list[list[tuple[int, float]]]:
    """As Kaldi's type Posterior, without the zeros."""
    return [[(senone, float(value)) for senone, value in enumerate(row) if value > 0] for row in matrix]


@pytest.mark.parametrize("with_scp", [False, True])
def test_sparse_posteriors_are_read_like_matrices(tmp_path: Path, with_scp: bool) -> None:
    rng = np.random.default_rng(3)
    dense = {f"u{k}": np.exp(log_posteriors(length, k)) for k, length in enumerate((9, 1, 14))}
    for matrix in dense.values():
        matrix[rng.random(matrix.shape) < 0.4] = 0
        matrix[:, 1] += 1e-3  # no frame is empty
        matrix /= matrix.sum(1, keepdims=True)
    ark, scp = tmp_path / "post.ark", tmp_path / "post.scp"
    with kaldi_native_io.PosteriorWriter(f"ark,scp:{ark},{scp}" if with_scp else f"ark:{ark}") as writer:
        for name, matrix in dense.items():
            writer.write(name, sparse(matrix))
    folder = PosteriorFolder(tmp_path, num_senones=next(iter(dense.values())).shape[1])
    for name, matrix in reversed(dense.items()):
        np.testing.assert_allclose(np.exp(folder.read(name)), matrix, atol=1e-6)


def test_sparse_posteriors_that_are_damaged_or_of_other_senones_are_named(tmp_path: Path) -> None:
    ark = tmp_path / "post.ark"
    with kaldi_native_io.PosteriorWriter(f"ark:{ark}") as writer:
        writer.write("u", [[(0, 0.5), (4, 0.5)], [(2, 1.0)]])
        writer.write("v", [[(1, 1.0)]])
    with pytest.raises(UserError, match=r"a pair is of senone 4, but the tree has senones 0 to 3; .* post-to-pdf-post"):
        PosteriorFolder(tmp_path, num_senones=4).read("u")
    whole = ark.read_bytes()
    for cut in range(1, 12):
        ark.write_bytes(whole[:-cut])
        with pytest.raises(UserError, match=r"ends within what v has|at v .* no binary Kaldi matrix or posterior"):
            PosteriorFolder(tmp_path, num_senones=5).read("u")
    (tmp_path / "post.scp").write_text(f"v {ark}:{whole.index(b'v ') + 2}\n")
    with pytest.raises(UserError, match=r"the posteriors are damaged at frame 0"):
        PosteriorFolder(tmp_path, num_senones=5).read("v")


def test_rounded_rows_are_normalised(tmp_path: Path) -> None:
    np.savez(tmp_path / "u.npz", posteriors=np.exp(UTTERANCES["b-2"]).astype(np.float16))
    values = PosteriorFolder(tmp_path).read("u")
    np.testing.assert_allclose(np.exp(values.astype(np.float64)).sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(values, UTTERANCES["b-2"], atol=0.05)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"log_posteriors": np.zeros(4)}, r"shape \(4,\)"),
        ({"log_posteriors": np.zeros((2, 3))}, "frame 0 sum to 3, not to 1"),
        ({"log_posteriors": np.full((2, 2), np.nan)}, "NaN"),
        ({"posteriors": np.array([[1.5, -0.5]])}, "at least 0"),
        ({"posteriors": np.array([[np.nan, 1.0]])}, "at least 0"),
        ({"posteriors": np.array([[1, 0]])}, "of int64"),
        ({"logits": np.zeros((2, 3))}, "no array log_posteriors or posteriors; its arrays: logits"),
    ],
)
def test_what_is_no_distribution_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], says: str) -> None:
    np.savez(tmp_path / "u.npz", **arrays)
    with pytest.raises(UserError, match=says) as error:
        PosteriorFolder(tmp_path).read("u")
    assert "u.npz" in str(error.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        PosteriorFolder(tmp_path / "gone")
    with pytest.raises(UserError, match=r"no \.npz, \.ark or \.scp"):
        PosteriorFolder(tmp_path)
    (tmp_path / "u.npz").write_bytes(b"?")
    with pytest.raises(UserError, match=r"u\.npz is damaged"):
        PosteriorFolder(tmp_path).read("u")
    ark = tmp_path / "post.ark"
    write_posteriors(tmp_path, UTTERANCES.items(), "ark")
    whole = (tmp_path / "posteriors.ark").read_bytes()
    (tmp_path / "posteriors.ark").unlink()
    ark.write_bytes(whole[:-5])
    with pytest.raises(UserError, match="ends within what c has"):
        PosteriorFolder(tmp_path).read("c")
    ark.write_bytes(b"u [ 1 2 ]\n")
    with pytest.raises(UserError, match=r"at u .* no binary Kaldi matrix"):
        PosteriorFolder(tmp_path).read("u")
    ark.unlink()
    (tmp_path / "post.scp").write_text("u gone.ark:12\n")
    with pytest.raises(UserError, match="the matrix of u cannot be read"):
        PosteriorFolder(tmp_path).read("u")


def test_a_command_in_an_scp_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "post.scp").write_text(f"u touch {tmp_path}/ran |\n")
    with pytest.raises(UserError, match=r"post.scp:1: this names a command"):
        PosteriorFolder(tmp_path).read("u")
    assert not (tmp_path / "ran").exists()


def test_the_files_are_also_those_that_an_scp_names_elsewhere(tmp_path: Path) -> None:
    folder, other = tmp_path / "posteriors", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    for number, name in enumerate(("inside", "outside")):
        ark = (folder if name == "inside" else other) / f"{name}.ark"
        with kaldi_native_io.FloatMatrixWriter(f"ark,scp:{ark},{folder / name}.scp") as writer:
            writer.write(name, log_posteriors(4, number))
    reader = PosteriorFolder(folder)
    assert [file.name for file in reader.files] == ["inside.ark", "inside.scp", "outside.scp", "outside.ark"]
    assert "inside" in reader and reader.read("outside").shape == (4, 7)


def test_an_scp_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "post.scp").write_bytes("ü post.ark:2\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"post\.scp: the \.scp cannot be read: it is not UTF-8 text"):
        PosteriorFolder(tmp_path)
