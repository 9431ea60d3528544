"""What a package index has, and what is installed of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

from pytest_hfaccel.bisect.environments import Environments, NoEnvironment
from pytest_hfaccel.bisect.releases import (
    PYPI,
    IndexSettings,
    hide_password,
    installed_version,
    list_releases,
    oldest_supported,
)
from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from tests.wheels import serve_index, write_wheel


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    for version in ("1.0", "1.1", "1.2", "1.3rc1", "1.10"):
        write_wheel(folder, "tinygain", version, f"version = {version!r}\n")
    write_wheel(folder, "tinygain", "1.4", "", tag="cp27-cp27m-win32")
    return folder


def _listed(settings: IndexSettings, **options: bool) -> dict[str, str]:
    return {str(each.version): each.left_out for each in list_releases("tinygain", settings, **options)}


@pytest.mark.parametrize("way", ["json", "html", "folder", "file index"])
def test_releases_are_listed_in_order_with_what_is_left_out(wheels: Path, way: str, tmp_path: Path) -> None:
    facts = {
        "tinygain-1.1-py3-none-any.whl": {"yanked": "wrong"},
        "tinygain-1.2-py3-none-any.whl": {"requires-python": "<3"},
    }
    if way == "folder":
        found = _listed(IndexSettings((), (str(wheels),)))
    elif way == "json":
        with serve_index(wheels, facts) as address:
            found = _listed(IndexSettings((address,)))
    else:
        links = [
            f'<a href="{path.as_uri()}#sha256=0" '
            f"{'data-yanked=wrong' if '-1.1-' in path.name else ''} "
            f"{'data-requires-python=&lt;3' if '-1.2-' in path.name else ''}>x</a>"
            for path in sorted(wheels.iterdir())
        ]
        page = tmp_path / "simple" / "tinygain" / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text("".join(links), encoding="utf-8")
        place = page if way == "html" else tmp_path / "simple"
        found = _listed(IndexSettings(*(((), (page.as_uri(),)) if way == "html" else ((place.as_uri(),),))))
    assert list(found) == ["1.0", "1.1", "1.2", "1.3rc1", "1.4", "1.10"]
    assert found["1.0"] == found["1.10"] == ""
    assert "pre-release" in found["1.3rc1"]
    assert "no wheel for this Python" in found["1.4"]
    if way != "folder":
        assert "yanked" in found["1.1"]
        assert found["1.2"].startswith("needs Python <3")


def test_pre_releases_and_yanked_ones_when_asked_for(wheels: Path) -> None:
    with serve_index(wheels, {"tinygain-1.1-py3-none-any.whl": {"yanked": True}}) as address:
        found = _listed(IndexSettings((address,)), pre_releases=True, yanked=True)
    assert found["1.1"] == found["1.3rc1"] == ""


def test_a_page_in_html_of_an_index(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_hfaccel.bisect.releases._ACCEPTED", "text/html")
    with serve_index(wheels) as address:
        assert "1.10" in _listed(IndexSettings((address,)))


def test_the_build_like_the_installed_one_is_taken(tmp_path: Path) -> None:
    installed = installed_version("torch")
    assert installed is not None
    label = installed.local or "cu1"
    for version in ("2.9.0", f"2.9.0+{label}", "2.9.0+other", "2.10.0"):
        write_wheel(tmp_path, "torch", version, "")
    found = [str(each.version) for each in list_releases("torch", IndexSettings((), (str(tmp_path),)))]
    assert found == [f"2.9.0+{label}" if installed.local else "2.9.0", "2.10.0", str(installed)]


def test_a_package_that_no_index_has(tmp_path: Path) -> None:
    with (
        serve_index(tmp_path) as address,
        pytest.raises(ConfigError, match=r"--package tinygain: the package index has no release"),
    ):
        list_releases("tinygain", IndexSettings((address.replace("//", "//me:secret@"),)))


def test_an_index_that_does_not_answer() -> None:
    with pytest.raises(HfAccelError, match="cannot be read") as caught:
        list_releases("tinygain", IndexSettings(("http://me:secret@127.0.0.1:9/simple",)))
    assert "secret" not in str(caught.value)
    assert hide_password("https://me:secret@index.org/simple") == "https://index.org/simple"


def test_the_settings_are_those_of_pip_and_over_them_those_of_uv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
        "PIP_FIND_LINKS",
        "UV_INDEX_URL",
        "UV_DEFAULT_INDEX",
        "UV_INDEX",
    ):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://one.org/simple/\nextra-index-url =\n    https://two.org/simple\n"
        "    https://three.org/simple\nfind-links = /wheels\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    found = IndexSettings.of_user()
    assert found.indexes == tuple(f"https://{name}.org/simple" for name in ("one", "two", "three"))
    assert found.find_links == ("/wheels",)
    monkeypatch.setenv("PIP_INDEX_URL", "https://four.org/simple")
    monkeypatch.setenv("UV_INDEX", "five=https://five.org/simple")
    assert IndexSettings.of_user().indexes == ("https://four.org/simple", "https://five.org/simple")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    assert IndexSettings.of_user().indexes == ()
    assert IndexSettings().indexes == (PYPI,)


def test_the_oldest_release_that_we_support() -> None:
    versions = [Version("4.57.0"), Version("5.15.1"), Version("99.0")]
    assert oldest_supported("transformers", versions) == Version("99.0")
    assert oldest_supported("tinygain", versions) is None


_UV = pytest.mark.skipif(
    not (shutil.which("uv") or Path(sys.executable).with_name("uv").exists()), reason="uv is not installed"
)


@pytest.mark.parametrize("installer", ["pip", pytest.param("uv", marks=_UV)])
def test_a_release_and_what_it_needs_stand_before_what_is_installed(tmp_path: Path, installer: str) -> None:
    wheels = tmp_path / "wheels"
    write_wheel(wheels, "tinygain", "1.0", "import tinyneed\n", needs=["tinyneed<2", "packaging>=1"])
    for version in ("1.5", "2.0"):
        write_wheel(wheels, "tinyneed", version, f"version = {version!r}\n")
    environments = Environments("tinygain", IndexSettings((), (str(wheels),)), tmp_path / "cache", installer=installer)
    made = environments.make(Version("1.0"))
    assert made.changes == {"tinygain": "1.0", "tinyneed": "1.5"}
    script = "import packaging, tinygain; print(tinygain.tinyneed.version, packaging.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", script], env=made.variables(), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("1.5 ")
    assert str(tmp_path) not in done.stdout, "packaging is the installed one"
    with pytest.raises(NoEnvironment, match=rf"(?s){installer}: .*tinygain==3\.0"):
        environments.make(Version("3.0"))
    for file in wheels.iterdir():
        file.unlink()
    assert environments.make(Version("1.0")).folder == made.folder, "made once"
