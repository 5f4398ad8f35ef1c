"""local/download_prompts.sh without a network: from a copy, from a forged tarball, and what it refuses."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TOOLS = "awk bash cat basename dirname cp diff find grep gzip head mkdir mv rm sed sha256sum sort tail tar tr wc xargs"


def download(*arguments: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"PATH": str(path)} if path else {})}
    command = [shutil.which("bash") or "bash", str(REPOSITORY / "local" / "download_prompts.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    (folder / "sounds" / "digits").mkdir(parents=True)
    (folder / "sounds" / "digits" / "1.wav").write_bytes(b"not the release's")
    (folder / "core-sounds-en.txt").write_text("digits/1: one\n")
    return folder


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A PATH without apt-get, whose curl fetches tmp_path/served."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS.split():
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)
    curl = folder / "curl"
    curl.write_text(f'#!{shutil.which("bash")}\nwhile [ "$1" != -o ]; do shift; done\ncat "{tmp_path}/served" >"$2"\n')
    curl.chmod(0o755)
    return folder


def test_a_copy_is_taken_and_what_differs_is_named(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "download"
    first = download("--prompts-dir", copy, target)
    assert first.returncode == 0, first.stderr
    assert (
        "differs from release 1.6.1 in 568 (" in first.stderr or "differs from release 1.6.1 in 569 (" in first.stderr
    )
    assert (target / "sounds" / "digits" / "1.wav").read_bytes() == b"not the release's"
    assert (target / "core-sounds-en.txt").read_text() == "digits/1: one\n"
    again = download("--prompts-dir", copy, target)
    assert again.returncode == 0 and "there already" in again.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "download"]


def test_more_names_than_a_pipe_holds_are_read_to_the_end(copy: Path, tmp_path: Path) -> None:
    for number in range(1000):
        (copy / "sounds" / "digits" / f"{number:0200d}.wav").touch()
    done = download("--prompts-dir", copy, tmp_path / "download")
    assert done.returncode == 0, done.stderr
    assert "1001 prompts" in done.stdout


def test_a_folder_with_other_things_is_not_replaced(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("all of it")
    refused = download("--prompts-dir", copy, tmp_path / "home")
    assert refused.returncode == 2 and "holds other things too" in refused.stderr
    assert (tmp_path / "home" / "thesis.tex").read_text() == "all of it"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give one folder"),
        (["--prompt-dir", "x", "y"], "unknown option --prompt-dir"),
        (["--prompts-dir", "/no/such/folder", "y"], "there is no such folder"),
    ],
)
def test_wrong_use_is_one_sentence(tmp_path: Path, arguments: list[str], says: str) -> None:
    refused = download(*[tmp_path / a if a == "y" else a for a in arguments])
    assert refused.returncode == 2 and says in refused.stderr and refused.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "evil",
    [member("../evil.wav"), member("/evil.wav"), member("digits/../../evil.wav"),
     member("digits", tarfile.SYMTYPE, ".."), member("digits/2.wav", tarfile.LNKTYPE, "/etc/passwd")],
    ids=lambda info: f"{info.name}-{info.type!r}",
)  # fmt: skip
def test_a_tarball_cannot_write_outside_its_folder(tmp_path: Path, bare_path: Path, evil: tarfile.TarInfo) -> None:
    with tarfile.open(tmp_path / "served", "w:gz") as archive:
        archive.addfile(member("digits/1.wav"), io.BytesIO())
        archive.addfile(evil, io.BytesIO())
    refused = download(tmp_path / "download", path=bare_path)
    assert refused.returncode == 2 and "was not unpacked" in refused.stderr, refused.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bin", "served"]


def test_a_tarball_that_is_not_the_release_is_refused(tmp_path: Path, bare_path: Path, copy: Path) -> None:
    with tarfile.open(tmp_path / "served", "w:gz") as archive:
        archive.add(copy / "sounds" / "digits", "digits")
        archive.add(copy / "core-sounds-en.txt", "core-sounds-en.txt")
    refused = download(tmp_path / "download", path=bare_path)
    assert refused.returncode == 2 and "is not release 1.6.1" in refused.stderr, refused.stderr
    (tmp_path / "served").write_bytes(b"<html>not found</html>")
    refused = download(tmp_path / "download", path=bare_path)
    assert refused.returncode == 2 and "is damaged; try again" in refused.stderr
    assert not (tmp_path / "download").exists()


def test_the_real_tarball_is_taken_where_there_is_no_apt(tmp_path: Path, bare_path: Path) -> None:
    """As the makers pack it, made here from prompts that are already fetched."""
    fetched = REPOSITORY / "recipes" / "prompts" / "download"
    if not fetched.is_dir():
        pytest.skip("the prompts are not fetched (recipes/prompts/run.sh --stop-stage 0)")
    with tarfile.open(tmp_path / "served", "w:gz", compresslevel=1) as archive:
        archive.add(fetched / "sounds", ".")
        archive.add(fetched / "core-sounds-en.txt", "./core-sounds-en.txt")
    done = download(tmp_path / "download", path=bare_path)
    assert done.returncode == 0, done.stderr
    assert "568 prompts" in done.stdout
    again = download(tmp_path / "download", path=bare_path)
    assert again.returncode == 0 and "there already, and right" in again.stdout
    (tmp_path / "download" / "sounds" / "digits" / "1.wav").write_bytes(b"")
    assert "568 prompts" in download(tmp_path / "download", path=bare_path).stdout
