"""``astrogan bench``."""

from __future__ import annotations

import click

__all__ = ["BENCHES", "bench"]


BENCHES = {
    "catalog": "astrogan.bench.catalog",
    "deblending": "astrogan.bench.deblending",
    "degradation": "astrogan.bench.degradation",
    "loading": "astrogan.bench.loading",
    "mosaic": "astrogan.bench.mosaic",
    "networks": "astrogan.bench.networks",
    "noise": "astrogan.bench.noise",
    "performance": "astrogan.bench.performance",
    "restoration": "astrogan.bench.restoration",
    "restoration-linear": "astrogan.bench.restoration_linear",
    "richardson-lucy": "astrogan.bench.richardson_lucy",
    "training-size": "astrogan.bench.training_size",
    "translation": "astrogan.bench.translation",
    "translation-real": "astrogan.bench.translation_real",
    "wiener": "astrogan.bench.wiener",
}


class _Benches(click.Group):
    """A command a benchmark: its module's own, ``command``, or one that times it; imported when it is asked for."""

    def list_commands(self, ctx):
        return sorted(BENCHES)

    def get_command(self, ctx, name):
        import importlib

        if name not in BENCHES:
            return None
        module = importlib.import_module(BENCHES[name])
        return getattr(module, "command", None) or _plain(name, module)

    def resolve_command(self, ctx, args):
        if args and args[0] not in BENCHES:
            raise click.UsageError(f"there is no benchmark {args[0]!r}; there are: {', '.join(sorted(BENCHES))}", ctx)
        return super().resolve_command(ctx, args)


def _plain(name, module):
    """A command that hands its arguments to a benchmark's own parser."""

    @click.command(name, add_help_option=False, context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def run(arguments):
        module.main(list(arguments))

    run.help = module.__doc__.splitlines()[0].replace("``", "")
    return run


@click.group(cls=_Benches)
def bench():
    """Benchmarks: methods beside their peers and beside published numbers, in one run."""
