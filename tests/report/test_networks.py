"""The cards of the page."""

import html
import json

from deepmaker_jax import arch as archs
from deepmaker_jax.description import describe
from deepmaker_jax.report.networks import networks_section
from deepmaker_jax.report.tables import rows
from deepmaker_jax.report.view import read_run


def test_each_card_says_in_words_what_it_draws(make_run):
    run = make_run(24)
    view = read_run(run)
    members = rows(view)
    page = html.unescape(networks_section(view, members, {row.id: row.id for row in members}))
    listed = json.loads((run / "front.json").read_text())["members"]
    assert len(listed) == len(members) > 1
    cards = dict(zip([m.id for m in members], page.split('<div class="network"')[1:], strict=True))
    for member in listed:
        assert describe(archs.from_json(member["arch"])) in cards[member["id"]]
