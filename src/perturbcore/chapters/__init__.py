"""Chapters: find them, check their parameters, run them, and serve them while they run."""

from perturbcore.chapters.inside import OpenChapter, open_chapter
from perturbcore.chapters.parameters import Parameter
from perturbcore.chapters.runner import ChapterError, run_aside, run_for_book
from perturbcore.chapters.source import Chapter, find_chapter, find_chapters, published

__all__ = ["Chapter", "ChapterError", "OpenChapter", "Parameter", "find_chapter", "find_chapters",
           "open_chapter", "published", "run_aside", "run_for_book"]
