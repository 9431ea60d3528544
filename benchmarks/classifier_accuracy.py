"""Accuracy and calibration of the model family classifier on the hand-labelled hub ids.

    python benchmarks/classifier_accuracy.py            # both halves: accuracy, expected calibration error, time
    python benchmarks/classifier_accuracy.py --errors   # and each wrong answer of the train half
    python benchmarks/classifier_accuracy.py --fit      # the knots for pytest_hfaccel/families/calibration.py

Halves are split by the hash of the id. Calibration was fitted on the train half; rules were tuned on it and on ids
outside of both halves.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, log
from pathlib import Path

from pytest_hfaccel.classify import Classification, classify_model
from pytest_hfaccel.classify.calibration import PRIOR, Choice, choose_family, choose_subfamily

LABELS = Path(__file__).parents[1] / "tests" / "data" / "family_labels.json"
LATER_LABELS = LABELS.with_name("family_labels_second.json")
"""Ids labelled later, of which many are of the kinds that the first did badly: reward models, speech on text trunks."""
MODES = ("name", "class", "name and class")
BINS = 10

WIDTH = 0.5
"""Of a bin of margins, for the fit."""
DRAWN = 3
"""Imagined answers per bin."""
UNSEEN = 0.02
"""Share of imagined wrong answers: labels and tables have one author, who cannot have thought of every name. On first
sight of 133 ids (the second round of `family_labels_second.json`) 2 % of the answers by name were wrong, those that say
`unknown` left out."""


@dataclass(frozen=True)
class Label:
    """A hub id and what it is."""

    id: str
    model_class: str
    family: str
    subfamily: str | None

    @property
    def half(self) -> str:
        """Which half the id falls into: `train` or `test`."""
        return ("train", "test")[hashlib.sha256(self.id.encode()).digest()[0] % 2]


@dataclass(frozen=True)
class Answer:
    """An answer of the classifier, and whether it is right."""

    label: Label
    mode: str
    given: Classification

    @property
    def family_right(self) -> bool:
        """Whether the family is the label's."""
        return self.given["family"] == self.label.family

    @property
    def subfamily_right(self) -> bool:
        """Whether family and subfamily are the label's."""
        return self.family_right and self.given["subfamily"] == self.label.subfamily


def read_labels(path: Path = LABELS) -> list[Label]:
    entries = json.loads(path.read_text(encoding="utf-8"))["labels"]
    return [Label(entry["id"], entry["class"], entry["family"], entry["subfamily"]) for entry in entries]


def answers(labels: Iterable[Label], mode: str) -> list[Answer]:
    return [
        Answer(
            label,
            mode,
            classify_model(
                label.id if "name" in mode else "", model_class=label.model_class if "class" in mode else None
            ),
        )
        for label in labels
    ]


def share(values: Iterable[bool]) -> float:
    known = list(values)
    return sum(known) / max(len(known), 1)


def calibration_error(pairs: Iterable[tuple[float, bool]]) -> float:
    """Expected calibration error over equal bins: the mean gap between confidence and accuracy."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    known = list(pairs)
    for confidence, right in known:
        bins.setdefault(min(int(confidence * BINS), BINS - 1), []).append((confidence, right))
    gaps = (abs(sum(c for c, _ in each) - sum(r for _, r in each)) for each in bins.values())
    return sum(gaps) / max(len(known), 1)


def report(half: str, labels: list[Label], show_errors: bool) -> None:
    print(f"{half}, {len(labels)} ids")
    print(f"  {'by':16}{'family':>8}{'subfamily':>11}{'ECE':>7}{'ECE subfamily':>15}")
    for mode in MODES:
        given = answers(labels, mode)
        scored = [each for each in given if each.label.subfamily]
        error = calibration_error((each.given["confidence"], each.family_right) for each in given)
        inner = calibration_error((each.given["subfamily_confidence"], each.subfamily_right) for each in scored)
        right = share(each.family_right for each in given)
        print(f"  {mode:16}{right:8.1%}{share(each.subfamily_right for each in scored):11.1%}{error:7.3f}{inner:15.3f}")
        for each in given if show_errors else ():
            if not each.family_right or (each in scored and not each.subfamily_right):
                print(f"    {each.label.id} {each.label.model_class}: {each.given['family']}/{each.given['subfamily']}")


def report_time(labels: list[Label]) -> None:
    started = time.perf_counter()
    for label in labels:
        classify_model(label.id)
    print(f"by name, warm: {(time.perf_counter() - started) / len(labels) * 1e3:.2f} ms each")


def fit(pairs: Iterable[tuple[float, bool]]) -> list[tuple[float, float]]:
    """Fit ascending (margin, share of right answers) knots.

    Each bin of margins is drawn towards the probability its log-odds claim, by `DRAWN` imagined answers, so that a bin
    of three right answers does not become certainty; then pool adjacent violators makes the bins ascend.
    """
    bins: dict[int, list[tuple[float, bool]]] = {}
    for margin, right in pairs:
        bins.setdefault(int(margin / WIDTH), []).append((margin, right))
    blocks: list[tuple[float, float, float, float]] = []  # least and greatest margin, right answers, answers
    for _, each in sorted(bins.items()):
        of_bin = [margin for margin, _ in each]
        claimed = 1 / (1 + exp(-sum(of_bin) / len(each) - log(PRIOR / (1 - PRIOR))))
        answers = sum(right for _, right in each) + DRAWN * claimed
        blocks.append((min(of_bin), max(of_bin), answers, len(each) + DRAWN))
        while len(blocks) > 1 and blocks[-2][2] / blocks[-2][3] >= blocks[-1][2] / blocks[-1][3]:
            (low, _, one, some), (_, high, other, more) = blocks[-2:]
            blocks[-2:] = [(low, high, one + other, some + more)]
    knots = {
        round(margin, 2): round(right / count / (1 + UNSEEN), 3)
        for low, high, right, count in blocks
        for margin in (low, high)
    }
    return list(knots.items())


def margins(given: list[Answer]) -> tuple[list[tuple[float, bool]], list[tuple[float, bool]]]:
    families, subfamilies = [], []
    for each in given:
        analyses = each.given["analyses"]
        family: Choice | None = choose_family(analyses)
        if family is None:
            continue
        families.append((family.margin, each.family_right))
        inner = choose_subfamily(analyses, family.name)
        if inner and each.label.subfamily:
            subfamilies.append((inner.margin, each.subfamily_right))
    return families, subfamilies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--errors", action="store_true", help="show the wrong answers of the train half")
    parser.add_argument("--fit", action="store_true", help="fit the calibration on the train half")
    options = parser.parse_args()
    labels = [*read_labels(), *read_labels(LATER_LABELS)]
    halves = {half: [label for label in labels if label.half == half] for half in ("train", "test")}
    if options.fit:
        given = [each for mode in MODES for each in answers(halves["train"], mode)]
        for name, pairs in zip(("FAMILY", "SUBFAMILY"), margins(given), strict=True):
            print(f"{name}: Knots = {tuple(fit(pairs))}")
        return
    for half, chosen in halves.items():
        report(f"{half} half", chosen, options.errors and half == "train")
    report_time(labels)


if __name__ == "__main__":
    main()
