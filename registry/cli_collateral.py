"""``quotary registry collateral``: fetch what vendors publish beside evidence."""

from datetime import UTC, datetime
from pathlib import Path

import click

from quotary.errors import CannotTell
from registry.cli_options import EXITS, folder_option


@click.command(epilog="Example: quotary registry collateral --dir log\n\n" + EXITS)
@folder_option
@click.option("--once", is_flag=True, help="Fetch once, and end; 40 where something could not be had.")
def collateral(folder: Path, once: bool) -> None:
    """Fetch what registry.toml names under [collateral] from the vendors, now and on schedule.

    serve starts this by itself.
    """
    from quotary.net.transport import HTTP
    from registry import logs
    from registry.collateral import Collateral, Refresher, run_refresher
    from registry.config import load_config

    logs.set_up()
    config = load_config(folder)
    settings = config.collateral
    if not once:
        run_refresher(settings, config.collateral_folder)
        return
    kept = Collateral(config.collateral_folder)
    count = Refresher(settings, kept, HTTP(), lambda: datetime.now(UTC)).round()
    click.echo(f"fetched {count} of {len(settings.products)} products")
    if count < len(settings.products):
        raise CannotTell("some documents could not be had; the lines above say why")
