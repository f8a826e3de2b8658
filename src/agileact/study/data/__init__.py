"""Data sets by name: the paper's digits, files of the user's, scikit-learn's, generated ones, and text.

Importing this registers them all.
"""

from agileact.study.data import files as files
from agileact.study.data import generated as generated
from agileact.study.data import mnist as mnist
from agileact.study.data import user_function as user_function
