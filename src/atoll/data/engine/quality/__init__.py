"""Quality: models that score texts, trained from labels or from good texts alone, and conditions over scores."""
