"""The churn tables in PostgreSQL: their migrations, and the data that the platform ships for them."""

from mlplatform.io.warehouse.schema import WarehouseError, migrate
from mlplatform.io.warehouse.telco import LoadedCustomers, load_telco

__all__ = ["LoadedCustomers", "WarehouseError", "load_telco", "migrate"]
