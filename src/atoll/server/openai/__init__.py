"""The stateful routes of the OpenAI API: files, batches, fine-tuning jobs, conversations, stored responses."""
