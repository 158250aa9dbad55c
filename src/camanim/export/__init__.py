"""Write results as tables, arrays, images and volumes that other programs read."""

from camanim.export.dicom import write_dicom
from camanim.export.labelled import to_xarray
from camanim.export.maps import write_maps
from camanim.export.tables import to_pandas, write_table

__all__ = ["to_pandas", "to_xarray", "write_dicom", "write_maps", "write_table"]
