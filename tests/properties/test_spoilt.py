"""This file shows that each rule of the fingerprints is needed: without it, an edit of the corpus is judged wrongly."""

from __future__ import annotations

from hashlib import sha256

import pytest

from branchline.core.reuse import key
from tests.edits import CORPUS, REBUILD, Edit
from tests.spoilt import RULES, Spoilt, spoil

EDITS = {edit.id: edit for edit in CORPUS}


def rebuilds(edit: Edit, rule: Spoilt) -> bool:
    """Without the rule, does the closure say that the edited step must run?"""
    names = spoil(rule)
    keys = []
    for files in (edit.files, edit.after):
        held = {path: names["File"](sha256(text.encode()).hexdigest()) for path, text in files.items()}
        project = names["Project"](held, edit.roots, lambda path, files=files: names["summary"](files[path].encode()))
        keys.append(key(names["closure_of"](project, edit.step).lines))
    return keys[0] != keys[1]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.rule.replace(" ", "-"))
def test_without_a_rule_an_edit_is_judged_wrongly(rule: Spoilt) -> None:
    edit = EDITS[rule.shown]
    assert rebuilds(edit, rule) != (edit.static == REBUILD), edit.title
