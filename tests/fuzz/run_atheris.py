"""Coverage-guided fuzzing of the readers of files from elsewhere, with atheris (libFuzzer for Python).

    python -m pip install atheris
    python tests/fuzz/run_atheris.py image --minutes 10
    python tests/fuzz/run_atheris.py weights --minutes 10

Exceptions that are not astrogan's own, results that break what the reader promises, hangs above ten seconds and more
than two gigabytes of memory are findings. A finding does not end the run: the first input of each kind is written to
``--out`` with its traceback, and the exit status is 1 if there was any. Inputs that reached new code are kept in
``--out``/corpus, from which the next run goes on.
"""

import argparse
import os
import sys
import traceback
from pathlib import Path

import astropy.io.fits
import astropy.nddata
import astropy.wcs  # noqa: F401 - what is imported before is not instrumented: only astrogan guides the search
import atheris

with atheris.instrument_imports(include=["astrogan"]):
    import fuzz_targets


class Findings:
    """Runs a target and keeps one input of each kind of failure."""

    def __init__(self, target, folder):
        self._target, self._folder, self.kinds = target, folder, {}

    def __call__(self, data):
        try:
            self._target(data)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            kind = f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
            if kind not in self.kinds:
                name = f"finding-{len(self.kinds):03d}"
                (self._folder / f"{name}.bin").write_bytes(data)
                (self._folder / f"{name}.txt").write_text(f"{kind}\n{''.join(traceback.format_exception(error))}")
            self.kinds[kind] = self.kinds.get(kind, 0) + 1


def seeds(target, folder):
    """Write the good files that the damage starts from."""
    if target == "image":
        inputs = {
            f"{name}-{option}": bytes([option]) + data
            for name, data in fuzz_targets.image_seeds().items()
            for option in (*range(len(fuzz_targets.OPTIONS)), 240)
        }
    else:
        import json

        card, tensors = fuzz_targets.weight_seed()
        inputs = {"good": bytes([0]) + json.dumps(card).encode() + b"\0" + tensors}
    for name, data in inputs.items():
        (folder / name).write_bytes(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=["image", "weights"])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, help="default: fuzz-TARGET")
    options = parser.parse_args()
    folder = options.out or Path(f"fuzz-{options.target}")
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    seeds(options.target, corpus)
    findings = Findings(getattr(fuzz_targets, f"fuzz_{options.target}"), folder)
    arguments = [sys.argv[0], str(corpus), f"-max_total_time={60 * options.minutes:.0f}", "-print_final_stats=1"]
    arguments += ["-rss_limit_mb=2048", "-timeout=10", "-max_len=40000", f"-artifact_prefix={folder}{os.sep}"]
    atheris.Setup(arguments, findings, custom_mutator=getattr(fuzz_targets, f"mutate_{options.target}"))
    try:
        atheris.Fuzz()
    finally:
        for kind, count in findings.kinds.items():
            print(f"{count} x {kind}", file=sys.stderr)
    sys.exit(bool(findings.kinds))


if __name__ == "__main__":
    main()
