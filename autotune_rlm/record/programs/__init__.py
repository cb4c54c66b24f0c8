"""Measures programs of many languages in limited children: peak memory and processor time."""

from autotune_rlm.landscapes.tables import write_table
from autotune_rlm.record.programs._languages import LANGUAGES, Language, language_of
from autotune_rlm.record.programs._measure import ProgramMeasurer
from autotune_rlm.record.programs._program import Program, read_programs, sizes
from autotune_rlm.record.programs._record import ProgramProgress, record_programs
from autotune_rlm.record.programs._sandbox import Limits, Sandbox
from autotune_rlm.record.programs._table import program_table

__all__ = [
    "LANGUAGES",
    "Language",
    "Limits",
    "Program",
    "ProgramMeasurer",
    "ProgramProgress",
    "Sandbox",
    "language_of",
    "program_table",
    "read_programs",
    "record_programs",
    "sizes",
    "write_table",
]
