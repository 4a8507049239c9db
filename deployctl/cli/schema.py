"""`deployctl schema`: words only."""

from __future__ import annotations

import click


@click.command()
@click.option("--platform", is_flag=True, help="The schema of platform.yaml instead.")
def schema(platform: bool) -> None:
    """Print the JSON Schema of deploy.yaml.

    `init` writes it beside deploy.yaml, whose first line tells editors about it.
    """
    from deployctl.config import schema as made

    click.echo(made.text(made.platform_document() if platform else None), nl=False)
