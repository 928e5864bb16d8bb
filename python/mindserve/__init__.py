"""MindServe: a runtime that serves machine-learning models.

``mindserve.server`` starts and stops servers, ``mindserve.client`` calls them. Importing starts nothing.
"""

__version__ = "0.1.0"
