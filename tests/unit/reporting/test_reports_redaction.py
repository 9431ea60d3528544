"""Secrets are cut out of texts; what only looks a little like one stays."""

from __future__ import annotations

import pytest

from pytest_hfaccel.reporting.plain import redact

LETTERS = "AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"hf_{LETTERS}", "hf_***"),
        (f"token=hf_{LETTERS}, more", "token=hf_***, more"),
        (f"'hf_{LETTERS}'", "'hf_***'"),
        ("hf_abc123def456", "hf_***"),
        (f"api_org_{LETTERS}", "api_org_***"),
        ("Authorization: Bearer eyJhbGciOi.J9-_=", "Authorization: Bearer ***"),
        ("https://me:pa55@hub.example/api", "https://***@hub.example/api"),
        ("http://token@proxy:8080", "http://***@proxy:8080"),
    ],
)
def test_secrets_go(text: str, expected: str) -> None:
    assert redact(text, {}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "--hf-performance hf_performance hf_device hf_hub_download hf_trust_remote_code",
        "test_hf_bert.py::TestBert::test_parity",
        "https://huggingface.co/bert-base-uncased",
        "git@example.org:me/project.git",
        "the bearer of bad news",
        "pad_token='<|endoftext|>'",
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert redact(text, {}) == text


def test_the_value_of_a_token_variable_goes_wherever_it_stands() -> None:
    environ = {"HF_TOKEN": "my-own-secret", "HUGGING_FACE_HUB_TOKEN": "x"}
    assert redact("sent my-own-secret to x", environ) == "sent *** to x"


def test_the_real_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "my-own-secret")
    assert redact("my-own-secret") == "***"
