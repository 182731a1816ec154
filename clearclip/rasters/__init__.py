"""Files with more than red, green and blue in 8 bits: tags, bands, levels and coordinates; label maps as GeoTIFF."""
