"""``astrogan simulate``."""

from __future__ import annotations

from pathlib import Path

import click

from astrogan.cli._output import check_outputs, write_one

__all__ = ["simulate"]


@click.command()
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False), help="Folder for the FITS files.")
@click.option("--size", type=click.IntRange(min=32), help="Pixels along each axis; default: 512, of a blend 80.")
@click.option("--bands", default="g,r,i", show_default=True, help="Bands, separated by commas.")
@click.option("--blends", type=click.IntRange(min=1), help="So many blends instead of a field.")
@click.option("--sources", type=click.IntRange(min=1), help="Sources in a blend; default: 2 to 8 at random.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def simulate(output, size, bands, blends, sources, seed, overwrite):
    """Simulate a field of galaxies and stars, or blends, with noise-free truth and catalog."""
    folder, bands = Path(output), tuple(bands.split(","))
    if sources and not blends:
        raise click.UsageError("--sources is for blends; give --blends N, too")
    if blends:
        from astrogan.simulate.blends import simulate_blend

        seeds = range(seed, seed + blends)
        scenes = (simulate_blend(s, bands=bands, shape=(size or 80,) * 2, sources=sources) for s in seeds)
        click.echo(_write_blends(scenes, [f"blend-{s:06d}" for s in seeds], folder, overwrite))
        return
    from astrogan.image.write import write_table
    from astrogan.simulate.field import simulate_field

    files = [folder / name for name in ("field.fits", "truth.fits", "sharp.fits", "catalog.ecsv")]
    if folder.exists():
        check_outputs(overwrite, files[:3], files[3:])
    field = simulate_field((size or 512,) * 2, bands=bands, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    for path, image in zip(files, (field.images, field.truth_images, field.truth_sharp_images), strict=False):
        write_one(image, path, overwrite)
    write_table(field.catalog, files[3], overwrite=overwrite)
    click.echo(str(files[3]))


def _write_blends(scenes, names, folder, overwrite):
    """Write blends as NAME.fits, their sources alone as NAME-truth.fits, and a catalog, whose path is returned."""
    from astropy.table import Table, vstack

    from astrogan.image.write import write_table

    catalog, rows = folder / "catalog.ecsv", []
    if folder.exists():
        check_outputs(overwrite, [folder / f"{n}{part}.fits" for n in names for part in ("", "-truth")], [catalog])
    for name, scene in zip(names, scenes, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        write_one(scene.images, folder / f"{name}.fits", overwrite)
        write_one(scene.truth_images, folder / f"{name}-truth.fits", overwrite)
        rows.append(Table({"blend": [name] * len(scene.kinds)} | dict(scene.catalog.columns)))
    write_table(vstack(rows), catalog, overwrite=overwrite)
    return str(catalog)
