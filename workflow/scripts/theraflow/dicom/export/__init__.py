"""What the files of an export say: headers, series, which of them are wanted, and who the patient is."""
