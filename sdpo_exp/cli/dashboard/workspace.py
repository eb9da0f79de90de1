"""Panels as W&B's own: `sdpo_exp.loggers.panels` in terms of the `wandb-workspaces` library."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from sdpo_exp.errors import UserError, first_line
from sdpo_exp.loggers.panels import GROUP_BY, Panel, Section

STEP = "trainer/global_step"
_WIDTH, _HEIGHT, _COLUMNS = 8, 6, 3
_SECONDS = 20.0


def workspace(
    sections: Sequence[Section], *, entity: str, project: str, name: str, group: str | None
) -> Any:
    """A `Workspace` that nobody has seen yet; no network and no account.

    Args:
        sections: what it shows.
        entity, project, name: where it belongs and what it is called.
        group: only runs of this group, if given.
    """
    import wandb_workspaces.workspaces as ws

    group_by: list[Any] = [ws.Config(key) for key in GROUP_BY]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            ws.Section(
                name=section.name,
                panels=[_panel(panel) for panel in section.panels],
                is_open=True,
                layout_settings=ws.SectionLayoutSettings(columns=_COLUMNS, rows=2),
            )
            for section in sections
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=30),
        runset_settings=ws.RunsetSettings(
            groupby=group_by,
            filters=[ws.Metric("Group") == group] if group else [],
        ),
    )


def save(made: Any) -> str:
    """Save a workspace; its address.

    Raises:
        UserError: no API key, no server, or the server says no.
    """
    import wandb

    from sdpo_exp.loggers.wandb_session import check_access

    try:
        check_access(_SECONDS)
        made.entity = made.entity or wandb.Api().default_entity
        made.save()
        return str(made.url)
    except Exception as error:
        raise UserError(f"W&B: {first_line(error)}; without an account: --dry-run") from None


def _panel(panel: Panel) -> Any:
    wr: Any = import_module("wandb_workspaces.reports.v2")
    layout = wr.Layout(w=_WIDTH, h=_HEIGHT)
    title, keys = panel.title, list(panel.keys)
    if panel.kind == "lines":
        grouping: dict[str, Any] = {}
        if panel.by is not None:
            grouping = {"groupby": wr.Config(panel.by), "groupby_aggfunc": "mean"}
            grouping |= {"groupby_rangefunc": "minmax"}
        shown = {"metric_regex": "|".join(keys)} if panel.pattern else {"y": keys}
        return wr.LinePlot(title=title, x=STEP, layout=layout, **shown, **grouping)
    if panel.kind == "bars":
        return wr.BarPlot(title=title, metrics=keys, layout=layout)
    if panel.kind == "histogram":  # the app draws one as a heat map over steps
        return wr.LinePlot(title=title, x=STEP, y=keys, layout=layout)
    if panel.kind == "images":
        return wr.MediaBrowser(title=title, media_keys=keys, num_columns=1, layout=layout)
    return wr.WeavePanelSummaryTable(table_name=keys[0], layout=wr.Layout(w=24, h=9))
