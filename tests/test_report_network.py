from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.report_document import Pictures, Table, Words
from pipeline.report_facts import Facts, facts_from_files
from pipeline.report_network import architecture_section, search_section


@pytest.fixture
def facts(measured_run: Path) -> Facts:
    return facts_from_files(measured_run)


def test_costs_of_the_operations_add_up(facts: Facts) -> None:
    (table,) = (block for block in architecture_section(facts).blocks if isinstance(block, Table))
    assert table.rows[-1][3] == f"{facts.search['cost']['macs']:,}"
    assert table.rows[-1][5] == f"{facts.search['cost']['params']:,}"
    assert architecture_section(replace(facts, architecture=None)).blocks == []


def test_radius_that_was_not_recorded_is_said(facts: Facts) -> None:
    (drawn,) = (block for block in search_section(facts).blocks if isinstance(block, Pictures))
    assert (len(drawn.svgs), "not recorded" in drawn.caption) == (4, False)
    earlier = replace(facts, history=[row | {"radius": None} for row in facts.history])
    (drawn,) = (block for block in search_section(earlier).blocks if isinstance(block, Pictures))
    assert (len(drawn.svgs), "not recorded" in drawn.caption) == (3, True)


def test_history_that_was_not_kept_is_said(facts: Facts) -> None:
    words = [block.text for block in search_section(replace(facts, history=[])).blocks if isinstance(block, Words)]
    assert words[-1] == "The figures on the way were not kept."
    assert search_section(replace(facts, search={})).blocks == []


def test_finalists_are_listed(facts: Facts) -> None:
    finalist = {"architecture_id": "ab", "architecture": "edge x2", "predicted_ms": 11.0, "measured_ms": 11.54}
    found = search_section(replace(facts, search=facts.search | {"finalists": [finalist]}))
    (table,) = (block for block in found.blocks if isinstance(block, Table))
    assert table.rows == [("edge x2", "11.00", "11.54")]


def test_what_training_computed_in_is_said_where_it_is_known(facts: Facts) -> None:
    def told(search: dict[str, Any]) -> str:
        return next(
            block.text for block in search_section(replace(facts, search=search)).blocks if isinstance(block, Words)
        )

    assert "steps in bf16, relaxation" in told(facts.search | {"precision": "bf16"})
    assert "steps, relaxation" in told({name: value for name, value in facts.search.items() if name != "precision"})
