"""SQLAlchemy's own tests of a dialect, from its own package, are what runs here."""

from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: F403
