"""Data sets beyond the paper's: from files of the user's, from scikit-learn, generated, and text.

Importing this registers them; :mod:`agileact.study.data` does so when a name is looked up.
"""

from agileact.study.datasets import custom, files, generated, tabular, text
from agileact.study.datasets.generated import mnist1d as mnist1d
from agileact.study.datasets.text import pieces as pieces

__all__ = ["custom", "files", "generated", "mnist1d", "pieces", "tabular", "text"]
