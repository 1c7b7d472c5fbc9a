"""Many studies in one go, and what is written for each: masks, pictures, records, measurements."""
