"""Teams: agents with one list of tasks, which one of them, the lead, keeps."""
