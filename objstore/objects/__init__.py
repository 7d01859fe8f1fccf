"""Floor 5, objects: persistent objects over any `contracts.Store`."""

from objstore.objects.connection import Connection
from objstore.objects.database import DB
from objstore.objects.options import DatabaseOptions

__all__ = ["DB", "Connection", "DatabaseOptions"]
