"""Results in the formats of other programs: tables as Parquet, images and tables as a BIDS derivatives dataset."""
