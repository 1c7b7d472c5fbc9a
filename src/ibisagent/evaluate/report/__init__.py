"""Reports: a run, or a lab, as a page, as tables for papers, and as plots.

The parts: :mod:`.model` is what a report says, as pure data; :mod:`.build` makes it of runs; :mod:`.page`,
:mod:`.markdown`, :mod:`.latex`, :mod:`.record` and :mod:`.plots` write it out; :mod:`.write` fills a folder.
"""

from __future__ import annotations

from ibisagent.evaluate.report.build import build_report
from ibisagent.evaluate.report.gallery import choose_failures
from ibisagent.evaluate.report.model import Report
from ibisagent.evaluate.report.write import OWNED, write_report

__all__ = ["OWNED", "Report", "build_report", "choose_failures", "write_report"]
